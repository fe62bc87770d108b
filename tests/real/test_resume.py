"""A run that was cut and goes on has the steps, rows and losses of one without a cut.

So the same seed gives the same run, too: what comes before the cut is made twice.
"""

import json
import signal
import time

import pytest
from helpers import leftovers

from launcher.checkpoints import tracked

pytestmark = pytest.mark.real

SFT = ["algo=sft", "data.train_max_samples=64", "trainer.total_training_steps=null", "trainer.test_freq=-1",
       "trainer.save_freq=after_each_epoch", "optim.lr_scheduler_type=constant"]  # fmt: skip
PAIRS = ["data.train_max_samples=48", "lab.hw.sft_batch_size=16", "trainer.test_freq=-1", "trainer.save_freq=1",
         "optim.lr_scheduler_type=constant"]  # fmt: skip
RL = [
    "lab.hw.samples_per_step=16",
    "trainer.val_before_train=false",
    "trainer.save_freq=1",
    "trainer.test_freq=-1",
]


def test_sft_goes_on_with_another_epoch(run, tmp_path):
    whole = run(*SFT, "trainer.total_epochs=2", folder=tmp_path / "whole")
    cut = run(*SFT, "trainer.total_epochs=1")
    assert sorted(cut.metrics) == [1, 2, 3, 4]
    cut = run(f"resume={cut.folder}", "trainer.total_epochs=2")
    assert sorted(cut.metrics) == sorted(whole.metrics) == list(range(1, 9))
    for step, found in whole.figures().items():  # the first start has validated its last step, too
        assert found.items() <= cut.figures()[step].items()


@pytest.mark.parametrize(
    "algo", [["algo=dpo"], ["algo=rm", "lab.lora_rank=4"], ["algo=prm"]], ids=lambda words: words[0]
)
def test_what_was_killed_goes_on_as_if_it_had_not_been(start, run, tmp_path, algo):
    """Somewhere in the second epoch of three steps, and on into the third."""
    before, checkpoints = leftovers(), tmp_path / "run/checkpoints"
    process = start(*algo, *PAIRS, "trainer.total_training_steps=100000")
    deadline = time.time() + 300
    while (tracked(checkpoints) or 0) < 4:
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    deadline = time.time() + 20
    while leftovers() > before and time.time() < deadline:
        time.sleep(0.1)
    steps = f"trainer.total_training_steps={tracked(checkpoints) + 3}"
    cut = run(f"resume={tmp_path / 'run'}", steps)
    whole = run(*algo, *PAIRS, steps, folder=tmp_path / "whole")
    assert cut.figures() == whole.figures()


@pytest.mark.parametrize("algo", ["grpo", "ppo"])
def test_rl_goes_on_as_if_it_had_not_ended(run, warm, tmp_path, algo):
    start = [f"algo={algo}", *RL, f"lab.model.path={warm.folder}"]
    whole = run(*start, "trainer.total_training_steps=3", folder=tmp_path / "whole")
    cut = run(*start, "trainer.total_training_steps=1")
    file = cut.folder / "metrics.jsonl"  # as if it had ended between the save and the log
    logged = file.read_text()
    file.write_text("")
    cut = run(f"resume={cut.folder}", "trainer.total_training_steps=3")
    first = json.loads(file.read_text().splitlines()[0])
    assert first["step"] == 1 and first["data"].keys() <= json.loads(logged)["data"].keys()
    assert sorted(cut.metrics) == [1, 2, 3]
    for step, found in cut.figures().items():
        assert found.items() <= whole.figures()[step].items()
        assert cut.samples(step) == whole.samples(step)
    for step in (2, 3):
        assert cut.figures()[step] == whole.figures()[step]
    left = sorted(path.name for path in (cut.folder / "checkpoints").glob("global_step_*"))
    assert left == ["global_step_2", "global_step_3"]
