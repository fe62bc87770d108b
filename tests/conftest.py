"""What the tests share: composing, acceptance data, real runs of launch.py."""

import fcntl
import functools
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import hypothesis
import omegaconf
import pytest
from helpers import ROOT, SHARED, STEPS, Run, heed_ctrl_c, leftovers
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from omegaconf import open_dict
from sql_helpers import make_database

from preflight import machine, names, resolvers, reward_keys

# a slow machine is no failure
hypothesis.settings.register_profile(
    "slow", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("slow")


def pytest_addoption(parser):
    parser.addoption("--part", help="of the long real runs every Nth, from the Ith on: 2/3")


def pytest_collection_modifyitems(config, items):
    """`--part I/N` for a machine with little time: N such calls run everything."""
    if not (part := config.getoption("--part")):
        return
    first, step = map(int, part.split("/"))
    real = [item for item in items if item.get_closest_marker("real")]
    long = [item for item in real if not item.get_closest_marker("quick")]
    left_out = [item for number, item in enumerate(long, 1) if number % step != first % step]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def remember_files() -> None:
    """Most of a composition is reading YAML and parsing interpolations: each file, each text is read once."""
    Plugins.instance()  # which imports the class anew: an earlier change of it would be lost
    source = sys.modules["hydra._internal.core_plugins.file_config_source"].FileConfigSource
    read, known = source.load_config, {}

    def load_config(self, config_path: str):
        file = Path(self.path, self._normalize_file_name(config_path))
        key = (file, file.stat().st_mtime_ns if file.is_file() else None)
        if key not in known:
            known[key] = pickle.dumps(read(self, config_path))
        return pickle.loads(known[key])  # faster than a deep copy

    source.load_config = load_config
    omegaconf.base.parse = functools.lru_cache(None)(omegaconf.base.parse)


remember_files()


@pytest.fixture(scope="session")
def composer():
    """`composer("algo=ppo", ...)` → the job's config, with `hydra:` interpolations working; composed once."""
    resolvers.register()
    GlobalHydra.instance().clear()

    def composed(*overrides: str) -> bytes:
        overrides = reward_keys.short(overrides)
        config = compose("config", overrides=overrides, return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        with open_dict(config):
            del config["hydra"]
        reward_keys.gather(config, overrides)
        return pickle.dumps((config, HydraConfig.instance().cfg))

    once = functools.cache(composed)

    def make(*overrides: str):
        here = "hw=auto" in overrides  # depends on what the machine is said to be
        config, hydra = pickle.loads((composed if here else once)(*overrides))
        HydraConfig.instance().cfg = hydra
        return config

    with initialize_config_dir(str(names.CONF), version_base="1.3"):
        yield make
    HydraConfig.instance().cfg = None


@pytest.fixture
def own_hydra():
    """For tools, which start Hydra themselves: that of the other tests is put aside meanwhile."""
    hydra, config = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    GlobalHydra.instance().clear()
    yield
    GlobalHydra.instance().hydra, HydraConfig.instance().cfg = hydra, config


def made_once(factory, name: str, *command: str | Path) -> Path:
    """A folder that `command --out FOLDER` makes, once for all processes of pytest-xdist."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            python = [sys.executable, "-m", *command, "--out", folder]
            subprocess.run(python, cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """model=tiny, made for the tests."""
    return made_once(tmp_path_factory, "tiny_model", "data_prep", "tiny_model")


@pytest.fixture
def shared():
    """The folder of the acceptance data; skips where it is not there."""
    if not SHARED.is_dir():
        pytest.skip(f"acceptance data not found at {SHARED}")
    return SHARED


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    """The path of a small database (sql_helpers.SCHEMA)."""
    return make_database(tmp_path_factory.mktemp("sql") / "shop.sqlite")


@pytest.fixture(scope="session")
def sql_demo(tmp_path_factory):
    """dataset=sql_demo, small."""
    size = ("--train-rows", "200", "--sft-rows", "2000")
    return made_once(tmp_path_factory, "sql_demo", "data_prep", "sql_demo", *size)


@pytest.fixture(scope="session")
def warm(sql_demo, tiny_model, tmp_path_factory):
    """A run of SFT: random weights write no SQL, so RL on them would have nothing to learn from."""
    folder = tmp_path_factory.mktemp("warm") / "sft"
    command = [sys.executable, "launch.py", "algo=sft", f"hydra.run.dir={folder}", f"lab.dataset.dir={sql_demo}",
               f"lab.model.path={tiny_model}", "trainer.total_training_steps=100", "trainer.test_freq=50",
               "trainer.save_freq=-1"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return Run(folder, done)


@pytest.fixture
def start(sql_demo, tiny_model, tmp_path):
    """`start("algo=ppo", ...)` → a running launch.py on the small data; 16 prompts validate."""
    started = []

    def begin(*overrides: str, folder: Path = tmp_path / "run") -> subprocess.Popen:
        base = {
            "hydra.run.dir": folder, "lab.dataset.dir": sql_demo, "lab.model.path": tiny_model,
            "lab.hw.samples_per_step": 32, "lab.dataset.val_max_samples": 16, "lab.hw.sft_batch_size": 16,
            "trainer.total_training_steps": STEPS, "trainer.save_freq": -1, "trainer.test_freq": STEPS,
        }  # fmt: skip
        learns_from_answers = any(
            f"algo={name}" in overrides for name in ("sft", "dpo", "rm", "prm")
        )
        if "algo=self_play" not in overrides:  # whose stages read both
            base.pop("lab.hw.samples_per_step" if learns_from_answers else "lab.hw.sft_batch_size")
        again = {o.split("=")[0].lstrip("+") for o in overrides}
        args = [f"{k}={v}" for k, v in base.items() if k not in again]
        if any(o.startswith("resume=") for o in overrides):
            args = []
        process = subprocess.Popen(
            [sys.executable, "launch.py", *args, *overrides],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            preexec_fn=heed_ctrl_c,
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


@pytest.fixture
def run(start, tmp_path):
    """The same, to its end; by default a run that must succeed and leave nothing."""

    def go(*overrides: str, folder: Path = tmp_path / "run", status: int = 0) -> Run:
        before = leftovers()
        process = start(*overrides, folder=folder)
        output = process.communicate(timeout=600)[0]
        result = Run(folder, subprocess.CompletedProcess(process.args, process.returncode, output))
        assert process.returncode == status, output
        assert leftovers() <= before, leftovers() - before
        return result

    return go


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """`tool("nvidia-smi", "a line")` → only this program is on the PATH, and says that; `tool()` → none."""
    for variable in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))

    def make(name: str | None = None, *lines: str, status: int = 0, sleep_s: int = 0) -> None:
        machine.gpus.cache_clear()
        machine.profile.cache_clear()
        for other in ("nvidia-smi", "rocm-smi"):
            (tmp_path / other).unlink(missing_ok=True)
        if name:
            (tmp_path / "said").write_text("\n".join(lines) + "\n")
            program = ["#!/bin/sh", f"echo x >> {tmp_path}/calls", f"exec /bin/sleep {sleep_s}" * bool(sleep_s),
                       f"/bin/cat {tmp_path}/said", f"exit {status}"]  # fmt: skip
            (tmp_path / name).write_text("\n".join(program))
            (tmp_path / name).chmod(0o755)

    yield make
    machine.gpus.cache_clear()
    machine.profile.cache_clear()


@pytest.fixture
def tidy():
    """For tests that kill a run, or make one without launch.py: nobody else cleans up after these."""
    before = leftovers()
    yield
    for path in (Path(name) for name in leftovers() - before if name.startswith("/")):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
