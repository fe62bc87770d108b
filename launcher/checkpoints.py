"""Where the models of a run lie. A leaf: any room may import it.

A user names a checkpoint as RUN (its last), RUN@STEP, RUN@best (lab.keep_best=true), or by its folder.
"""

import contextlib
import json
import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import NamedTuple

CONFIG = "resolved.yaml"
TRACKER = "checkpoints/latest_checkpointed_iteration.txt"  # written when a checkpoint is complete
BEST, NOTE = "best_model", "best.json"
STEP = re.compile(r"global_step_(\d+)")
SHARD = re.compile(r"(model|optim|extra_state)_world_size_(\d+)_rank_\d+\.pt")
FILES = {
    "model": "model",
    "optimizer": "optim",
    "extra": "extra_state",
}  # verl's contents → its names


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


def steps_in(folder: Path) -> list[int]:
    """The steps of a folder of checkpoints, first to last."""
    names = (path.name for path in folder.glob("global_step_*"))
    return sorted(int(found[1]) for name in names if (found := STEP.fullmatch(name)))


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
    names = [
        *map(str, steps_in(run / "checkpoints")),
        *(["best"] if (run / BEST / NOTE).is_file() else []),
    ]
    return f". There is: {', '.join(f'{run}@{name}' for name in names)}" if names else ""


def tracked(folder: Path) -> int | None:
    """The step that the tracker in a folder of checkpoints names; None if it is missing, or no number."""
    with contextlib.suppress(OSError, ValueError):
        return int((folder / Path(TRACKER).name).read_text())
    return None


def track(folder: Path, step: int) -> None:
    """Let the tracker in a folder of checkpoints name a step."""
    part = folder / f"{Path(TRACKER).name}.part"
    part.write_text(str(step))
    os.replace(part, folder / Path(TRACKER).name)


def remove_old(folder: Path, last: int, limits: dict[str, int | None]) -> None:
    """Remove the checkpoints beyond a run's limits, whichever start of it has made them.

    Args:
        folder: of the run's checkpoints.
        last: the step that was saved now; later ones are left alone.
        limits: part of a checkpoint (a folder in it; ".": all of it) → how many stay; None: all of them.
    """
    steps = [folder / f"global_step_{step}" for step in steps_in(folder) if step <= last]
    for part, most in limits.items():
        have = [step for step in steps if (step / part).is_dir()]
        for old in have[:-most] if most and most > 0 else ():
            shutil.rmtree(old / part, ignore_errors=True)
    for step in steps[:-1]:
        if any(limits.values()) and not any((step / part).is_dir() for part in limits):
            shutil.rmtree(step, ignore_errors=True)  # what belonged to these parts


def fault(step: Path, needs: dict[str, list[str]], data: str) -> str | None:
    """Why a run can't go on from a checkpoint, as "FILE is cut short"; None if it is whole.

    A file is whole if it ends as its format says: that finds what a full disk or a machine that went down leaves.

    Args:
        step: global_step_N.
        needs: part (a folder in it, "." for itself) → what verl loads of it (model, optimizer, extra), in
            FSDP's files; nothing for other engines.
        data: the file that has the place in the data.
    """
    if not step.is_dir():
        return "it is not there"
    for part, contents in needs.items():
        here = {file.name for file in (step / part).glob("*")}
        if not here:
            return f"{part} is empty or missing"
        worlds = {int(found[2]) for name in here if (found := SHARD.fullmatch(name))}
        for world in worlds or {1}:
            for kind in (FILES[name] for name in contents if name in FILES):
                for rank in range(world):
                    if (name := f"{kind}_world_size_{world}_rank_{rank}.pt") not in here:
                        return f"{os.path.normpath(Path(part, name))} is missing"
    if not (step / data).is_file():
        return f"{data} is missing"
    files = sorted(file for file in step.rglob("*") if file.is_file())
    return next((f"{f.relative_to(step)} is cut short" for f in files if is_cut(f)), None)


def is_cut(file: Path) -> bool:
    """Whether the end of a file is missing: of torch, safetensors or JSON; others are not looked into."""
    try:
        if file.suffix == ".pt":
            return not zipfile.is_zipfile(file)
        if file.suffix == ".safetensors":
            with open(file, "rb") as content:
                size = int.from_bytes(content.read(8), "little")
                tensors = json.loads(content.read(size))
            ends = [t["data_offsets"][1] for name, t in tensors.items() if name != "__metadata__"]
            return file.stat().st_size != 8 + size + max(ends, default=0)
        if file.suffix == ".json":
            json.loads(file.read_bytes())
    except (ValueError, LookupError, TypeError):
        return True
    return False


def worlds(step: Path) -> set[int]:
    """For how many workers FSDP's files in a checkpoint are."""
    found = (SHARD.fullmatch(file.name) for file in step.rglob("*.pt"))
    return {int(match[2]) for match in found if match}
