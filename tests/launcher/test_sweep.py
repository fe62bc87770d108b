"""A sweep that was cut: what has ended is not repeated, what was cut goes on, the rest begins."""

import json
import os
import re
import signal
import time

import pytest
import yaml
from helpers import begin_without_verl, heed_ctrl_c, launch_without_verl
from omegaconf import OmegaConf
from sweeps import make_job, make_sweep

from launcher import sweep
from preflight.facts import STAGE
from preflight.mistakes import Mistake


@pytest.fixture
def common(sql_demo, tiny_model):
    return [f"lab.dataset.dir={sql_demo}", f"lab.model.path={tiny_model}", "trainer.test_freq=-1"]


def starts(job) -> int:
    return len(json.loads((job / "run.json").read_text())["attempts"])


def test_what_is_each_jobs_own(tmp_path):
    """Without what all have, of the command line or of a YAML file."""
    made = make_sweep(tmp_path / "a", "lab.seed=range(0,2)", "hw=cpu", params={"algo": "grpo,rloo"})
    jobs = sweep.jobs(made)
    assert [sweep.own(made, job) for job in jobs] == [
        {"algo": algo, "lab.seed": seed} for algo in ("grpo", "rloo") for seed in ("0", "1")
    ]
    one = make_sweep(tmp_path / "b", "algo=grpo")
    assert sweep.own(one, ["algo=grpo"]) == {}
    both = make_sweep(tmp_path / "c", "algo=grpo,rloo", params={"algo": "ppo,gspo"})
    assert [sweep.own(both, job)["algo"] for job in sweep.jobs(both)] == ["grpo", "rloo"]


def test_the_command_line_of_a_sweep_that_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv(STAGE, "1")  # as sweep.arguments does, for good
    monkeypatch.setattr(sweep, "goes_on", [])
    monkeypatch.setattr(sweep, "changed", [])
    monkeypatch.setattr(sweep, "take", lambda folder: None)
    made = make_sweep(tmp_path / "a b", "algo=grpo,rloo", "lab.seed=1,2", params={"hw": "cpu"})
    for argv in ([f"resume={made}"], ["-m", f"resume={made}"]):
        words = sweep.arguments(argv)
        assert words == ["-m", "hw=cpu", "algo=grpo,rloo", "lab.seed=1,2", f"hydra.sweep.dir='{made}'"]  # fmt: skip
    assert sweep.changed == []
    words = sweep.arguments([f"resume={made}", "trainer.total_training_steps=9", "hw=cpu_x2"])
    assert words[1:3] == ["algo=grpo,rloo", "lab.seed=1,2"]
    assert words[-2:] == ["trainer.total_training_steps=9", "hw=cpu_x2"] == sweep.changed
    for word in ("lab.seed=5,6", "lab.seed=1", "model=tiny,qwen"):
        with pytest.raises(Mistake, match=f"{word}: what a sweep varies stays as it is"):
            sweep.arguments([f"resume={made}", word])
    with pytest.raises(Mistake, match=r"leave out hydra\.sweep\.dir"):
        sweep.arguments([f"resume={made}", "hydra.sweep.dir=x"])
    same = ["-m", "algo=ppo", f"hydra.sweep.dir='{made}'"]
    assert sweep.arguments(same) == same  # a start that was refused has left it
    make_job(made / "0", ["algo=grpo"], {})
    with pytest.raises(Mistake, match=f"holds a sweep already: .python launch.py 'resume={made}'"):
        sweep.arguments(same)
    run = tmp_path / "run"
    assert sweep.arguments([f"resume={run}"]) == [f"resume={run}"]
    (made / "multirun.yaml").write_text("hydra: {a")
    with pytest.raises(Mistake, match="damaged"):
        sweep.arguments([f"resume={made}"])


def test_a_preset_of_a_sweep_without_m_and_m_where_nothing_runs():
    with pytest.raises(Mistake, match=r"sweep=search is of several runs: add -m"):
        sweep.arguments(["sweep=search", "algo=grpo"])
    for argv in (
        ["sweep=search", "--cfg", "job"],
        ["sweep=search", "--cfg=job"],
        ["sweep=none"],
        ["algo=grpo"],
    ):
        assert sweep.arguments(argv) == argv
    with pytest.raises(Mistake, match=r"--cfg shows one config, and -m makes several"):
        sweep.arguments(["-m", "sweep=search", "--cfg", "job"])


