"""Where the models of a run lie. A leaf: any room may import it.

A user names a checkpoint as RUN (its last), RUN@STEP, RUN@best (lab.keep_best=true), or by its folder.
"""

import json
import re
from pathlib import Path
from typing import NamedTuple

CONFIG = "resolved.yaml"
TRACKER = "checkpoints/latest_checkpointed_iteration.txt"  # written when a checkpoint is complete
BEST, NOTE = "best_model", "best.json"
STEP = re.compile(r"global_step_(\d+)")


class Checkpoint(NamedTuple):
    """One model that a run has saved."""

    run: Path
    step: int
    folder: Path  # global_step_N, or best_model

    @property
    def model(self) -> Path | None:
        """Its Hugging Face folder; None if it has none."""
        return self.folder if self.folder.name == BEST else step_model(self.folder)

    @property
    def shards(self) -> Path:
        """The folder of what the trainer saved: model_world_size_N_rank_I.pt."""
        actor = self.folder / "actor"
        return actor if actor.is_dir() else self.folder


class NoCheckpoint(ValueError):
    """A name that stands for no checkpoint; the text says why, and what there is."""


def step_model(step: Path) -> Path | None:
    """The Hugging Face folder of a checkpoint, or None if it has none."""
    return next((p for p in (step / "actor/huggingface", step / "huggingface") if p.is_dir()), None)


def latest_model(run: Path) -> Path | None:
    """The Hugging Face folder of a run's last checkpoint, or None if `run` has none."""
    tracker = run / TRACKER
    if not tracker.is_file():
        return None
    return step_model(run / f"checkpoints/global_step_{tracker.read_text().strip()}")


def steps_of(run: Path) -> list[int]:
    """The steps whose checkpoints are there, first to last."""
    folders = (run / "checkpoints").glob("global_step_*")
    return sorted(int(found[1]) for f in folders if (found := STEP.fullmatch(f.name)))


def checkpoint(name: str) -> Checkpoint | None:
    """The checkpoint that a name stands for; None if it names no run's. Raises NoCheckpoint.

    Args:
        name: RUN, RUN@last, RUN@best, RUN@STEP, RUN/checkpoints or a folder below it, or RUN/best_model.
    """
    path, at, which = name.rpartition("@")
    if not at or Path(name).expanduser().exists():
        path, which = name, "last"
    run = Path(path).expanduser()
    if run.name == "checkpoints" and (run.parent / CONFIG).is_file():
        run = run.parent
    if not (run / CONFIG).is_file():
        return inside(run)
    if which == "best":
        note = run / BEST / NOTE
        if not note.is_file():
            raise NoCheckpoint(
                f"{run} has no best model: it is kept with lab.keep_best=true{there(run)}"
            )
        return Checkpoint(run, json.loads(note.read_text())["step"], run / BEST)
    if which == "last":
        tracker = run / TRACKER
        if not tracker.is_file():
            raise NoCheckpoint(
                f"{run} has no checkpoint: it saves one every trainer.save_freq steps"
            )
        which = tracker.read_text().strip()
    folder = run / f"checkpoints/global_step_{which}"
    if not which.isdigit() or not folder.is_dir():
        raise NoCheckpoint(f"{run} has no checkpoint of {which!r}{there(run)}")
    return Checkpoint(run, int(which), folder)


def inside(folder: Path) -> Checkpoint | None:
    """The checkpoint that a folder is, or lies in; None if it is none."""
    for place in (folder, *folder.absolute().parents[:2]):
        if found := STEP.fullmatch(place.name):
            return Checkpoint(place.absolute().parent.parent, int(found[1]), place)
        if (place / NOTE).is_file():
            step = json.loads((place / NOTE).read_text())["step"]
            return Checkpoint(place.absolute().parent, step, place)
    return None


def there(run: Path) -> str:
    """For a message: what a run has."""
    names = [*map(str, steps_of(run)), *(["best"] if (run / BEST / NOTE).is_file() else [])]
    return f". There is: {', '.join(f'{run}@{name}' for name in names)}" if names else ""
