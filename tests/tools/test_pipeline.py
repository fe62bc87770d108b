"""Stages: what each is told, and mistakes before the first one starts. Real ones: test_runs_presets.py."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, heed_ctrl_c
from hydra.core.override_parser.overrides_parser import OverridesParser

from preflight import resolvers
from preflight.mistakes import Mistake
from tools.pipeline import plan, run

pytestmark = pytest.mark.usefixtures("own_hydra")


@pytest.fixture(autouse=True)
def data(sql_demo, tiny_model, monkeypatch):
    """The data where the stages look for it."""
    resolvers.register()
    return [f"lab.dataset.dir={sql_demo}", f"lab.model.path={tiny_model}"]


def test_a_reward_model_is_the_reward_of_the_stages_after_it(tmp_path, data):
    words = [
        "sft",
        "rm",
        "ppo",
        "ppo:trainer.total_training_steps=5",
        "lab.lora_rank=8",
        "reward=sql",
    ]
    sft, rm, ppo = plan([*words, *data], tmp_path)
    assert (sft.makes, rm.makes, ppo.makes) == (None, "model", None)
    assert "reward=sql" not in sft.overrides + rm.overrides and "reward=sql" in ppo.overrides
    assert all("lab.lora_rank=8" in stage.overrides for stage in (sft, rm, ppo))
    assert [s.name for s in (sft, rm, ppo) if "trainer.total_training_steps=5" in s.overrides] == [
        "ppo"
    ]
    *_, last = plan(["sft", "rm", "ppo", *data], tmp_path)
    assert last.overrides[-2:] == ["reward=model", f"lab.reward_model.path={tmp_path}/2_rm"]
    *_, last = plan(["sft", "rm", "ppo", "ppo:reward=sql_process", *data], tmp_path)
    assert not any("reward_model" in override for override in last.overrides)


def test_later_stages_need_no_model_of_their_own(tmp_path, data):
    """They begin with that of the stage before, which isn't there yet."""
    nowhere = f"lab.model.path={tmp_path}/nowhere"
    assert len(plan(["sft", "dpo", data[0], f"sft:{data[1]}"], tmp_path)) == 2
    with pytest.raises(Mistake, match=r"stage sft: .*nowhere"):
        plan(["sft", "dpo", data[0], nowhere], tmp_path)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "no stage is named"),
        (["sft", "gropo"], "stage gropo: unknown stage 'gropo'. Did you mean grpo?"),
        (["sft", "dpo", "dop:a=1"], "unknown stage 'dop'. Did you mean dpo?"),
        (["sft", "dpo", "dpo:dpo.betta=1"], "stage dpo: unknown key 'dpo.betta'"),
        (["sft", "grpo", "grpo:reward=sqk"], "stage grpo: unknown reward= 'sqk'. Did you mean sql?"),
        (["sft", "dpo", "dataset=bird"], "stage sft: no data file data/bird/sft_train.parquet"),
    ],
)  # fmt: skip
def test_mistakes_are_told_before_anything_starts(tmp_path, data, words, told):
    with pytest.raises(Mistake) as error:
        plan(words + (data[1:] if "dataset=bird" in words else data), tmp_path)
    assert str(error.value).startswith(told)
    assert not list(tmp_path.iterdir())


def test_what_is_done_is_not_repeated_and_a_failure_ends_it(tmp_path, data, monkeypatch, capsys):
    """launch.py is asked to go on with what was begun, from the last policy."""
    stages = plan(["sft", "rm", "dpo", "grpo", *data], tmp_path)
    for stage in stages[:2]:
        stage.folder.mkdir()
        record = {"attempts": [{"exit": 0, "start": None, "end": None}]}
        (stage.folder / "run.json").write_text(json.dumps(record))
    stages[2].folder.mkdir()
    (stages[2].folder / "resolved.yaml").touch()
    asked = []

    class Failing:
        def __init__(self, command, env, preexec_fn):
            assert env["LAB_STAGE"]  # it leaves it to the last stage to say what to do next
            asked.append(command)

        def wait(self):
            return 3

    monkeypatch.setattr(subprocess, "Popen", Failing)
    assert run(stages) == 3
    (command,) = asked
    assert command[:2] == [sys.executable, str(Path(ROOT, "launch.py"))]
    assert f"resume={stages[2].folder}" in command
    assert f"lab.model.path={stages[0].folder}" in command  # the reward model is no policy
    out = capsys.readouterr()
    assert out.out.count("is done") == 2 and "exit 3" in out.out and "[4/4]" not in out.out
    assert f"--dir {tmp_path}" in out.err


def test_a_folder_of_any_name(tmp_path, data, monkeypatch):
    """Hydra reads the folders of a stage's command line as they are."""
    folder = tmp_path / "it's a=b, (c) ü #1"
    stages = plan(["sft", "grpo", *data], folder)
    asked = []

    class Done:
        def __init__(self, command, env, preexec_fn):
            asked.extend(command[2:])

        def wait(self):
            return 0

    monkeypatch.setattr(subprocess, "Popen", Done)
    stages[1].run(stages[0].folder)
    read = {o.key_or_group: o.value() for o in OverridesParser.create().parse_overrides(asked)}
    assert read["hydra.run.dir"] == str(folder / "2_grpo")
    assert read["lab.model.path"] == str(folder / "1_sft")


RUN = """
import sys, time
from pathlib import Path
from launcher import ends
ends.heed()
try:
    print("ready", flush=True)
    time.sleep(100)
except KeyboardInterrupt as stop:
    time.sleep(0.5)
    Path(__file__).with_suffix(".ended").write_text(str(ends.status(stop)))
    sys.exit(ends.status(stop))
"""
PIPELINE = """
import sys
from pathlib import Path
from launcher import ends
from tools import pipeline
pipeline.LAUNCH = sys.argv[1]
ends.heed()
stage = object.__new__(pipeline.Stage)
stage.folder, stage.overrides = Path(sys.argv[1]).parent / "none", []
sys.exit(stage.run(None))
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="Linux alone tells a process of its parent's end"
)
@pytest.mark.parametrize(
    ("number", "status", "of_run"),
    [(signal.SIGTERM, 143, 143), (signal.SIGINT, 130, 130), (signal.SIGHUP, 129, 129), (signal.SIGKILL, -9, 143)],
)  # fmt: skip
def test_a_stage_ends_with_its_pipeline(tmp_path, number, status, of_run):
    launch = tmp_path / "launch.py"
    launch.write_text(RUN)
    command = [sys.executable, "-c", PIPELINE, launch]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    process.communicate(
        timeout=30
    )  # until the run has ended, too: it has the other end of the pipe
    assert process.returncode == status
    assert (tmp_path / "launch.ended").read_text() == str(of_run)
