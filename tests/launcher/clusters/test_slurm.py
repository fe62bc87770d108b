"""cluster=slurm without a Slurm: the script, what is refused, what a job does with signals and with its exit status."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT
from omegaconf import OmegaConf

from launcher import clusters
from launcher.clusters import slurm

ODD = "a b#'é%[(&$x\""
SETTLED_S = 60


@pytest.fixture
def written(composer, tmp_path):
    """`written("lab.cluster.qos=long")` → the script for one run, in a folder with an odd name."""

    def make(*overrides: str, count: int = 1, is_array: bool = False) -> str:
        config = composer("cluster=slurm", "lab.model.path=/model", *overrides)
        runs = [clusters.Handed(config, tmp_path / ODD / str(number)) for number in range(count)]
        for run in runs:
            run.run_dir.mkdir(parents=True, exist_ok=True)
            config.trainer.default_local_dir = str(run.run_dir / "checkpoints")
        return slurm.script(runs, tmp_path / ODD, is_array)

    return make


def options(script: str) -> list[str]:
    """Of sbatch, as a shell reads their quotes."""
    import shlex

    lines = [line for line in script.splitlines() if line.startswith("#SBATCH ")]
    return [word for line in lines for word in shlex.split(line.removeprefix("#SBATCH "))]


def test_the_options_of_the_job_come_from_the_profile_and_the_cluster(written, tmp_path):
    found = options(
        written(
            "hw=h100x8", "lab.hw.nodes=2", "lab.cluster.time_min=240", "lab.cluster.qos=long", "lab.cluster.cpus=64",
            "lab.cluster.memory_gib=900", "lab.cluster.partition=gpu", "lab.cluster.account=me",
            "lab.cluster.signal_s=300", "lab.cluster.options=['--comment=for a friend']",
        )
    )  # fmt: skip
    assert set(found) >= {
        "--nodes=2", "--gpus-per-node=8", "--time=240", "--qos=long", "--cpus-per-task=64", "--mem=900G",
        "--partition=gpu", "--account=me", "--signal=B:USR1@300", "--requeue", "--comment=for a friend",
    }  # fmt: skip
    output = next(word for word in found if word.startswith("--output="))
    assert output == f"--output={str(tmp_path / ODD).replace('%', '%%')}/slurm-%j.txt"


def test_what_is_not_asked_for_is_left_to_the_cluster(written):
    script = written("hw=cpu", "lab.cluster.requeue=false")
    assert not any(
        word in script for word in ("--time", "--mem", "--qos", "--gpus", "scontrol requeue")
    )
    assert "--no-requeue" in options(script)


SHAPES = {
    "one node": [],
    "nodes": ["hw=h100x8", "lab.hw.nodes=3"],
    "pyxis": ["lab.hw.nodes=2", "lab.cluster.container=verlai/verl:x", "lab.cluster.mounts=[/data]"],
    "apptainer": ["lab.cluster.container=/images/a b.sif", "lab.cluster.container_tool=apptainer"],
    "set-up": ["lab.cluster.setup=['module load cuda', 'ulimit -n 65536']"],
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("is_array", [False, True])
def test_bash_and_shellcheck_take_the_script(written, tmp_path, shape, is_array):
    script = written(*SHAPES[shape], count=3 if is_array else 1, is_array=is_array)
    file = tmp_path / "job.sbatch"
    file.write_text(script)
    commands = [["bash", "-n"]]
    checker = Path(sys.executable).parent / "shellcheck"
    commands += [[str(checker), "--severity=warning"]] if checker.is_file() else []
    for command in commands:
        done = subprocess.run([*command, str(file)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_containers_see_the_code_the_runs_and_what_is_asked_for(written, tmp_path):
    pyxis = written(*SHAPES["pyxis"])
    assert "--container-image=verlai/verl:x" in pyxis and "/data:/data" in pyxis
    apptainer = written(*SHAPES["apptainer"])
    assert f"--bind={ROOT}" in apptainer and "'/images/a b.sif'" in apptainer


def test_an_array_has_a_job_a_run(written):
    script = written(count=3, is_array=True)
    assert "--array=0-2" in options(script)


def test_runs_that_ask_for_other_nodes_are_another_array(composer, tmp_path):
    made = [
        composer("cluster=slurm", f"lab.hw.nodes={n}", f"lab.seed={s}")
        for n, s in ((1, 0), (2, 0), (1, 1))
    ]
    groups = slurm.alike(
        clusters.Handed(config, tmp_path / str(i)) for i, config in enumerate(made)
    )
    assert [[run.run_dir.name for run in group] for group in groups] == [["0", "2"], ["1"]]


# Stands for the launcher in a job: notes its words, and ends with a status, at once or when it is asked to.
LAUNCHER = """
import pathlib, signal, sys, time
here = pathlib.Path(sys.argv[1].removeprefix("resume="))
code = int((here / "code").read_text())
def end(*_):
    if (here / "saves").exists():
        (here / "latest_checkpointed_iteration.txt").write_text("1")
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
(here / "words").write_text(repr(sys.argv[1:]))
while code < 0:
    time.sleep(0.05)
