"""A search of three settings, cut in its third and resumed, with halving: of real runs of SFT."""

import json
import signal
import time

import pytest
import yaml
from helpers import leftovers

from launcher import search
from launcher.metrics import read_metrics

RATE = "lab.model.sft_lr"
STEPS, RUNG = 100, 50


@pytest.mark.real
def test_a_search_that_is_cut_and_goes_on_and_stops_who_is_worse(start, tmp_path):
    before, folder = leftovers(), tmp_path / "s"
    words = [
        "-m", "hydra/sweeper=search", "algo=sft", f"{RATE}=1e-6,2e-6,4e-3", "lab.sweep.trials=3",
        "lab.sweep.halving=2", "lab.sweep.halving_min=2", f"trainer.total_training_steps={STEPS}",
        "trainer.test_freq=25", f"hydra.sweep.dir={folder}",
    ]  # fmt: skip
    process = start(*words)
    deadline = time.time() + 600
    while not read_metrics(folder / "2/metrics.jsonl"):
        assert process.poll() is None and time.time() < deadline, process.communicate()[0]
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130 and f"go on: python launch.py resume={folder}" in output, (
        output
    )
    told = [(folder / f"{number}/run.json").read_text() for number in range(2)]

    process = start(f"resume={folder}")
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    assert leftovers() <= before, leftovers() - before
    assert [(folder / f"{number}/run.json").read_text() for number in range(2)] == told
    assert "trial 3 of 3" in output and "trial 2 of 3" not in output

    at_rung: list[float] = []  # each job is compared with those before it
    rates = []
    for number in range(3):
        attempts = json.loads((folder / f"{number}/run.json").read_text())["attempts"]
        assert len(attempts) == (2 if number == 2 else 1)
        metrics = read_metrics(folder / f"{number}/metrics.jsonl")
        early = attempts[-1]["stopped_early"]
        worse = bool(at_rung) and metrics[RUNG]["val/loss"] > min(at_rung)
        at_rung.append(metrics[RUNG]["val/loss"])
        assert attempts[-1]["exit"] == 0 and bool(early) == worse
        if early:
            assert early["step"] == RUNG and early["value"] == at_rung[-1] and max(metrics) < STEPS
            assert f"stopped early at step {RUNG}: job {number}" in output
        else:
            assert max(metrics) == STEPS
        rates.append(
            yaml.safe_load((folder / f"{number}/resolved.yaml").read_text())["optim"]["lr"]
        )
    assert sorted(rates) == [1e-6, 2e-6, 4e-3]
    best = rates.index(4e-3)
    states = [trial.state.name for trial in search.places(search.opened(folder))]
    assert states[best] == "COMPLETE" and "PRUNED" in states
    assert "chosen: sft_lr=0.004, val/loss" in output and "+setting=base,best" in output
