"""What a run leaves to read: errors of a log, the table of several runs."""

import asyncio
import json
import os
import re
import subprocess
from datetime import datetime
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from launcher import results
from launcher.checkpoints import TRACKER
from launcher.progress import NESTED, Progress
from launcher.results import (
    ERROR,
    STAGE,
    Attempt,
    EndedJob,
    compared,
    errors,
    jobs_table,
    stats,
    summary,
)
from rewards._limits.calls import RewardError, call

CAUSE = """(RewardLoopWorker pid=7) Traceback (most recent call last):
(RewardLoopWorker pid=7)   File "reward.py", line 1, in <module>
(RewardLoopWorker pid=7)     import nothing
(RewardLoopWorker pid=7) ModuleNotFoundError: No module named 'nothing'
"""
END = """step:1 - actor/lr:0.1
Traceback (most recent call last):
  File "verl.py", line 2, in wait
    raise ValueError("an empty list")
ValueError: an empty list
"""


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log.txt"


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of its own with 1 MiB; skips where this system lets nobody make one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", place]
    try:
        made = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        made = False
    if not made:
        pytest.skip("no disk of its own can be made here: that needs root")
    yield place
    subprocess.run(["umount", place], check=True)


def test_the_cause_and_the_end_of_a_crash(log):
    log.write_text("starting\n" + CAUSE + "more\n" * 20_000 + END + "bye\n")
    cause, end = errors(log)
    assert cause[-1] == "ModuleNotFoundError: No module named 'nothing'"
    assert cause[0].strip() == 'File "reward.py", line 1, in <module>'
    assert end[-1] == "ValueError: an empty list" and len(end) == 3


@pytest.fixture
def of_reward(tmp_path):
    """What stands in the log for each error of a reward that raises."""

    def made(*codes: str) -> str:
        text = ""
        for number, code in enumerate(codes):
            file = tmp_path / f"mine{number}.py"
            file.write_text(f"LIMITS_ITSELF = True\nasync def compute_score(**row):\n    {code}\n")
            row = ("source", "an answer", "truth", {"index": 4})
            with pytest.raises(RewardError) as caught:
                asyncio.run(call(str(file), "compute_score", row, {}))
            lines = caught.value.told.splitlines(keepends=True)
            text += "".join(f"\x1b[36m(Worker pid=7)\x1b[0m {line}" for line in lines) + "\n"
        return text

    return made


TOO_MANY = """\x1b[36m(TaskRunnerV1 pid=7)\x1b[0m RuntimeError: the reward raised for 9 of 32 answers, and so on
"""


def test_of_a_reward_that_raises_the_end_shows_its_own_line(log, of_reward):
    """Neither what was between it and verl, nor what verl made of it later, nor what was logged before."""
    log.write_text(
        CAUSE + of_reward("return comon", "return 1 / 0") + "more\n" * 999 + TOO_MANY + END
    )
    block, end = errors(log)
    assert end == ["RuntimeError: the reward raised for 9 of 32 answers, and so on"]
    assert block[0].endswith("mine0.py raised NameError: name 'comon' is not defined")
    assert re.match(r"at .*mine0\.py, line 3, in compute_score", block[1])
    assert block[2].startswith("the row: data_source='source', index=4") and len(block) == 3
    said = summary(log.parent, 1, 60, 0)
    assert "ValueError" not in said and said.count("\n") < 15 and "line 3" in said


def test_a_reward_that_raised_within_its_share_is_not_the_cause_of_another_end(log, of_reward):
    log.write_text(of_reward("return comon") + CAUSE + END)
    cause, end = errors(log)
    assert "nothing" in cause[-1] and end[-1] == "ValueError: an empty list"


