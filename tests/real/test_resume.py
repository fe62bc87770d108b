"""A run that was cut and goes on has the steps, rows and losses of one without a cut."""

import json

import pytest

pytestmark = pytest.mark.real

SFT = ["algo=sft", "data.train_max_samples=64", "trainer.total_training_steps=null", "trainer.test_freq=-1",
       "trainer.save_freq=after_each_epoch", "optim.lr_scheduler_type=constant"]  # fmt: skip
RL = [
    "lab.hw.samples_per_step=16",
    "trainer.val_before_train=false",
    "trainer.save_freq=1",
    "trainer.test_freq=-1",
]


def figures(result) -> dict[int, dict]:
    """The metrics of each step, but for times, memory and what is derived from them."""
    apart = (
        "timing",
        "perf/",
        "train/mfu",
        "train/total_tokens",
        "exec_ms",
        "cache_hit",
    )  # total_tokens are those of a start
    return {
        step: {n: v for n, v in metrics.items() if not any(part in n for part in apart)}
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


def test_grpo_goes_on_as_if_it_had_not_ended(run, warm, tmp_path):
    start = [*RL, f"lab.model.path={warm.folder}"]
    whole = run(*start, "trainer.total_training_steps=3", folder=tmp_path / "whole")
    cut = run(*start, "trainer.total_training_steps=1")
    file = cut.folder / "metrics.jsonl"  # as if it had ended between the save and the log
    logged = file.read_text()
    file.write_text("")
    cut = run(f"resume={cut.folder}", "trainer.total_training_steps=3")
    first = json.loads(file.read_text().splitlines()[0])
    assert first["step"] == 1 and first["data"].keys() <= json.loads(logged)["data"].keys()
    assert (
        first["data"]["response_length/mean"] == json.loads(logged)["data"]["response_length/mean"]
    )
    assert sorted(cut.metrics) == [1, 2, 3]
    for step in (2, 3):
        assert figures(cut)[step] == figures(whole)[step]
        assert cut.samples(step) == whole.samples(step)
    left = sorted(path.name for path in (cut.folder / "checkpoints").glob("global_step_*"))
    assert left == ["global_step_2", "global_step_3"]
