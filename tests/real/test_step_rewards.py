"""Step rewards in a real run: a model that writes chains of CTEs, process GRPO, `reward=sql_process`."""

import subprocess
import sys

import pytest
from helpers import ROOT

pytestmark = pytest.mark.real


def test_steps_reach_the_advantages(run, tiny_model, tmp_path):
    data, common = tmp_path / "data", [f"lab.dataset.dir={tmp_path / 'data'}"]
    make = [sys.executable, "-m", "data_prep", "sql_demo", "--out", data, "--levels", "5", "--sloppy", "0",
            "--train-rows", "64", "--val-rows", "32", "--sft-rows", "600"]  # fmt: skip
    subprocess.run(make, cwd=ROOT, check=True, capture_output=True)
    warm = run("algo=sft", *common, "trainer.total_training_steps=150", "lab.hw.sft_batch_size=32",
               "lab.dataset.val_max_samples=32", "trainer.test_freq=-1", folder=tmp_path / "sft")  # fmt: skip
    result = run("algo=grpo_process", "reward=sql_process", *common, f"lab.model.path={warm.folder}",
                 "trainer.val_before_train=false", "trainer.test_freq=-1")  # fmt: skip
    assert sum(result.at(step, "reward/steps_total") for step in (1, 2)) > 0  # chains were written
    for step in (1, 2):
        # what training maximises is the outcome and its steps
        whole = result.at(step, "reward/score") + result.at(step, "reward/steps_total")
        assert result.at(step, "critic/score/mean") == pytest.approx(whole, abs=1e-5)
        assert result.at(step, "actor/grad_norm") > 0
