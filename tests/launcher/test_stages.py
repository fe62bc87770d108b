"""Stages: a run of launch.py inside a run has that run's config, and its reward above all."""

import os

import pytest
from helpers import WITHOUT_VERL, launch_without_verl
from omegaconf import OmegaConf

from launcher import stages

REWARD = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None, *, bonus=0.0):
    return float(solution_str == ground_truth) + bonus
"""
FUNCTION = "reward.custom_reward_function"


@pytest.fixture
def launch(tmp_path, monkeypatch):
    """Stages are started with all of launch.py but verl."""
    script = tmp_path / "launch.py"
    script.write_text(WITHOUT_VERL)
    monkeypatch.setattr(stages, "LAUNCH", script)
    monkeypatch.setenv("PYTHONPATH", str(stages.names.ROOT))


@pytest.mark.parametrize("preset", [[], ["experiment=demo_self_play"]])
def test_a_stage_has_the_own_reward_of_its_run(launch, tmp_path, sql_demo, tiny_model, preset):
    """With that one's options alone: neither those of the default reward, nor of a preset's."""
    mine, run_dir = tmp_path / "mine.py", tmp_path / "run"
    mine.write_text(REWARD)
    done = launch_without_verl(
        *preset, "algo=self_play", "reward=none", f"{FUNCTION}.path={mine}", "lab.reward.bonus=0.5",
        f"hydra.run.dir={run_dir}", f"lab.dataset.dir={sql_demo}", f"lab.model.path={tiny_model}",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    base = stages.composed(run_dir)
    folder = run_dir / "round_1/sample"
    changes = {"lab": {"name": "one", "model": {"path": str(tiny_model)}, "check_data": False}}
    stages.run(folder, "self_play", OmegaConf.merge(base, changes))
    made, its = (OmegaConf.load(one / "resolved.yaml") for one in (run_dir, folder))
    for config in (made, its):
        assert config.lab.reward == {"bonus": 0.5}
        assert config.reward.custom_reward_function.reward_kwargs == {"bonus": 0.5}
        assert config.reward.custom_reward_function.path == str(mine)
    assert its.lab.name == "one" and os.path.samefile(its.lab.run_dir, folder)