sys.exit(code)
"""


@pytest.fixture
def job(written, tmp_path):
    """`job(code)` → the script as a process, with stand-ins for the launcher and scontrol, and its run's folder."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "scontrol").write_text('#!/bin/bash\necho "$@" > "$LAB_ASKED"\n')
    (programs / "scontrol").chmod(0o755)
    (tmp_path / "launcher.py").write_text(LAUNCHER)
    started = []

    def begin(code: int, *overrides: str, task: str | None = None) -> tuple[subprocess.Popen, Path]:
        script = written(*overrides, count=2 if task else 1, is_array=bool(task))
        file = tmp_path / "job.sbatch"
        file.write_text(script.replace(str(ROOT / "launch.py"), str(tmp_path / "launcher.py")))
        run_dir = tmp_path / ODD / (task or "0")
        (run_dir / "code").write_text(str(code))
        env = os.environ | {
            "SLURM_JOB_ID": f"test-{os.getpid()}-{time.monotonic_ns()}", "LAB_ASKED": str(run_dir / "asked"),
            "PATH": f"{programs}:{os.environ['PATH']}",
        }  # fmt: skip
        env |= {"SLURM_ARRAY_TASK_ID": task} if task else {}
        started.append(
            subprocess.Popen(["bash", str(file)], env=env, stdout=subprocess.PIPE, text=True)
        )
        return started[-1], run_dir

    yield begin
    for process in started:
        process.kill()
        process.wait()


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + SETTLED_S
    while not file.exists():
        assert time.monotonic() < deadline, file
        time.sleep(0.02)


@pytest.mark.parametrize("code", [0, 3])
def test_a_job_ends_as_its_run_does(job, code):
    process, run_dir = job(code)
    process.communicate(timeout=SETTLED_S)
    assert process.returncode == code
    assert (run_dir / "words").read_text() == repr([f"resume={run_dir}"])
    assert not (run_dir / "asked").exists() and not (run_dir / ".job.began").exists()
    assert not list(Path("/tmp").glob(f"lab-test-{os.getpid()}-*"))


def test_each_job_of_an_array_has_its_own_run(job):
    process, run_dir = job(0, task="1")
    process.communicate(timeout=SETTLED_S)
    assert (run_dir / "words").read_text() == repr([f"resume={run_dir}"]) and run_dir.name == "1"


def test_at_the_limit_the_run_ends_and_goes_back_into_the_queue(job):
    process, run_dir = job(-1)
    (run_dir / "saves").touch()
    wait_for(run_dir / "words")
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=SETTLED_S)
    assert process.returncode == 143
    assert (run_dir / "asked").read_text().startswith("requeue test-")


def test_a_run_that_has_saved_nothing_new_is_not_requeued_for_ever(job):
    process, run_dir = job(-1)
    wait_for(run_dir / "words")
    process.send_signal(signal.SIGUSR1)
    said = process.communicate(timeout=SETTLED_S)[0]
    assert process.returncode == 143 and not (run_dir / "asked").exists()
    assert "trainer.save_freq" in said


