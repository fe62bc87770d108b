"""The best model of a run by its validation, kept in RUN/best_model (`lab.keep_best=true`).

verl keeps the last checkpoints. Of a step that was validated and saved, and is better than all before it,
the Hugging Face folder is linked to RUN/best_model, file by file: that takes no time, and no room for as
long as the checkpoint is there, too. best.json in it says which step, which metric and which value; a
resumed run goes on from there. A step that is validated but not saved can't be kept.
"""

import json
import os
import shutil
from pathlib import Path

from launcher.checkpoints import BEST, NOTE, TRACKER, step_model, tracked


def best(run_dir: Path) -> dict | None:
    """What is known of the best model: {"step", "metric", "value"}; None if there is none."""
    file = run_dir / BEST / NOTE
    return json.loads(file.read_text()) if file.exists() else None


def is_loss(metric: str) -> bool:
    """Whether less of it is better; of all else, more is."""
    return metric.endswith("loss")


class BestModel:
    """Follows the validations of a run."""

    def __init__(self, run_dir: Path):
        self.run_dir = run_dir
        self.waiting: list[dict] = []  # validations of steps that may still be saved

    def validated(self, step: int, metric: str, value: float) -> None:
        """A validation, of a model that verl saves before or after it, or never."""
        self.waiting.append({"step": step, "metric": metric, "value": value})

    def update(self) -> None:
        """Keep what can be kept by now: verl's tracker names the last complete checkpoint."""
        saved = tracked((self.run_dir / TRACKER).parent) if self.waiting else None
        saved = -1 if saved is None else saved
        for note in [note for note in self.waiting if note["step"] <= saved]:
            self.waiting.remove(note)
            known = best(self.run_dir)
            sign = -1 if is_loss(note["metric"]) else 1
            if known is None or sign * note["value"] > sign * known["value"]:
                self._keep(note)

    def _keep(self, note: dict) -> None:
        model = step_model(self.run_dir / f"checkpoints/global_step_{note['step']}")
        if model is None:
            return
        new, old = self.run_dir / f"{BEST}.new", self.run_dir / BEST
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(model, new, copy_function=os.link)
        (new / NOTE).write_text(json.dumps(note) + "\n")
        shutil.rmtree(old, ignore_errors=True)
        new.rename(old)
