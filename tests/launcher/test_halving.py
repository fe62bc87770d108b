"""Successive halving: who is stopped, where, against whom; and what a sweep says of it."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers import ROOT
from omegaconf import OmegaConf
from sweeps import METRIC, make_job, make_sweep

from launcher import halving, results, supervisor, sweep
from launcher.alerts import Watch
from launcher.checkpoints import CONFIG
from launcher.progress import Progress, StoppedEarly
from preflight.facts import STAGE
from tools import sweep as table


def test_the_rungs():
    assert [n for n in range(1, 60) if halving.is_rung(n, 3, 3)] == [3, 9, 27]
    assert [n for n in range(1, 60) if halving.is_rung(n, 2, 4)] == [2, 8, 32]


@pytest.mark.parametrize(
    ("mine", "others", "eta", "needed"),
    [
        (0.1, [0.9], 3, None),  # two of three: nobody is the best third yet
        (0.1, [0.9, 0.8], 3, 0.9),
        (0.9, [0.1, 0.8], 3, None),
        (0.8, [0.9, 0.1, 0.2, 0.3, 0.4], 3, None),  # the second of six
        (0.7, [0.9, 0.1, 0.2, 0.8, 0.4], 3, 0.8),
        (0.5, [0.5, 0.5], 3, None),  # equal ones go on
        (0.1, [0.9], 2, 0.9),
        (-np.inf, [0.1, -np.inf], 3, 0.1),
    ],
)
def test_who_stays(mine, others, eta, needed):
    assert halving.needed(mine, others, eta) == needed


def config(seed=0, **more):
    """Of a job of 100 steps with the first rung at its third validation."""
    made = {
        "lab": {"seed": seed, "sweep": {"halving": 3, "halving_min": 3}, "trainer": {"entry": "verl.trainer.main_ppo"}},
        "data": {"val_files": "val.parquet"}, "trainer": {"total_training_steps": 100},
        "reward": {"custom_reward_function": {"path": "pkg://rewards.exact", "name": "compute_score"}},
    }  # fmt: skip
    return OmegaConf.merge(made, more)


def others(folder, figures: list[float], metric=METRIC, **more):
    """Jobs that have validated four times; at the third with these figures."""
    for number, value in enumerate(figures):
        made = {
            step: np.array([at]) for step, at in ((0, 9), (10, 0), (20, 0), (30, value), (40, 0))
        }
        make_job(folder / str(number), ["lab.seed=0"], made, metric=metric, rows=False, **more)


def judge(folder, figures: list[float], metric=METRIC, seed=0, past=(), **more):
    """What halving says of a job at each of its validations, every ten steps, after the one at step 0."""
    run_dir = folder / "mine"
    run_dir.mkdir()
    (run_dir / "training_config.json").write_text(
        json.dumps(OmegaConf.to_container(config(seed, **more)))
    )
    lines = [json.dumps({"step": step, "data": {metric: value}}) for step, value in past]
    (run_dir / "metrics.jsonl").write_text("\n".join(lines))
    one = halving.Halving(config(seed, **more), run_dir, folder)
    return [one.step(10 * number, {metric: value}) for number, value in enumerate(figures)]


def test_a_job_ends_at_a_rung_that_two_better_ones_have_reached(tmp_path):
    others(tmp_path, [0.5, 0.6])
    said = judge(tmp_path, [0.9, 0.1, 0.2, 0.4])
    assert said[:3] == [None] * 3
    assert said[3] == {"step": 30, "validation": 3, "metric": METRIC, "value": 0.4, "needed": 0.6,
                       "jobs": 3, "eta": 3}  # fmt: skip
    assert halving.words(said[3]).startswith(
        f"stopped early at step 30: {METRIC} is 0.4 at validation 3"
    )


@pytest.mark.parametrize(
    "case",
    [
        {"figures": [0, 0, 0, 0.7]},  # the best
        {"figures": [0, 0, 0]},  # before the rung
        {"figures": [0, 0, 0, 0.1], "seed": 1},  # the others have another seed
        {"figures": [0, 0, 0, 0.1], "data": {"val_files": "other.parquet"}},
        {
            "figures": [0, 0, 0, 0.1],
            "trainer": {"total_training_steps": 30},
        },  # it is at its end anyway
        {"figures": [0, 0, 0, 0.1], "metric": "val-core/other/acc/mean@1"},
    ],
)
def test_a_job_goes_on(tmp_path, case):
    others(tmp_path, [0.5, 0.6])
    assert judge(tmp_path, **case) == [None] * len(case["figures"])


def test_a_loss_and_one_that_is_no_number(tmp_path):
    others(tmp_path, [0.5, 0.6], metric="val/loss", reward=None)
    more = {"metric": "val/loss", "reward": {"custom_reward_function": {"path": None}}}
    assert judge(tmp_path, [9, 9, 9, 0.4], **more) == [None] * 4
    (tmp_path / "mine").rename(tmp_path / "fourth")
    assert judge(tmp_path, [9, 9, 9, 0.55], **more)[3]["needed"] == 0.5
    (tmp_path / "mine").rename(tmp_path / "fifth")
    lost = judge(tmp_path, [9, 9, 9, None], **more)[3]
    assert lost["value"] is None and "is no number at validation 3" in halving.words(lost)


def test_validations_of_earlier_starts_count(tmp_path):
    """And those that a new start makes again count once."""
    others(tmp_path, [0.5, 0.6])
    said = judge(
        tmp_path, [0, 0, 0, 0.1], past=[(0, 0.1), (10, 0.1), (20, 0.1), (30, 0.7), (40, 0.1)]
    )
    assert [one is None for one in said] == [True, True, True, False]


def test_noise_alone_stops_the_share_that_it_must(tmp_path):
    """Of jobs that are alike about two in three end at each rung, whoever they are."""
    rng, stopped = np.random.default_rng(0), 0
    past: list[float] = []
    for _ in range(600):
        value = rng.random()
        stopped += halving.needed(value, past, 3) is not None
        past.append(value)
    assert 0.6 < stopped / 600 < 0.73


# --- a run that is ended


def test_a_run_is_asked_to_end_and_its_end_is_written_down(tmp_path, monkeypatch):
    """Ctrl-C for the process, exit status 0 for the run, and the reason in run.json."""
    monkeypatch.delenv(STAGE, raising=False)
    others(tmp_path, [0.5, 0.6])
    run_dir = tmp_path / "2"
    run_dir.mkdir()
    attempt = results.Attempt(run_dir, ["launch.py"], config())
    attempt.watch.halving = halving.Halving(config(), run_dir, tmp_path)
    code = f"""
