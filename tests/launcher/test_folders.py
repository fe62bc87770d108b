"""A folder is one run's: whoever comes second is refused, and who is refused leaves nothing behind."""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from checkpoints import save_step
from helpers import ROOT, begin_without_verl, launch_without_verl

from launcher.folders import LOCK, taken
from preflight import names
from preflight.mistakes import Mistake

HOLD = """
import subprocess, sys
from pathlib import Path
from launcher import folders, supervisor
with folders.taken(Path(sys.argv[1])):
    child = supervisor.started(["sleep", "600"], {}, subprocess.DEVNULL, folders.held) if sys.argv[2:] else None
    print(child.pid if child else 0, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """`holder(folder)` → a process that has the folder, and the id of the child that has it as well (0: none)."""
    begun = []

    def begin(folder: Path, *more: str):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(folder), *more], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        begun.append(process)
        return process, int(process.stdout.readline())

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def free(folder: Path) -> bool:
    try:
        with taken(folder):
            return True
    except Mistake:
        return False


def test_one_start_has_a_folder(holder, tmp_path):
    folder = tmp_path / "a/run"
    process, _ = holder(folder)
    with (
        pytest.raises(Mistake, match=f"a run that has not ended .process {process.pid}, python"),
        taken(folder),
    ):
        raise AssertionError
    process.communicate("", timeout=60)
    assert free(folder) and list(folder.iterdir()) == []


def test_whoever_is_killed_lets_it_go_when_the_last_of_its_processes_ends(holder, tmp_path):
    """verl's process goes on without a launcher that was killed: the folder stays taken until it ends, too."""
    process, child = holder(tmp_path, "with verl")
    process.kill()
    process.wait()
    with pytest.raises(Mistake, match=f"process {child}, sleep"), taken(tmp_path):
        raise AssertionError
    os.kill(child, 9)
    while not free(tmp_path):  # the kernel takes its time
        time.sleep(0.05)
    assert not (tmp_path / LOCK).exists()


def test_one_process_may_have_two_folders(tmp_path):
    with taken(tmp_path / "a"), taken(tmp_path / "b"), taken(None):
        assert not free(tmp_path / "a") and not free(tmp_path / "b") and free(tmp_path / "c")


@pytest.fixture
def common(sql_demo, tiny_model):
    return [f"lab.dataset.dir={sql_demo}", f"lab.model.path={tiny_model}"]


