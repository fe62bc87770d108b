"""Stages: a run of launch.py inside a run has that run's config, and its reward above all."""

import os

import pytest
from checkpoints import save_step
from helpers import WITHOUT_VERL, launch_without_verl
from omegaconf import OmegaConf

from launcher import stages
from launcher.checkpoints import track

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


def test_a_stage_that_goes_on_has_what_is_set_now(launch, tmp_path, sql_demo, tiny_model):
    """The run that it is a stage of has gone on with other settings: resume=RUN self_play.epochs=5."""
    folder = tmp_path / "round_1/dpo"

    def start(epochs: int) -> int:
        lab = {"model": {"path": str(tiny_model)}, "dataset": {"dir": str(sql_demo)}}
        stages.run(
            folder, "dpo", OmegaConf.create({"lab": lab, "trainer": {"total_epochs": epochs}})
        )
        return OmegaConf.load(folder / "resolved.yaml").trainer.total_epochs

    assert start(2) == 2
    save_step(folder / "checkpoints/global_step_1")
    track(folder / "checkpoints", 1)
    assert [start(5), start(2)] == [5, 2]
    assert len(stages.attempts(folder)) == 3
    assert sorted(file.name for file in (tmp_path / "round_1/stage").iterdir()) == [
        "dpo.yaml",
        "dpo_2.yaml",
    ]
