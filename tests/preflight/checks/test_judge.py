"""What reward=judge needs is asked for before anything starts, and no secret is repeated."""

import copy
import subprocess
import sys

import pytest
from helpers import ROOT
from judge_server import KEY
from omegaconf import OmegaConf

from preflight.checks.reward_options import check_reward_options

OPTIONS = "lab.reward"
GIVEN = {"reward": "judge", f"{OPTIONS}.model": "m", f"{OPTIONS}.base_url": "http://127.0.0.1:1/v1"}


@pytest.fixture(scope="module")
def config(composer):
    return composer(*(f"{key}={value}" for key, value in GIVEN.items()), "lab.run_dir=/run")


@pytest.fixture
def said(config, monkeypatch):
    """`said(model="n")` → what the check says with these options instead."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)

    def check(**options):
        other = copy.deepcopy(config)
        for name, value in options.items():
            OmegaConf.update(other, f"{OPTIONS}.{name}", value, force_add=True)
        return check_reward_options(other)

    return check


def test_a_good_one(said, composer, monkeypatch):
    assert check_reward_options(composer("reward=sql")) is None
    assert said() is None
    monkeypatch.setenv("OPENAI_BASE_URL", "https://host/v1")
    assert said(base_url=None) is None
    monkeypatch.delenv("OPENAI_API_KEY")
    assert said(api_key_env=None) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": None}, "reward=judge: model: name the judge"),
        ({"base_url": None}, "$OPENAI_BASE_URL"),
        ({"base_url": f"http://me:{KEY}@host/v1"}, "no user, password"),
        ({"api_key_env": KEY}, "takes the NAME of an environment variable"),
        ({"api_key_env": "NOT_THERE"}, "$NOT_THERE is not set"),
        ({"template_file": "/nowhere.txt"}, "template_file=/nowhere.txt"),
        ({"template_file": "mine.txt"}, f"name it in full: {ROOT}/mine.txt"),
        ({"folder": "kept"}, f"name it in full: {ROOT}/kept"),
        ({"scale": [5, 1]}, "scale must be two numbers"),
        ({"max_cals": 3}, "Did you mean max_calls?"),
        ({"concurrency": 0}, "concurrency must be"),
    ],
)
def test_mistakes(said, options, words):
    line = said(**options)
    assert words in line and "\n" not in line and KEY not in line


def test_a_run_without_a_key_does_not_start(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    command = [sys.executable, "launch.py", f"hydra.run.dir={tmp_path / 'run'}", f"lab.dataset.dir={tmp_path}",
               *(f"{k}={v}" for k, v in GIVEN.items())]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    line = "reward=judge: $OPENAI_API_KEY is not set: put the judge's key into it"
    assert (done.returncode, done.stdout) == (2, "") and line in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "run/resolved.yaml").exists()
