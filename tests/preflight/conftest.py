"""Fixtures of the tests of preflight: data of every kind, and configs that are composed once and then changed."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from omegaconf import OmegaConf, open_dict, read_write
from preflight_helpers import CHAIN, PAIR, RL_ROW, SFT_ROW

from preflight import names
from preflight.preparation import Preparation


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A dataset of 200 rows a file."""
    folder = tmp_path_factory.mktemp("data")
    for name, row in {
        "train": RL_ROW,
        "val": RL_ROW,
        "sft_train": SFT_ROW,
        "sft_val": SFT_ROW,
        "pref_train": PAIR,
        "pref_val": PAIR,
        "prm_train": CHAIN,
        "prm_val": CHAIN,
    }.items():
        pq.write_table(pa.Table.from_pylist([row] * 200), folder / f"{name}.parquet")
    return folder


def parsed(override: str):
    """The value of `key=value`, as Hydra reads it."""
    value = OverridesParser.create().parse_override(f"x={names.split(override)[1]}").value()
    return value.text if isinstance(value, QuotedString) else value


@pytest.fixture
def configure(composer, data, tiny_model, tmp_path):
    """`configure("algo=ppo", ...)` → a config that is right in all that is not overridden.

    Options of groups are composed; keys are set in a copy, and Hydra is told of them.
    """
    base = {
        "lab.dataset.dir": str(data),
        "lab.model.path": str(tiny_model),
    }
    groups = {path.name for path in names.CONF.iterdir() if path.is_dir()}

    def make(*overrides: str):
        split = [(names.split(override), override) for override in overrides]
        options = {key: text for (key, _), text in split if key in groups}
        keys = {key: parsed(override) for (key, _), override in split if key not in groups}
        config = composer(*sorted(({"reward": "reward=none"} | options).values()))
        for key, value in (base | keys).items():
            OmegaConf.update(config, key, value, force_add=True)
        hydra = HydraConfig.instance().cfg
        with read_write(hydra.hydra), open_dict(hydra.hydra):
            hydra.hydra.overrides.task = list(overrides)
            hydra.hydra.runtime.output_dir = str(tmp_path)
        return config

    return make


@pytest.fixture
def said(configure):
    """What all checks say about a config."""
    return lambda *overrides: list(Preparation(configure(*overrides)).complaints())
