"""The best model is kept while verl removes old checkpoints, also over a resumed run."""

import json

import pytest

from launcher.best import BestModel, best
from launcher.checkpoints import TRACKER
from launcher.progress import Progress
from preflight.resolvers import model_path


def save(run, step: int, place: str = "actor/huggingface") -> None:
    """A checkpoint as verl writes it: the tracker comes last."""
    model = run / f"checkpoints/global_step_{step}" / place
    model.mkdir(parents=True)
    (model / "config.json").write_text(f"weights of {step}")
    (run / TRACKER).write_text(str(step))


def kept(run) -> str:
    return (run / "best_model/config.json").read_text()


def test_the_best_survives_its_checkpoint(tmp_path):
    model = BestModel(tmp_path)
    for step, value in ((2, 0.3), (4, 0.7), (6, 0.5)):
        save(tmp_path, step)
        model.validated(step, "val-core/acc", value)
        model.update()
    for step in (2, 4):
        (tmp_path / f"checkpoints/global_step_{step}/actor/huggingface/config.json").unlink()
    assert kept(tmp_path) == "weights of 4"
    assert best(tmp_path) == {"step": 4, "metric": "val-core/acc", "value": 0.7}
    again = BestModel(tmp_path)  # a resumed run knows what is there
    save(tmp_path, 8)
    again.validated(8, "val-core/acc", 0.6)
    again.update()
    assert kept(tmp_path) == "weights of 4"
    assert model_path(str(tmp_path / "best_model")) == str(tmp_path / "best_model")
    assert model_path(str(tmp_path / "checkpoints/global_step_8")).endswith("8/actor/huggingface")


def test_a_loss_is_better_when_lower_and_a_model_may_be_saved_later(tmp_path):
    model = BestModel(tmp_path)
    model.validated(2, "val/loss", 0.5)
    model.update()
    assert best(tmp_path) is None  # not there yet: SFT saves after it validates
    save(tmp_path, 2, "huggingface")
    model.update()
    assert kept(tmp_path) == "weights of 2"
    model.validated(4, "val/loss", 0.4)
    save(tmp_path, 4, "huggingface")
    model.update()
    assert kept(tmp_path) == "weights of 4"


def test_a_step_that_was_never_saved_is_passed_over(tmp_path):
    model = BestModel(tmp_path)
    model.validated(3, "val/loss", 0.1)
    save(tmp_path, 4)
    model.validated(4, "val/loss", 0.4)
    model.update()
    assert kept(tmp_path) == "weights of 4" and not model.waiting


@pytest.mark.parametrize("keep", [True, False])
def test_a_run_feeds_it(tmp_path, keep, capsys):
    progress = Progress(tmp_path, "rl", 4, keep)
    save(tmp_path, 2)
    line = {"step": 2, "data": {"val-core/x/acc/mean@1": 0.25, "training/global_step": 2}}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    progress()
    assert (tmp_path / "best_model").exists() == keep
