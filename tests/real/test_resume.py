"""A run that was cut and goes on has the steps, rows and losses of one without a cut."""

import pytest

pytestmark = pytest.mark.real

SFT = ["algo=sft", "data.train_max_samples=64", "trainer.total_training_steps=null", "trainer.test_freq=-1",
       "trainer.save_freq=after_each_epoch", "optim.lr_scheduler_type=constant"]  # fmt: skip


def figures(result) -> dict[int, dict]:
    """The metrics of each step, but for times, memory and what is derived from them."""
    apart = (
        "timing",
        "perf/",
        "train/mfu",
        "train/total_tokens",
    )  # total_tokens are those of a start
    return {
        step: {name: value for name, value in metrics.items() if not name.startswith(apart)}
        for step, metrics in result.metrics.items()
    }


def test_sft_goes_on_with_another_epoch(run, tmp_path):
    whole = run(*SFT, "trainer.total_epochs=2", folder=tmp_path / "whole")
    cut = run(*SFT, "trainer.total_epochs=1")
    assert sorted(cut.metrics) == [1, 2, 3, 4]
    cut = run(f"resume={cut.folder}", "trainer.total_epochs=2")
    assert sorted(cut.metrics) == sorted(whole.metrics) == list(range(1, 9))
    for step, found in figures(whole).items():  # the first start has validated its last step, too
        assert found.items() <= figures(cut)[step].items()