@pytest.mark.parametrize(
    "name", ["x (1)", "größe's", "#1 lr=1e-6", "null", 'a"b\\', "{a: 1},[2]!%"]
)
def test_a_folder_may_have_any_name(common, tmp_path, name):
    """A run in it, one that goes on, and one that wants the same folder."""
    folder = tmp_path / name
    where = f"hydra.run.dir={names.quoted(folder)}"
    done = launch_without_verl(*common, where)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"verl runs in {folder} {folder}" in (folder / "log.txt").read_text()
    again = launch_without_verl(*common, where)
    assert again.returncode == 2 and shlex.quote(f"resume={folder}") in again.stderr
    done = launch_without_verl(f"resume={folder}", "trainer.total_training_steps=3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "log.txt").read_text().count(f"verl runs in {folder} {folder}") == 2


def test_a_folder_is_known_by_where_it_is(common, tmp_path):
    """However it was written; and a run's files stay as they are."""
    folder = tmp_path / "0"
    assert launch_without_verl(*common, f"hydra.run.dir={folder}").returncode == 0
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    (tmp_path / "link").symlink_to(folder)
    for way in ("'{}/0'", '"{}/0"', "{}/${{lab.seed}}", "{}/x/../0", "{}/link"):
        done = launch_without_verl(
            *common, f"hydra.run.dir={way.format(tmp_path)}", "lab.model.path=/other"
        )
        assert done.returncode == 2 and "holds a run already" in done.stderr, way
    done = launch_without_verl("-m", *common, "lab.seed=0", f"hydra.sweep.dir='{tmp_path}'")
    assert done.returncode == 2 and "holds a run already" in done.stderr
    assert before == {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_of_two_starts_in_one_folder_one_runs(common, tmp_path):
    (tmp_path / "wait").touch()
    both = [
        begin_without_verl(*common, f"lab.seed={n}", f"hydra.run.dir={tmp_path / 'run'}")
        for n in (0, 1)
    ]
    while all(process.poll() is None for process in both):
        time.sleep(0.05)
    (tmp_path / "wait").unlink()
    ends = {process.wait(timeout=120): process.communicate()[1] for process in both}
    assert set(ends) == {0, 2} and "has not ended" in ends[2] and len(ends[2].splitlines()) == 1
    config = yaml.safe_load((tmp_path / "run/resolved.yaml").read_text())
    assert (
        yaml.safe_load((tmp_path / "run/.hydra/overrides.yaml").read_text())[2]
        == f"lab.seed={config['lab']['seed']}"
    )


def test_starts_without_a_folder_have_two(common, tmp_path):
    both = [begin_without_verl(*common, cwd=tmp_path) for _ in range(2)]
    for process in both:
        assert process.wait(timeout=120) == 0
        process.communicate()
    assert len(list((tmp_path / "outputs").glob("*/*/resolved.yaml"))) == 2


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_refused_run_leaves_no_folder_and_removes_none(tmp_path):
    mine = tmp_path / "mine/empty"
    mine.mkdir(parents=True)
    wrong = "lab.model.path=/nowhere"
    for args in (
        [wrong, f"hydra.run.dir={tmp_path}/a/b/c"],
        [wrong, f"hydra.run.dir={mine}"],
        [wrong, f"hydra.run.dir={mine}/run"],
        ["-m", wrong, "lab.seed=1,2", f"hydra.sweep.dir={tmp_path}/sweeps/s"],
        ["-m", "lab.seed=1,2", "trainer.no_such_key=1", f"hydra.sweep.dir={tmp_path}/sweeps/s"],
        [f"trainer.default_local_dir={tmp_path}/ck", wrong, f"hydra.run.dir={tmp_path}/d"],
    ):
        done = launch_without_verl(*args)
        assert done.returncode == 2, done.stdout + done.stderr
        assert tree(tmp_path) == ["mine", "mine/empty"], args


def test_a_folder_of_checkpoints_is_one_runs(common, tmp_path):
    """While a run has it nobody else does, and afterwards only that run goes on from what is in it."""
    where = f"trainer.default_local_dir={tmp_path}/saved"
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/wait").touch()
    first = begin_without_verl(*common, where, f"hydra.run.dir={tmp_path}/runs/1")
    while not (tmp_path / "runs/1/run.json").exists():
        assert first.poll() is None, first.communicate()
        time.sleep(0.05)
    done = launch_without_verl(*common, where, f"hydra.run.dir={tmp_path}/2")
    assert done.returncode == 2 and "saved belongs to a run that has not ended" in done.stderr
    (tmp_path / "runs/wait").unlink()
    assert first.wait(timeout=120) == 0, first.communicate()
    first.communicate()
    save_step(tmp_path / "saved/global_step_5")
    (tmp_path / "saved/latest_checkpointed_iteration.txt").write_text("5")
    done = launch_without_verl(*common, where, f"hydra.run.dir={tmp_path}/2")
    assert done.returncode == 2 and "checkpoints of another run (global_step_5)" in done.stderr
    assert not (tmp_path / "2").exists()
    done = launch_without_verl(f"resume={tmp_path}/runs/1")
    assert done.returncode == 0, done.stderr


def test_a_run_that_has_not_ended_is_not_gone_on_with(common, tmp_path):
    folder = tmp_path / "run"
    (tmp_path / "wait").touch()
    alive = begin_without_verl(*common, f"hydra.run.dir={folder}")
    while alive.poll() is None and not (folder / "run.json").exists():
        time.sleep(0.05)
    record = (folder / "run.json").read_bytes()
    for words in (["trainer.total_training_steps=3"], ["trainer.resume_mode=disable"]):
        done = launch_without_verl(f"resume={folder}", *words)
        assert done.returncode == 2 and "has not ended" in done.stderr, done.stdout + done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert (folder / "run.json").read_bytes() == record and not (folder / "attempts").exists()
    (tmp_path / "wait").unlink()
    assert alive.wait(timeout=120) == 0
    assert launch_without_verl(f"resume={folder}").returncode == 0