def test_a_run_of_stages_shows_it_as_well(log, of_reward, capsys):
    log.write_text(of_reward("return comon") + TOO_MANY)
    said = summary(log.parent, 1, 60, 0)
    Attempt(log.parent, ["launch.py"], OmegaConf.create({}))
    progress = Progress(log.parent, "rl", None)
    stage = log.stat().st_size
    with log.open("a") as file:
        file.write(
            "".join(f"{NESTED} {line}\n" for line in said.splitlines()) + "StageError: it ended\n"
        )
    assert errors(log, stage) == errors(log)
    progress()
    assert "mine0.py, line 3" in capsys.readouterr().out
    assert any(
        ERROR.match(line.strip()) for line in said.splitlines()
    )  # as launcher/stages.py looks for it


def test_a_run_that_ends_well_says_that_its_reward_raised(log, of_reward):
    Attempt(log.parent, ["launch.py"], OmegaConf.create({}))
    log.write_text("starting\n" + of_reward(*["return comon"] * 3) + "bye\n")
    said = summary(log.parent, 0, 60, 0)
    assert "the reward raised (`reward/failed`" in said and "NameError: name 'comon'" in said
    assert "mine0.py, line 3" in said
    assert "raised" not in summary(log.parent, 0, 60, log.stat().st_size)  # an earlier start
    log.write_text("it raised the reward above 0.5\n")
    assert "raised" not in summary(log.parent, 0, 60, 0)


def test_the_screen_shows_the_first_error_of_a_reward(log, of_reward, capsys):
    log.write_text("an earlier start\n")
    progress = Progress(log.parent, "rl", None)
    with log.open("a") as file:
        file.write(of_reward("return comon", "return 1 / 0"))
    progress()
    shown = capsys.readouterr().out
    assert "raised NameError: name 'comon'" in shown and "mine0.py, line 3" in shown
    assert "ZeroDivisionError" not in shown and "the row" not in shown and progress.raised == 2


def test_one_error_is_told_once_and_an_earlier_attempt_is_past(log):
    log.write_text(CAUSE + END)
    assert [block[-1] for block in errors(log, begin=len(CAUSE))] == ["ValueError: an empty list"]


def test_a_log_without_an_error_says_so(log):
    log.write_text("the kernel killed it\n")
    assert "exit status 3. Its log names no error." in summary(log.parent, 3, 60, 0)


def test_of_a_killed_run_the_end_says_what_can_be_known(log, monkeypatch, tmp_path):
    log.write_text("starting\n")
    vmstat = tmp_path / "vmstat"
    monkeypatch.setattr(results, "VMSTAT", vmstat)
    assert "by a person, a job scheduler, or Linux for lack" in summary(log.parent, 137, 60, 0, 4)
    vmstat.write_text("nr_free_pages 1\noom_kill 4\noom_kills 9\n")
    assert results.out_of_memory_kills() == 4
    assert "Linux has killed nothing" in summary(log.parent, 137, 60, 0, 4)
    assert "Linux has killed a process" in summary(log.parent, 137, 60, 0, 3)
    assert "by the signal SIGSEGV" in summary(log.parent, 139, 60, 0, 4)
    assert "signal" not in summary(log.parent, 1, 60, 0, 4)


@pytest.mark.parametrize(
    ("line", "name"),
    [("ProcessKilled: ray::WorkerDict (process 7) was ended by SIGKILL", "(SIGKILL)"),
     ("ProcessKilled: VLLM::EngineCor (process 7) was ended by SIGSEGV", "the signal SIGSEGV"),
     ("  traceback : Signal 9 (SIGKILL) received by PID 29", "(SIGKILL)")],
)  # fmt: skip
def test_a_process_of_the_run_that_was_killed_is_the_cause(log, line, name):
    """What verl and Ray make of it later is not shown; but the memory is, which is the likely reason."""
    log.write_text(f"starting\n{line}\n{END}")
    said = summary(log.parent, 1, 60, 0)
    assert line.strip() in said and name in said and "This machine has" in said
    assert "ValueError" not in said


