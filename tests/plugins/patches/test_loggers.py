"""A logger that fails ends no training: verl's own Tracking with real W&B, in processes of their own."""

import json
import os
import subprocess
import sys

import pytest
from helpers import ROOT

BEGIN = """
import os, sys
from verl.utils.tracking import Tracking, ValidationGenerationsLogger
def tracking(*loggers):
    return Tracking("project", "name", ["console", *loggers], {"trainer": {}})
"""
KILL_ITS_PROCESS = """
import psutil
made = tracking("wandb")
made.log({"x": 1.0}, step=1)
for child in psutil.Process().children(recursive=True):
    child.kill()
    child.wait()
for step in range(2, 8):
    made.log({"x": float(step)}, step=step)
    ValidationGenerationsLogger("project", "name").log(["wandb"], [["question", "answer", 1.0]], step)
assert "wandb" not in made.logger
made.finish()
"""
NOT_STARTED = """
made = tracking("wandb", "tensorboard")
assert set(made.logger) == {"console", "file", "wandb", "tensorboard"}, made.logger
for step in range(1, 8):
    made.log({"x": float(step)}, step=step)
made.finish()
"""
NETWORK_GOES = """
import time
from wandb_server import Server
from plugins.patches import loggers
loggers.FINISH_S = 2.0
server = Server()
os.environ["WANDB_BASE_URL"] = server.url
made = tracking("wandb")
made.log({"x": 1.0}, step=1)
made.log({"x": 2.0}, step=2)  # W&B sends a step when the next one comes
while not any("history" in body for body in server.sent):
    time.sleep(0.1)
server.go_away()
for step in range(3, 8):
    made.log({"x": float(step)}, step=step)
assert "wandb" in made.logger  # W&B keeps what it can't send
made.finish()
"""
HANGS = """
import threading
from plugins.patches import loggers
loggers.FINISH_S = 0.5
class Wandb:
    def log(self, data, step): pass
    def finish(self, exit_code): threading.Event().wait()
made = tracking()
made.logger = {"wandb": Wandb(), **made.logger}
for step in range(1, 8):
    made.log({"x": float(step)}, step=step)
made.finish()
"""
NOW_AND_THEN = """
class Wandb:
    calls = []
    def log(self, data, step):
        self.calls.append(step)
        if step % 3:
            raise OSError("no route")
    def finish(self, exit_code): raise OSError("no route")
made = tracking()
made.logger["wandb"] = Wandb()
for step in range(1, 8):
    made.log({"x": float(step)}, step=step)
assert Wandb.calls == list(range(1, 8)), Wandb.calls
made.finish()
"""


@pytest.fixture
def ask(tmp_path):
    """A script with the project's patches → its output; its metrics must all be there."""

    def run(script: str, **env: str) -> str:
        env = os.environ | {"VERL_USE_EXTERNAL_MODULES": "plugins.register",
                            "PYTHONPATH": f"{ROOT}:{ROOT}/tests/support",
                            "VERL_PLATFORM": "cpu", "VERL_FILE_LOGGER_PATH": str(tmp_path / "m.jsonl"),
                            "WANDB_DIR": str(tmp_path), "HOME": str(tmp_path),
                            "WANDB_API_KEY": "k" * 40} | env  # fmt: skip
        done = subprocess.run([sys.executable, "-c", BEGIN + script], env=env, cwd=tmp_path,
                              capture_output=True, text=True)  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        lines = (tmp_path / "m.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == list(range(1, 8))
        return done.stdout

    return run


def messages(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("[message] ")]


def test_wandb_whose_process_is_killed(ask):
    """verl issue 4904."""
    said = messages(ask(KILL_ITS_PROCESS, WANDB_MODE="offline"))
    assert any("wandb failed (ConnectionResetError" in line and "goes on" in line for line in said)
    assert len(said) <= 2  # once for its metrics, once for its tables


def test_wandb_with_a_wrong_key_goes_on_without_a_network(ask, tmp_path):
    (said,) = messages(ask(NOT_STARTED, WANDB_API_KEY="wrong"))
    assert "wandb did not start (AuthenticationError" in said and "wandb sync" in said
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


@pytest.mark.slow
def test_wandb_without_a_network(ask, tmp_path):
    """W&B itself tries for a minute and a half."""
    (said,) = messages(ask(NOT_STARTED, WANDB_BASE_URL="http://127.0.0.1:9"))
    assert "wandb did not start (CommError" in said
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


@pytest.mark.slow
def test_wandb_whose_network_goes_away_while_it_runs(ask):
    (said,) = messages(ask(NETWORK_GOES))
    assert "wandb has not sent everything after 2 s" in said


def test_a_logger_that_hangs_at_the_end(ask):
    (said,) = messages(ask(HANGS))
    assert "wandb has not sent everything" in said


def test_a_logger_that_fails_now_and_then_gets_the_next_step(ask):
    first, last = messages(ask(NOW_AND_THEN))
    assert "wandb failed (OSError: no route)" in first and "did not end well" in last


def test_a_logger_that_verl_does_not_know_is_an_error(ask):
    with pytest.raises(AssertionError, match="wandv is not supported"):
        ask('tracking("wandv")')
