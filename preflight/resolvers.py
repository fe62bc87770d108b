"""Small functions that the YAML files may use: `${lab.NAME:...}`.

They are resolved before verl sees the config; `resolved.yaml` has only values.
"""

import os
import re
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from launcher.checkpoints import NoCheckpoint, checkpoint, step_model
from preflight import machine
from preflight.facts import verl_folder
from preflight.names import ROOT

SEARCH = (
    "hydra_plugins.verl_lab.Search"  # launcher/search.py, by the name that Hydra's plugins have
)
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
MORE_THAN_STEPS_TAKE = 1_000_000  # epochs


def verl_trainer_folder() -> str:
    """Where verl's own config tree lies, as Hydra writes it."""
    return f"file://{verl_folder()}/trainer"


def run_dir() -> str:
    """The folder of this run, absolute. A job of a multirun has its own."""
    hydra = HydraConfig.get()
    if OmegaConf.is_missing(hydra.runtime, "output_dir"):  # --cfg job: nothing runs
        return os.path.abspath(hydra.run.dir)
    return hydra.runtime.output_dir


def placed(path: str) -> Path:
    """Where a path of the config leads: from the working folder, or from the project's, whose presets say `data/NAME`.

    Relative as it is, where neither has it.
    """
    here = Path(os.path.expanduser(path))
    return ROOT / here if not here.exists() and (ROOT / here).exists() else here


def absolute(path: str | None) -> str | None:
    """An absolute path: workers of Ray may have another working folder."""
    return path and os.path.abspath(placed(path))


def model_path(path: str) -> str:
    """A hub id as it is; a folder absolute; a run's (RUN, RUN@best, RUN@STEP), or a checkpoint's, becomes its model."""
    local = placed(path)
    if not local.exists() and HUB_ID.fullmatch(path) and not path.startswith(("data/", "outputs/")):
        return path
    try:
        named = checkpoint(path)
    except NoCheckpoint:
        named = None  # a check says that there is no model
    return str(((named and named.model) or step_model(local) or local).absolute())


def template(name: str | None) -> str | None:
    """The text of a chat template, by its file or its name. Raises ValueError."""
    from data_prep._chat import template_text  # --help doesn't wait for it

    return template_text(name) if name else None


def ray_address() -> str | None:
    """Of the Ray cluster that $RAY_ADDRESS names, as Ray reads it; None if it names none."""
    named = os.environ.get("RAY_ADDRESS")
    return None if named in ("", "local") else named


def floor_div(whole: int, parts: int) -> int:
    """The size of one of so many parts, rounded down, at least 1; preflight says where that is not even."""
    return max(1, int(whole) // int(parts))


def epochs(asked: int, steps: int | None) -> int:
    """verl's number of epochs: those asked for; where a number of steps is given, more than these can take."""
    return MORE_THAN_STEPS_TAKE if steps else asked


def register() -> None:
    """Register all of them with OmegaConf, and with Hydra what conf/ names: hw=auto, the sweeper of a search.

    Again and again, if need be.
    """
    Plugins.instance().register(machine.Source)
    sweeper = {"_target_": SEARCH, "params": {}}
    ConfigStore.instance().store(group="hydra/sweeper", name="search", node=sweeper)
    for name, function in {
        "verl": verl_trainer_folder,
        "run_dir": run_dir,
        "path": absolute,
        "model_path": model_path,
        "template": template,
        "ray_address": ray_address,
        "is": lambda a, b: a == b,
        "if": lambda condition, then, otherwise: then if condition else otherwise,
        "sum": lambda *terms: None if None in terms else sum(terms),
        "mul": lambda a, b: a * b,
        "floor_div": floor_div,
        "epochs": epochs,
        "strings": lambda node: OmegaConf.create({k: str(v) for k, v in node.items()}),
        "join": lambda sep, *parts: sep.join(str(part) for part in parts),
    }.items():
        OmegaConf.register_new_resolver(f"lab.{name}", function, replace=True)