def test_workers_that_ray_kills_at_the_end_of_a_run_are_no_cause(log):
    late = "ProcessKilled: ray::WorkerDict (process 7) was ended by SIGKILL"
    log.write_text(f"starting\n{END}\n{late}\n")
    said = summary(log.parent, 1, 60, 0)
    assert "ValueError: an empty list" in said and "SIGKILL" not in said


def test_a_process_that_torchrun_has_stopped_itself_is_no_cause(log):
    log.write_text(f"  traceback : Signal 15 (SIGTERM) received by PID 29\n{END}")
    assert "ValueError: an empty list" in summary(log.parent, 1, 60, 0)


def test_an_error_is_told_as_vllm_logs_it(log):
    """With its own words before it, and whole."""
    why = "InductorError: CppCompileError: " + "a long reason " * 30
    log.write_text(
        '(vLLMHttpServer pid=2) (EngineCore pid=3) ERROR 11-27 15:35:13 [core.py:1368]   File "a.py", line 1\n'
        f"(vLLMHttpServer pid=2) ERROR 11-27 15:35:13 [core.py:1368] torch._inductor.exc.{why}\n"
        + END
    )
    assert why.strip() in summary(log.parent, 1, 60, 0)


def fill(file: Path) -> None:
    """Until its disk has no more room."""
    with open(file, "ab", buffering=0) as stream, pytest.raises(OSError, match="No space"):
        while True:
            stream.write(b"x" * 4096)


def test_a_run_whose_disk_is_full_has_its_end_and_says_what_it_kept(small_disk):
    run_dir = small_disk
    attempt = Attempt(run_dir, ["launch.py"], OmegaConf.create({}))
    (run_dir / "metrics.jsonl").write_text('{"step": 3, "data": {"train/loss": 1.0}}\n')
    (run_dir / TRACKER).parent.mkdir()
    (run_dir / TRACKER).write_text("2")
    fill(run_dir / "log.txt")
    attempt.end(1, 1 << 30)
    record = json.loads((run_dir / "run.json").read_text())["attempts"][0]
    assert record["exit"] == 1 and record["end"] and record["machine_gib"] == 1
    said = summary(run_dir, 1, 60, 0)
    assert (
        "is full (0 MiB free). Kept are the metrics up to step 3 and the checkpoint of step 2"
        in said
    )
    (run_dir / "log.txt").unlink()
    Attempt(run_dir, ["launch.py"], OmegaConf.create({})).end(0)
    assert [one["exit"] for one in json.loads((run_dir / "run.json").read_text())["attempts"]] == [
        1,
        0,
    ]


def test_the_end_of_a_start_whose_launcher_was_killed_is_written_by_the_next(log):
    Attempt(log.parent, ["launch.py"], OmegaConf.create({}))
    log.write_text("starting\n")
    os.utime(log, (1_700_000_000, 1_700_000_000))
    Attempt(log.parent, ["launch.py"], OmegaConf.create({})).end(0)
    first, second = json.loads((log.parent / "run.json").read_text())["attempts"]
    assert (
        datetime.fromisoformat(first["end"]).timestamp() == 1_700_000_000 and first["exit"] is None
    )
    assert second["exit"] == 0


def test_a_run_that_ended_early_says_how_to_go_on(log, monkeypatch):
    monkeypatch.delenv(STAGE, raising=False)
    log.write_text("starting\n")
    for code in (1, 124):
        assert "resume=" not in summary(log.parent, code, 60, 0)  # nothing to go on with
    (log.parent / "resolved.yaml").touch()
    for code in (1, 124):
        command = f"python launch.py resume={log.parent}"
        assert f"{command}  (from its first step" in summary(log.parent, code, 60, 0)
    tracker = log.parent / "round_1/dpo" / TRACKER  # a stage of self-play has saved something
    tracker.parent.mkdir(parents=True)
    tracker.write_text("7")
    assert summary(log.parent, 1, 60, 0).endswith(command)
    tracker.unlink()
    (log.parent / TRACKER).parent.mkdir()
    (log.parent / TRACKER).write_text("4")
    assert summary(log.parent, 1, 60, 0).endswith(command)
    monkeypatch.setenv(STAGE, "1")
    assert "resume=" not in summary(log.parent, 1, 60, 0)


