"""RUN/resolved.yaml and verl's own entry point repeat a run in Hydra's folder, and leave RUN as it is."""

from types import SimpleNamespace

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict, read_write

from plugins.patches.repeat import move_outputs


@pytest.fixture
def started(composer):
    """`started(folder, "algo=ppo", ...)` → the resolved config of a run in /runs/1, as main gets it in that folder."""

    def make(folder: str, *overrides: str):
        config = composer(*overrides, "hydra.run.dir=/runs/1")
        hydra = HydraConfig.instance().cfg
        with read_write(hydra.hydra), open_dict(hydra.hydra):
            hydra.hydra.runtime.output_dir = "/runs/1"
            OmegaConf.resolve(config)
            hydra.hydra.runtime.output_dir = folder
        device = SimpleNamespace(auto_set_device=lambda config: None)
        before = OmegaConf.to_container(config)
        move_outputs(device)
        device.auto_set_device(config)
        return before, config

    return make


def test_what_is_written_lies_in_hydras_folder(started):
    _, config = started("/other/now")
    assert config.trainer.default_local_dir == "/other/now/checkpoints"
    assert config.trainer.rollout_data_dir == "/other/now/rollouts"
    env = config.ray_kwargs.ray_init.runtime_env.env_vars
    assert env.VERL_FILE_LOGGER_PATH == "/other/now/metrics.jsonl"
    assert env.TENSORBOARD_DIR == "/other/now/tensorboard" and config.lab.run_dir == "/other/now"
    assert "/runs/1" not in OmegaConf.to_yaml(config)


def test_what_is_read_and_what_lies_beside_stays(started):
    inputs = ["data.train_files=/runs/1/train.parquet", "trainer.default_local_dir=/runs/10/x"]
    _, config = started("/other", *inputs)
    assert config.data.train_files == "/runs/1/train.parquet"
    assert config.trainer.default_local_dir == "/runs/10/x"


@pytest.mark.parametrize("start", [("/runs/1",), ("/other", "algo=sft")])
def test_a_start_by_launch_changes_nothing(started, start):
    before, config = started(*start)
    assert OmegaConf.to_container(config) == before