def test_scancel_ends_the_run_and_requeues_nothing(job):
    process, run_dir = job(-1)
    (run_dir / "saves").touch()
    wait_for(run_dir / "words")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=SETTLED_S)
    assert process.returncode == 143 and not (run_dir / "asked").exists()


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """`queue(squeue="1|PENDING|Priority")` puts programs into PATH that print this; sbatch gives job 7."""
    programs = tmp_path / "programs"
    programs.mkdir()

    def make(**said: str) -> None:
        for name, text in said.items():
            (programs / name).write_text(f"#!/bin/bash\ncat <<'END'\n{text}\nEND\n")
            (programs / name).chmod(0o755)

    for name in ("bash", "cat", "git", "env"):
        (programs / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(programs))
    return make


def start(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "launch.py", *words], cwd=ROOT, capture_output=True, text=True, timeout=300
    )


def test_a_start_writes_the_run_and_its_script_and_begins_nothing(
    queue, sql_demo, tiny_model, tmp_path
):
    base = [f"lab.dataset.dir={sql_demo}", f"lab.model.path={tiny_model}", "lab.check_data=false"]
    folder = tmp_path / "run"
    done = start("cluster=slurm", *base, f"hydra.run.dir={folder}")
    assert done.returncode == 0, done.stderr
    assert (
        "there is no sbatch here" in done.stdout
        and "checked when the cluster's job begins" in done.stdout
    )
    assert (folder / "job.sbatch").is_file() and (folder / "resolved.yaml").is_file()
    assert not (folder / "run.json").exists() and not (folder / "log.txt").exists()
    assert "not submitted" in start("status", str(folder)).stdout

    queue(sbatch="7", squeue="7|PENDING|Priority")
    done = start(f"resume={folder}")
    assert done.returncode == 0 and "job 7, by" in done.stdout, done.stdout + done.stderr
    assert json.loads((folder / "job.json").read_text())["job"] == "7"
    assert "waiting (Priority)" in start("status", str(tmp_path)).stdout
    again = start(f"resume={folder}")
    assert again.returncode == 2 and "belongs to job 7 of slurm, which is waiting" in again.stderr

    queue(squeue="8|RUNNING|None")
    assert "ended early" in start("status", str(tmp_path)).stdout


def test_a_sweep_is_one_array_job(queue, sql_demo, tiny_model, tmp_path):
    queue(sbatch="7", squeue="7_0|RUNNING|None\n7_1|PENDING|Resources")
    base = [f"lab.dataset.dir={sql_demo}", f"lab.model.path={tiny_model}", "lab.check_data=false"]
    done = start(
        "-m", "cluster=slurm", "lab.seed=0,1", *base, f"hydra.sweep.dir={tmp_path / 'sweep'}"
    )
    assert done.returncode == 0, done.stderr
    assert "array job 7, 2 runs" in done.stdout
    assert [json.loads((tmp_path / f"sweep/{n}/job.json").read_text())["job"] for n in (0, 1)] == [
        "7_0",
        "7_1",
    ]
    said = start("status", str(tmp_path)).stdout
    assert "running" in said and "waiting (Resources)" in said


REFUSED = {
    "hw=auto": "name the profile of its nodes",
    "trainer.save_freq=-1": "lab.cluster.requeue=true goes on from",
    "lab.cluster.container_tool=docker": "unknown lab.cluster.container_tool",
}


@pytest.mark.parametrize("word", REFUSED)
def test_what_can_not_go_well_is_refused(word, sql_demo, tiny_model, tmp_path):
    base = [f"lab.dataset.dir={sql_demo}", f"lab.model.path={tiny_model}", "lab.check_data=false"]
    done = start("cluster=slurm", *base, word, f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode == 2 and REFUSED[word] in done.stderr, done.stderr
    assert not (tmp_path / "run").exists()


def test_the_job_itself_begins_the_run(composer, monkeypatch):
    from preflight import cluster

    config = composer("cluster=slurm")
    assert not cluster.begins_here(config)
    monkeypatch.setenv(cluster.JOB, "slurm")
    assert cluster.begins_here(config)
    assert cluster.begins_here(OmegaConf.create({"lab": {"name": "of an older version"}}))
