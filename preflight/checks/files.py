"""Files that the run reads, and the room it needs."""

import json
import os
import shutil
import tempfile
from pathlib import Path

from omegaconf import DictConfig

from preflight import temporary
from preflight.checks import Note, applies_to
from preflight.facts import choice, is_rl, named_files
from preflight.mistakes import near, nearest
from preflight.models import facts_of, file_of, trained
from preflight.names import ROOT
from preflight.resolvers import HUB_ID
from preflight.reward_function import file_fault

MIN_FREE_GIB = 1
MODEL_CONFIG = "config.json"


def check_data_files(config: DictConfig) -> str | None:
    """Training and validation rows, with the command that makes them."""
    for file in named_files(config):
        if not file:
            return "data.train_files or data.val_files has an empty name: leave it out, or name a file."
        if not Path(file).is_file():
            name = choice("dataset")
            how = f"`make data D={name}` makes it (`python -m data_prep {name} --help`)."
            place = near(file) if Path.cwd() == ROOT else os.path.abspath(file)
            return f"no data file {place}: {how}"
    return None


def check_model(config: DictConfig) -> str | None:
    """The model's folder; a hub id is left to the hub."""
    path = trained(config)
    folder = Path(path)
    if (folder / MODEL_CONFIG).is_file():
        return None
    if choice("model") == "tiny" and config.lab.model.path == "data/tiny_model":
        return "model=tiny is not there yet: `python -m data_prep tiny_model` makes it."
    if folder.is_dir():
        return f"{folder} is neither a Hugging Face model (no {MODEL_CONFIG}) nor a run with a checkpoint."
    if path == config.lab.model.path and HUB_ID.fullmatch(path):
        if (
            os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")
            and file_of(path, MODEL_CONFIG) is None
        ):
            return f"{path} is not in the hub's cache, and HF_HUB_OFFLINE is set: nothing is downloaded."
        return None
    near = (
        nearest(folder.name, [p.name for p in folder.parent.iterdir()])
        if folder.parent.is_dir()
        else ""
    )
    return f"no model at {folder}.{near}"


@applies_to(is_rl)
def check_random_weights(config: DictConfig) -> Note | None:
    """model=tiny as it was made: no answer is right, so RL has nothing to prefer."""
    card = Path(trained(config)) / "card.json"
    made = json.loads(card.read_text()).get("made", {}) if card.is_file() else {}
    if made.get("name") != "tiny_model":
        return None
    return Note(
        f"{near(card.parent)} has random weights: a reward for right answers stays at 0, and nothing is"
        f" learned. Train it first: `python launch.py algo=sft dataset={choice('dataset')}"
        " hydra.run.dir=outputs/sft`, and then run this with lab.model.path=outputs/sft"
    )


def check_architecture(config: DictConfig) -> str | None:
    """What kind of model it is, by its config.json; verl takes one answer."""
    found = facts_of(trained(config))
    named = [] if found is None else found.get("architectures") or []
    if found is not None and len(named) != 1:
        return f"config.json of {trained(config)} names {named or 'no'} architectures: verl needs exactly one there."
    return None


def check_reward_function(config: DictConfig) -> str | None:
    """The reward's file is there, is Python, and has the function. It is not run here."""
    return file_fault(config)


def check_disk(config: DictConfig) -> str | None:
    """Room for checkpoints and logs, and for Ray's and verl's temporary files."""
    folder = Path(config.lab.run_dir)
    while not folder.exists():
        folder = folder.parent
    for place in (folder, Path(tempfile.gettempdir())):
        free = shutil.disk_usage(place).free / 2**30
        if free < MIN_FREE_GIB:
            return f"the disk of {place} is full: {free:.1f} GiB free, {MIN_FREE_GIB} GiB needed."
    if not os.access(folder, os.W_OK):
        return f"{folder} can't be written to."
    return temporary.fault()
