"""What the tests share: composing as launch.py does, and where the acceptance data lies."""

import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict
from sql_helpers import make_database

from preflight import names, resolvers

ROOT = Path(__file__).resolve().parent.parent

SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def composer():
    """`composer("algo=ppo", ...)` → the job's config, with `hydra:` interpolations working."""
    resolvers.register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(names.CONF), version_base="1.3"):

        def make(*overrides: str):
            config = compose("config", overrides=list(overrides), return_hydra_config=True)
            HydraConfig.instance().set_config(config)
            with open_dict(config):
                del config["hydra"]
            return config

        yield make
    HydraConfig.instance().cfg = None


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """model=tiny, made for the tests."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    subprocess.run(
        [sys.executable, "-m", "data_prep", "tiny_model", "--out", folder], cwd=ROOT, check=True
    )
    return folder


@pytest.fixture
def shared():
    """The folder of the acceptance data; skips where it is not there."""
    if not SHARED.is_dir():
        pytest.skip(f"acceptance data not found at {SHARED}")
    return SHARED


def resolved(config) -> dict:
    """A config as a plain dict with every interpolation resolved."""
    return OmegaConf.to_container(config, resolve=True)


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    """The path of a small database (sql_helpers.SCHEMA)."""
    return make_database(tmp_path_factory.mktemp("sql") / "shop.sqlite")