import json, signal, sys, time
def end(*_): print("asked to end", flush=True); sys.exit(1)
signal.signal(signal.SIGINT, end)
for step in range(101):
    with open({str(run_dir / "metrics.jsonl")!r}, "a") as file:
        print(json.dumps({{"step": step, "data": {{}} if step % 10 else {{{METRIC!r}: 0.1}}}}), file=file)
    if step == 30: time.sleep(600)
"""  # fmt: skip
    progress = Progress(run_dir, "rl", 100, watch=attempt.watch)
    with pytest.raises(StoppedEarly) as stop:
        supervisor.run(
            lambda *_: [sys.executable, "-c", code], run_dir, {}, progress, 600, fork=False
        )
    assert "asked to end" in (run_dir / "log.txt").read_text()
    attempt.record["stopped_early"] = stop.value.record
    attempt.end(0)
    assert sweep.exit_of(run_dir) == 0 and results.stopped_early(run_dir)["step"] == 30
    (run_dir / CONFIG).write_text("{}")
    said = results.summary(run_dir, 0, 600, 0)
    assert (
        said.startswith("stopped early at step 30")
        and f"go on: python launch.py resume={run_dir}" in said
    )


def test_a_run_that_has_ended_by_itself_is_not_stopped(tmp_path):
    """The launcher looks every half a second; a short run may have made all its steps by then."""
    watch = Watch({})
    watch.lost = {"step": 30}
    progress = Progress(tmp_path, "rl", 100, watch=watch)
    process = subprocess.Popen([sys.executable, "-c", ""])
    while process.poll() is None:
        time.sleep(0.01)
    supervisor.watch(process, progress, 600, supervisor.Memory(), supervisor.Daemons("/nowhere"))


LOSES = """
import runpy, sys
from launcher import child
from launcher.progress import StoppedEarly

def run(config, run_dir, memory, watch):
    assert watch.halving.sweep == run_dir.parent and watch.halving.eta == 3
    raise StoppedEarly({"step": 30, "validation": 3, "metric": "acc", "value": 0.1, "needed": 0.6, "jobs": 3, "eta": 3})

