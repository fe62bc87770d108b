"""Fixtures of the tests of preflight: data of every kind, and configs that are composed once and then changed."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hydra.core.hydra_config import HydraConfig
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


@pytest.fixture
def configure(composer, data, tiny_model, tmp_path):
    """`configure("algo=ppo", ...)` → a config that is right in all that is not overridden.

    Options of groups are composed; keys are set in a copy, and Hydra is told of them.
    """
    base = {"lab.dataset.dir": data, "lab.model.path": tiny_model, "lab.run_dir": tmp_path}
    groups = {path.name for path in names.CONF.iterdir() if path.is_dir()}

    def make(*overrides: str):
        split = [(names.split(override), override) for override in overrides]
        options = {key: text for (key, _), text in split if key in groups}
        keys = {key: value for (key, value), _ in split if key not in groups}
        config = composer(*sorted(({"reward": "reward=none"} | options).values()))
        for key, value in (base | keys).items():
            OmegaConf.update(config, key, yaml.safe_load(str(value)), force_add=True)
        hydra = HydraConfig.instance().cfg
        with read_write(hydra.hydra), open_dict(hydra.hydra):
            hydra.hydra.overrides.task = list(overrides)
        return config

    return make


@pytest.fixture
def said(configure):
    """What all checks say about a config."""
    return lambda *overrides: list(Preparation(configure(*overrides)).complaints())
