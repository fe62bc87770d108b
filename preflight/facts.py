"""Facts about a composed config that several checks, the plan and the tools need. No check is one of them."""

import importlib.util
from collections.abc import Callable
from importlib.machinery import PathFinder
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from preflight.names import split

STAGE = "LAB_STAGE"  # in the environment of a run that is part of more, and leaves it to that what to do next


def is_rl(config: DictConfig) -> bool:
    """Whether the run samples answers and scores them; else it learns from given ones, under torchrun."""
    return config.lab.trainer.kind == "rl"


def is_sft(config: DictConfig) -> bool:
    """Whether the run learns from given answers, with the config tree of verl's SFT trainer."""
    return not is_rl(config)


def is_driver(config: DictConfig) -> bool:
    """Whether the entry point is one of this project that runs others as its stages: its steps are rounds of these."""
    return is_rl(config) and not config.lab.trainer.entry.startswith("verl.")


def has_own_rows(config: DictConfig) -> bool:
    """Whether a reader of this project reads the rows (pairs, labelled steps), and none of verl's."""
    return config.lab.trainer.rows is not None


def is_verls_sft(config: DictConfig) -> bool:
    """Whether verl's own reader reads conversations."""
    return is_sft(config) and not has_own_rows(config)


def has_options(root: str) -> Callable[[DictConfig], bool]:
    """A condition: whether the algorithm has options of its own below `root`."""
    return lambda config: root in config.lab.trainer.options


def model_key(config: DictConfig) -> str:
    """The key of the model that is trained."""
    return "actor_rollout_ref.model" if is_rl(config) else "model"


def given(key: str) -> bool:
    """Whether the command line sets `key`, or something below it."""
    if not HydraConfig.initialized():
        return False
    keys = [split(override)[0] for override in HydraConfig.get().overrides.task]
    return any(k == key or k.startswith(f"{key}.") for k in keys)


def is_of_a_sweep() -> bool:
    """Whether Hydra makes several jobs, and this is one of them."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def choice(group: str) -> str:
    """The option chosen for a group."""
    return HydraConfig.get().runtime.choices.get(group, "") if HydraConfig.initialized() else ""


def installed(package: str) -> Path | None:
    """The folder of a package, found without importing it; None if it isn't there."""
    spec = importlib.util.find_spec(package)
    places = spec.submodule_search_locations if spec else None
    return Path(places[0]) if places else None


def module_file(module: str) -> Path | None:
    """Where a module lies, found without importing what it is in; None if there is none of that name."""
    root, *rest = module.split(".")
    spec = importlib.util.find_spec(root) if root else None
    for name in rest:  # `find_spec` of the whole name would import the packages above
        spec = PathFinder.find_spec(name, spec.submodule_search_locations or []) if spec else None
    return Path(spec.origin) if spec and spec.origin and spec.has_location else None


def verl_folder() -> Path:
    """verl's source, found without importing it (that takes seconds). Raises ModuleNotFoundError."""
    if folder := installed("verl"):
        return folder
    raise ModuleNotFoundError("verl is not installed: run `make setup`")


def scored_by(config: DictConfig) -> str | None:
    """The reward's path, if it uses a model that verl serves."""
    if is_sft(config) or not OmegaConf.select(config, "reward.reward_model.enable"):
        return None
    return config.reward.custom_reward_function.path


def as_list(files) -> list[str]:
    """verl takes one file or a list."""
    if files is None:
        return []
    return [files] if isinstance(files, str) else list(files)


def named_files(config: DictConfig) -> list[str]:
    """Files of data that the config names, for training and for validation."""
    return [*as_list(config.data.train_files), *as_list(config.data.val_files)]


def data_files(config: DictConfig) -> list[str]:
    """Those that are there; check_data_files misses the others."""
    return [file for file in named_files(config) if Path(file).is_file()]


def columns_of(file: str) -> list[str] | None:
    """Names of a parquet file's columns; None if it is not one."""
    import pyarrow.parquet as pq

    try:
        return pq.read_schema(file).names
    except (OSError, ValueError):
        return None


def row_count(files) -> int | None:
    """Rows of parquet files together; None if that can't be known (another check says why)."""
    import pyarrow.parquet as pq

    total = 0
    for file in as_list(files):
        try:
            if not Path(file).is_file():
                return None
            total += pq.read_metadata(file).num_rows
        except (OSError, ValueError):
            return None
    return total if files else None


def rows_read(config: DictConfig, kind: str) -> int | None:
    """Rows that a run reads for `kind`, train or val; None if that can't be known."""
    have, limit = row_count(config.data[f"{kind}_files"]), config.data[f"{kind}_max_samples"]
    return min(have, limit) if have is not None and limit > 0 else have