child.run = run
sys.argv[0] = "launch.py"
runpy.run_path(str(child.ROOT / "launch.py"), run_name="__main__")
"""


def test_what_launch_makes_of_it(tmp_path, sql_demo, tiny_model):
    """A job that has ended well, and is not begun again."""
    folder = tmp_path / "s"
    words = ["-m", "lab.seed=3", f"lab.dataset.dir={sql_demo}", f"lab.model.path={tiny_model}", "lab.sweep.halving=3",
             "trainer.test_freq=2", "trainer.total_training_steps=20", f"hydra.sweep.dir={folder}"]  # fmt: skip
    for argv, said in (
        (words, "stopped early at step 30: acc is 0.1"),
        ([f"resume={folder}"], "has been stopped early"),
    ):
        command = [sys.executable, "-c", LOSES, *argv]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0 and said in done.stdout, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    record = json.loads((folder / "0/run.json").read_text())["attempts"]
    assert [(one["exit"], one["stopped_early"]["step"]) for one in record] == [(0, 30)]


# --- what the sweep says


def stop_early(job, step=30):
    record = json.loads((job / "run.json").read_text())
    record["attempts"][-1]["stopped_early"] = {"step": step}
    (job / "run.json").write_text(json.dumps(record))


@pytest.fixture
def three_settings(tmp_path):
    """Four seeds each; the third is by far the best, and one of its jobs was stopped early."""
    folder = make_sweep(tmp_path / "s", "lr=1,2,3", "lab.seed=range(0,4)")
    for number in range(12):
        lr, seed = 1 + number // 4, number % 4
        words = [f"lr={lr}", f"lab.seed={seed}"]
        figures = {10: np.array([0.1]), 30: np.array([(0.2, 0.4, 0.9)[lr - 1] + 0.01 * seed])}
        make_job(folder / str(number), words, figures, rows=False)
    stop_early(folder / "11")
    return folder


def test_a_setting_with_a_job_that_was_stopped_has_no_figure_and_wins_nothing(
    three_settings, capsys
):
    table.main([str(three_settings)])
    out = capsys.readouterr().out
    third = next(line for line in out.splitlines() if line.split()[:1] == ["3"])
    assert third.split()[:3] == ["3", "0", "of"] and "0.9" not in third, third
    assert "stopped early at step 30: job 11 (lr=3, seed=3)" in out
    assert "go on:" not in out  # nothing is left to do
    assert "best: lr=2, better than each other setting that was run to its end" in out
    assert "a setting was stopped early (lab.sweep.halving)" in out
    made = json.loads((three_settings / "sweep.json").read_text())
    assert (
        made["settings"][2]["after"] is None
        and made["settings"][1]["against_first"]["level"] == 0.975
    )


def test_a_sweep_that_goes_on_leaves_it_as_it_is(three_settings, monkeypatch, capsys):
    """Also with further words, with which the others go on."""
    monkeypatch.setattr(sweep, "goes_on", [three_settings])
    monkeypatch.setattr(sweep, "asked", lambda run_dir: run_dir)
    for words in ([], ["trainer.total_training_steps=99"]):
        monkeypatch.setattr(sweep, "changed", words)
        assert sweep.has_ended(three_settings / "11", "job 12")
        assert sweep.has_ended(three_settings / "10", "job 11") == (not words)
    assert "job 12: has been stopped early" in capsys.readouterr().out


def test_on_noise_a_sweep_with_halving_claims_no_more_than_one_without(tmp_path):
    """Settings that are alike, each seed's jobs halved by a figure that goes into the last one as well."""
    from tools._sweep import figures
    from tools._sweep.reading import OK, STOPPED, Job, Sweep

    rng, winners, trials = np.random.default_rng(5), 0, 150
    for _ in range(trials):
        jobs, reached = [], {}
        for setting in range(6):
            for seed in range(3):
                rung = rng.normal()
                lost = halving.needed(rung, reached.setdefault(seed, []), 3) is not None
                reached[seed].append(rung)
                state = f"{STOPPED} at step 30" if lost else OK
                job = Job(len(jobs), None, {}, state, str(seed), {"lr": str(setting)})
                job.metrics, job.after = {1: {}}, 0.7 * rung + 0.7 * rng.normal()
                jobs.append(job)
        found = figures.find(Sweep([], jobs, ["lr"], METRIC, METRIC, False, True, True), 500)
        winners += found.best is not None
    assert winners <= 0.05 * trials
