"""Which checkpoint a run goes on from, and that the folder of its own is nobody else's."""

from pathlib import Path

import pytest
from checkpoints import save_step
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import open_dict, read_write
from preflight_helpers import all_checks, caught

TRACKER = "latest_checkpointed_iteration.txt"
RESUME = "trainer.resume_mode=resume_path"


@pytest.fixture
def at(configure):
    """`at(folder, "algo=sft", ...)` → the config of a run in that folder."""

    def make(folder: Path, *overrides: str, mode: RunMode = RunMode.RUN):
        config = configure(*overrides)
        hydra = HydraConfig.instance().cfg.hydra
        with read_write(hydra), open_dict(hydra):
            hydra.runtime.output_dir, hydra.mode = str(folder), mode
        return config

    return make


def save(folder: Path, *steps: int, last: int | str | None = None) -> Path:
    """A folder of checkpoints."""
    for step in steps:
        save_step(folder / f"global_step_{step}")
    folder.mkdir(parents=True, exist_ok=True)
    if last is not None:
        (folder / TRACKER).write_text(str(last))
    return folder


def says_nothing(name: str, config) -> bool:
    return all_checks()[name](config) is None


@pytest.mark.parametrize("algo", ["grpo", "sft"])
def test_a_checkpoint_is_named_by_its_folder(at, tmp_path, algo):
    ck = save(tmp_path / "ck", 12)
    (ck / "global_step_7").mkdir()
    (ck / "global_step_empty").mkdir()

    def config(path: str):
        return at(tmp_path / "run", f"algo={algo}", RESUME, f"trainer.resume_from_path={ck}/{path}")

    for path, text in {
        "global_step_12/": "without a slash behind it", "global_step_12/actor": f"behind it: {ck}/global_step_12",
        "global_step_7": "no whole checkpoint", "global_step_empty": "is not the folder of a checkpoint",
        "global_step_8": "is not the folder of a checkpoint", "": "is not the folder of a checkpoint",
    }.items():  # fmt: skip
        assert text in caught("check_resume", config(path)), path
    assert says_nothing("check_resume", config("global_step_12"))


def test_sft_reads_the_step_off_the_first_such_name(at, tmp_path):
    ck = save(tmp_path / "global_step_900/archive", 12)
    path = f"trainer.resume_from_path={ck}/global_step_12"
    line = caught("check_resume", at(tmp_path / "run", "algo=sft", RESUME, path))
    assert "that is global_step_900" in line
    assert says_nothing("check_resume", at(tmp_path / "run", RESUME, path))  # RL reads the last
    run = tmp_path / "from_global_step_9"
    where = f"trainer.default_local_dir={run}/checkpoints"
    assert "takes global_step_9 in it" in caught("check_checkpoints", at(run, "algo=sft", where))
    assert says_nothing("check_checkpoints", at(run, where))


def test_checkpoints_of_another_run(at, tmp_path):
    """verl would go on from them; the run that made them may."""
    ck, where = tmp_path / "saved", f"trainer.default_local_dir={tmp_path}/saved"
    assert says_nothing("check_checkpoints", at(tmp_path / "new", where))
    save(ck, 5, last=5)
    for mode in ("auto", "disable"):
        line = caught(
            "check_checkpoints", at(tmp_path / "new", where, f"trainer.resume_mode={mode}")
        )
        assert "of another run (global_step_5)" in line
        assert line.endswith(f"trainer.resume_from_path={ck}/global_step_5")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "resolved.yaml").write_text(f"trainer: {{default_local_dir: {ck}}}")
    assert says_nothing("check_checkpoints", at(mine, where))
    (mine / "resolved.yaml").write_text("trainer: {default_local_dir: /elsewhere}")
    assert "of another run" in caught("check_checkpoints", at(mine, where))
    inside = f"trainer.default_local_dir={mine}/checkpoints"
    assert "folder of the run" in caught("check_checkpoints", at(tmp_path / "new", inside))
    moved = save(mine / "checkpoints", 3, last=3)
    assert says_nothing("check_checkpoints", at(mine, f"trainer.default_local_dir={moved}"))


def test_jobs_of_a_sweep_share_no_folder(at, tmp_path):
    def config(where: str):
        return at(tmp_path / "sweep/0", f"trainer.default_local_dir={where}", mode=RunMode.MULTIRUN)

    assert "is the same for all jobs" in caught("check_checkpoints", config(f"{tmp_path}/ck"))
    assert says_nothing("check_checkpoints", config(f"{tmp_path}/ck/${{lab.seed}}"))
    assert says_nothing("check_checkpoints", config(f"{tmp_path}/sweep/0/ck"))


def test_one_place_says_where_a_run_lies(at, tmp_path):
    line = caught("check_run_dir", at(tmp_path, f"lab.run_dir={tmp_path}/other"))
    assert "hydra.run.dir=FOLDER" in line
    assert says_nothing("check_run_dir", at(tmp_path))
