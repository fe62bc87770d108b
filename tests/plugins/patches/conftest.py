"""What verl answers in each world (questions.py), asked once for all files and workers of a test session."""

import json
import os
import subprocess
import sys

import pytest
from filelock import FileLock
from helpers import ROOT


@pytest.fixture(scope="session")
def worlds(tiny_model, tmp_path_factory):
    """The folder of each world's files, and in it answers.json."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder = shared / "worlds"
    with FileLock(shared / "worlds.lock"):
        if not folder.exists():
            folder.mkdir()
            script = ROOT / "tests/plugins/patches/questions.py"
            path = os.pathsep.join([str(ROOT), str(ROOT / "tests/support")])
            command = [sys.executable, "-W", "ignore", script, tiny_model, folder]
            env = os.environ | {"PYTHONPATH": path}
            done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
            (folder / "log.txt").write_text(done.stdout + done.stderr)
    return folder


def answers(folder) -> dict:
    file = folder / "answers.json"
    assert file.exists(), (folder.parent / "log.txt").read_text()
    return json.loads(file.read_text())


@pytest.fixture(scope="session")
def without(worlds):
    """Question → answer of verl alone."""
    return answers(worlds / "without")


@pytest.fixture(scope="session")
def patched(worlds):
    """Question → answer of verl in a run of ours."""
    return answers(worlds / "patched")


@pytest.fixture(scope="session")
def found(worlds):
    """Question → answer of verl with this project installed, and no variable of its own set."""
    return answers(worlds / "found")