def test_a_known_trap_comes_with_its_cure(log):
    log.write_text("E InvalidAuthToken: missing\n" * 2 + END)
    assert summary(log.parent, 1, 60, 0).count("RAY_AUTH_MODE=token") == 1
    assert "RAY_AUTH_MODE" not in summary(log.parent, 1, 60, log.stat().st_size - len(END))


def test_each_figure_of_jobs_has_its_own_column(tmp_path):
    """A loss is no reward, and right answers are not pairs that are told apart."""
    made = {
        "1_sft": {"train/loss": 0.5, "val/loss": 0.6},
        "2_dpo": {"train/loss": 0.4, "val/loss": 0.3, "val/accuracy": 0.9},
        "3_grpo": {"critic/score/mean": 0.2, "val-core/x/acc/mean@1": 0.7},
        "4_cut": {},
    }
    for name, metrics in made.items():
        (tmp_path / name).mkdir()
        line = json.dumps({"step": 1, "data": metrics})
        (tmp_path / name / "metrics.jsonl").write_text(f"{line}\n" if metrics else "")
    jobs = [EndedJob(tmp_path / name, 0) for name in made]
    lines = jobs_table(jobs).strip("\n").splitlines()
    heads = re.split(r"\s{2,}", lines[0].strip())
    assert heads == [
        "job",
        "steps",
        "reward",
        "val acc",
        "loss",
        "val loss",
        "pair acc",
        "end",
        "overrides",
    ]
    assert [line.split()[2:7] for line in lines[1:5]] == [
        ["-", "-", "0.500", "0.600", "-"],
        ["-", "-", "0.400", "0.300", "0.900"],
        ["0.200", "0.700", "-", "-", "-"],
        ["-"] * 5,
    ]
    alone = jobs_table(jobs[:1]).strip("\n").splitlines()[0]
    assert re.split(r"\s{2,}", alone.strip()) == [
        "job",
        "steps",
        "loss",
        "val loss",
        "end",
        "overrides",
    ]