def test_a_cut_sweep_goes_on(tmp_path, common):
    """Ctrl-C in the first of two jobs; a second start beside a sweep that runs is refused."""
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / "wait").touch()  # no job ends
    words = ["-m", "lab.seed=3,4", *common, f"hydra.sweep.dir={folder}"]
    with begin_without_verl(*words, preexec_fn=heed_ctrl_c) as process:
        while "verl runs in" not in read(folder / "0/log.txt"):
            time.sleep(0.05)
            assert process.poll() is None, process.communicate()
        refused = launch_without_verl(f"resume={folder}")
        assert refused.returncode == 2 and "has not ended" in refused.stderr, refused.stderr
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert f"go on: python launch.py resume={folder}" in err, err
    assert "job 1 of 2: lab.seed=3 → " in out
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["0"]
    (folder / "wait").unlink()

    done = launch_without_verl(f"resume={folder}")
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = [folder / "0", folder / "1"]
    assert [starts(job) for job in jobs] == [2, 1] and ": has ended well" not in done.stdout
    assert (folder / "sweep.html").is_file()
    seeds = [yaml.safe_load((job / "resolved.yaml").read_text())["lab"]["seed"] for job in jobs]
    assert seeds == [3, 4]

    record = json.loads((jobs[1] / "run.json").read_text())  # as one that was killed leaves it
    record["attempts"][-1].update(exit=None, end=None)
    (jobs[1] / "run.json").write_text(json.dumps(record))
    done = launch_without_verl("-m", f"resume={folder}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [starts(job) for job in jobs] == [2, 2]
    assert re.findall(r"job (\d) of 2: .*: has ended well", done.stdout) == ["1"]


@pytest.mark.parametrize(
    ("budget", "spent"),
    [({}, False), ({"steps": 8}, False), ({"steps": 7}, True), ({"steps": 6, "hours": 9}, True),
     ({"hours": 0}, True), ({"hours": 9}, False)],
)  # fmt: skip
def test_a_budget(tmp_path, capsys, budget, spent):
    """Jobs of four and three steps."""
    made = make_sweep(tmp_path / "s", "lab.seed=0,1,2")
    for number in range(2):
        make_job(made / str(number), [f"lab.seed={number}"], {1: None, 4 - number: None})
    limits = OmegaConf.create({f"budget_{k}": budget.get(k) for k in ("steps", "hours")})
    assert sweep.is_spent(made, limits, "job 3 of 3") == spent
    said = capsys.readouterr().out
    assert said.startswith("job 3 of 3: not begun, lab.sweep.budget_") if spent else not said


def test_a_budget_is_no_other_run(tmp_path, monkeypatch):
    """More of it makes no job that has ended go on."""
    monkeypatch.setattr(sweep, "goes_on", [])
    monkeypatch.setattr(sweep, "changed", [])
    monkeypatch.setattr(sweep, "take", lambda folder: None)
    made = make_sweep(tmp_path / "s", "lab.seed=0,1", "lab.sweep.budget_steps=4")
    words = sweep.arguments([f"resume={made}", "lab.sweep.budget_steps=9"])
    assert "lab.sweep.budget_steps=9" in words and "lab.sweep.budget_steps=4" not in words
    assert sweep.changed == []


def test_a_sweep_that_goes_on_with_more(tmp_path, common):
    """Also its jobs that have ended; and what was added belongs to it from then on."""
    folder = tmp_path / "s"
    budget = "lab.sweep.budget_hours=0"
    done = launch_without_verl("-m", "lab.seed=3", *common, f"hydra.sweep.dir={folder}", budget)
    assert done.returncode == 0 and f"not begun, {budget} is spent" in done.stdout, done.stderr
    assert "not begun: job 0" in done.stdout or re.search(r"0 .*not begun", done.stdout)
    done = launch_without_verl("-m", "lab.seed=3", *common, f"hydra.sweep.dir={folder}")
    assert done.returncode == 0, done.stdout + done.stderr
    done = launch_without_verl(f"resume={folder}", "trainer.total_training_steps=7")
    assert done.returncode == 0 and starts(folder / "0") == 2, done.stdout + done.stderr
    config = yaml.safe_load((folder / "0/resolved.yaml").read_text())
    assert config["trainer"]["total_training_steps"] == 7
    done = launch_without_verl(f"resume={folder}")
    assert done.stdout.count(": has ended well") == 1 and starts(folder / "0") == 2


def read(file) -> str:
    return file.read_text() if file.exists() else ""