def test_torchruns_prefix_hides_no_error(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text(
        '[rank0]: Traceback (most recent call last):\n[rank0]:   File "x.py", line 1\n[rank0]: AssertionError\n'
    )
    assert errors(log) == [['  File "x.py", line 1', "AssertionError"]]


def test_the_statistics_of_a_run(tmp_path):
    values = [(0, {"val-core/x/acc/mean@1": 0.1}), (1, {"reward/score": 0.5, "bad": float("nan")}),
              (2, {"reward/score": 0.1, "val-core/x/acc/mean@1": 0.6}),
              (3, {"reward/score": 0.3, "val-core/x/acc/mean@1": 0.4})]  # fmt: skip
    lines = [json.dumps({"step": step, "data": data}) for step, data in values]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    found = stats(tmp_path)
    assert found["steps"] == 3
    assert found["validation"] == {
        "metric": "val-core/x/acc/mean@1", "first": 0.1, "last": 0.4, "best": 0.6, "step": 2,
    }  # fmt: skip
    of = {"first": 0.5, "last": 0.3, "mean": pytest.approx(0.3), "min": 0.1, "max": 0.5}
    assert found["metrics"]["reward/score"] == of and "bad" not in found["metrics"]


def test_the_statistics_of_nothing(tmp_path):
    assert stats(tmp_path) == {"steps": 0, "validation": None, "metrics": {}}


def test_a_run_is_compared_with_what_was_predicted(tmp_path):
    class Expected:
        chosen = ("lab.lora_rank=32",)

        def text(self):
            return "the plan"

        def figures(self):
            return {"step_s": 2.0, "allocated_gib": 20.0}

    config = OmegaConf.create({})
    Attempt(tmp_path, ["launch.py"], config, Expected()).end(0)
    assert (tmp_path / "plan.txt").read_text() == "the plan\n"
    assert compared(tmp_path) == ""  # it logged nothing
    key = "actor/perf/max_memory_allocated_gb"
    values = [
        {"timing_s/step": 9.0, key: 18.0},
        {"timing_s/step": 2.5, key: 19.0},
        {"timing_s/step": 2.4},
    ]
    lines = [json.dumps({"step": n, "data": data}) for n, data in enumerate(values, 1)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    told = "a step took 2.50 s (predicted: 2.00); the trainer 19.0 GiB of a GPU (predicted: 20.0)"
    assert compared(tmp_path) == told and summary(tmp_path, 0, 1.0, 0).startswith(told)
    Expected.figures = lambda self: {"machine_gib": 3.0}
    Attempt(tmp_path, ["launch.py"], config, Expected()).end(0, 5 << 29)
    assert compared(tmp_path) == "the run's processes 2.5 GiB (predicted: 3.0)"
    Attempt(tmp_path, ["launch.py"], config, Expected()).end(0)  # where the system doesn't say
    assert compared(tmp_path) == ""
    Attempt(tmp_path, ["launch.py"], config).end(0)  # a start without a plan has nothing to compare
    assert compared(tmp_path) == ""
    attempts = json.loads((tmp_path / "run.json").read_text())["attempts"]
    assert [attempt["chosen"] for attempt in attempts][-1] == ["lab.lora_rank=32"] * 3


def test_a_start_leaves_its_config_and_its_end_the_statistics(tmp_path):
    config = {"data": {"train_batch_size": 4, "lr": 1e-6, "none": None}}
    attempt = Attempt(tmp_path, ["launch.py"], OmegaConf.create(config))
    assert json.loads((tmp_path / "training_config.json").read_text()) == config
    attempt.end(0)
    assert json.loads((tmp_path / "training_stats.json").read_text())["steps"] == 0
    assert json.loads((tmp_path / "run.json").read_text())["attempts"][0]["exit"] == 0


def ended(folder, saved: bool, **trainer) -> str:
    """What a run's end says; `trainer` is of its config, `makes` what it makes for a reward."""
    config = {"lab": {"trainer": {"makes_reward": trainer.pop("makes", None)}}, "trainer": trainer}
    (folder / "training_config.json").write_text(json.dumps(config))
    Attempt(folder, ["launch.py"], OmegaConf.create(config))
    if saved:
        (folder / TRACKER).parent.mkdir()
        (folder / TRACKER).write_text("4")
    return summary(folder, 0, 1.0, 0)


def test_a_run_that_kept_a_model_says_what_to_do_with_it(tmp_path, monkeypatch):
    monkeypatch.delenv(STAGE, raising=False)
    told = ended(tmp_path, True, save_freq=4)
    assert "checkpoints are in" in told and "no checkpoint" not in told
    commands = [line.split()[2] for line in told.splitlines() if line.startswith("    python -m")]
    assert commands == ["tools.chat", "tools.evaluate", "tools.export"]
    monkeypatch.setenv(STAGE, "1")  # of a pipeline, a sweep: what runs it says so, or nobody
    assert "tools." not in summary(tmp_path, 0, 1.0, 0)


def test_a_run_that_kept_no_model_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv(STAGE, "1")  # it is news also where another goes on
    told = ended(tmp_path, False, save_freq=-1)
    assert told.endswith("no checkpoint was kept, because trainer.save_freq=-1")
    assert "checkpoints are in" not in told and "tools." not in told
    told = ended(tmp_path, False, save_freq=50, val_only=True)
    assert told.endswith("because trainer.val_only=True")


def test_nobody_talks_with_a_reward_model(tmp_path, monkeypatch):
    monkeypatch.delenv(STAGE, raising=False)
    told = ended(tmp_path, True, save_freq=4, makes="model")
    assert "tools.export" in told and "tools.chat" not in told and "tools.evaluate" not in told
