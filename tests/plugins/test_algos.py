"""A file in algos/ is all that an algorithm needs: the examples of docs/algorithms.md, as a user would add them."""

import functools
import inspect
import os
import re
import shutil
import subprocess
import sys
import textwrap

import pytest
from helpers import ROOT
from omegaconf import OmegaConf

from launcher.metrics import read_metrics
from plugins import algos
from preflight import names

ENV = {"VERL_PLATFORM": "cpu", "VERL_USE_EXTERNAL_MODULES": "plugins.register"}


@functools.cache
def examples() -> dict[str, str]:
    """The files of docs/algorithms.md: path → text. Each begins with a comment that is its path."""
    page = (ROOT / "docs/algorithms.md").read_text()
    section = page.partition("## Your own algorithm")[2].partition("\n## ")[0]
    blocks = re.findall(r"(?m)(?:^(?: {4}.*)?\n)+", section)
    found = {}
    for block in map(textwrap.dedent, blocks):
        if path := re.match(r"\s*# (\S+/\S+\.(?:py|yaml))\n", block):
            found[path[1]] = block[path.end() :].strip("\n") + "\n"
    return found


@pytest.fixture(scope="session")
def copy(tmp_path_factory):
    """The project as it is, in another folder, with these examples added."""
    folder = tmp_path_factory.mktemp("copy") / "verl-lab"
    for part in ("algos", "conf", "data_prep", "launcher", "plugins", "preflight", "rewards"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "launch.py", folder)
    for path, text in examples().items():
        assert not (folder / path).exists()
        (folder / path).write_text(text)
    return folder


def launch(folder, *overrides: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "launch.py", *overrides]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)


def test_the_page_has_the_examples():
    assert sorted(examples()) == ["algos/median.py", "algos/truncated.py", "conf/algo/median.yaml"]


CODE = """
from types import SimpleNamespace
import numpy as np, torch
from omegaconf import OmegaConf
from verl import DataProto
from verl.trainer.ppo.core_algos import get_policy_loss_fn
from verl.trainer.ppo.ray_trainer import compute_advantage

def rounded(tensor): return [round(x, 3) for x in tensor.tolist()]

algorithm = OmegaConf.create({"median": {"scale": 10.0}, "grpo_weighted": {"weight": 1.0}})
OmegaConf.set_struct(algorithm, True)
for name in ("median", "grpo_weighted", "grpo_token"):
    rewards, mask = torch.tensor([[0., 1.], [0., 2.], [0., 4.]]), torch.tensor([[1, 1]] * 3)
    data = DataProto.from_dict({"token_level_rewards": rewards, "response_mask": mask},
                               {"uid": np.array(["u"] * 3, dtype=object)})
    data = compute_advantage(data, adv_estimator=name, config=algorithm)
    print(rounded(data.batch["advantages"][:, 1]))

log_prob = torch.tensor([[-1.0, -2.0]], requires_grad=True)
loss, metrics = get_policy_loss_fn("truncated")(
    old_log_prob=torch.tensor([[-1.0, -7.0]]), log_prob=log_prob, advantages=torch.tensor([[1.0, -3.0]]),
    response_mask=torch.tensor([[True, True]]), loss_agg_mode="token-mean", rollout_is_weights=None,
    config=SimpleNamespace(clip_ratio_high=0.2, global_batch_info={}))
loss.backward()
print(rounded(log_prob.grad[0]))
"""


def test_verl_knows_our_files_by_name_and_gives_them_their_options(copy):
    """As in a run: estimators get verl's `algorithm` node, and their options out of that."""
    env = os.environ | ENV | {"PYTHONPATH": str(copy)}
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, env=env, cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    median, weighted, token, gradient = done.stdout.splitlines()[-4:]
    assert median == "[-10.0, 0.0, 20.0]"
    assert weighted == token == "[-0.873, -0.218, 1.091]"  # with weight 1, both are z-scores here
    assert gradient == "[-0.5, 1.8]"  # −A/2 and, with the ratio exp(5) cut to 1.2, −1.2 A/2


def test_the_launcher_knows_them(copy):
    shown = launch(copy, "algo=median", "algorithm.median.scale=0.5", "--cfg", "job").stdout
    config = OmegaConf.create(shown)
    assert config.algorithm.adv_estimator == "median" and config.algorithm.median.scale == 0.5
    assert config.actor_rollout_ref.rollout.n == 8
    assert "GRPO with the median as baseline." in launch(copy, "--help").stdout


@pytest.mark.parametrize("function", algos.KINDS)
def test_names_and_options_are_read_without_importing(function):
    """What preflight reads in the text is what Python sees."""
    for name in algos.names(function):
        module = __import__(f"algos.{name}", fromlist=["x"])
        assert callable(getattr(module, function))
        if function == "compute_advantage":
            arguments = inspect.signature(module.compute_advantage).parameters.values()
            only = {a.name: a.default for a in arguments if a.kind is a.KEYWORD_ONLY}
            assert algos.options(name) == only


@pytest.mark.parametrize("name", algos.names("compute_advantage"))
def test_the_yaml_shows_every_option_and_its_default(name):
    """`algo=NAME` and `algo=grpo algorithm.adv_estimator=NAME` are the same estimator."""
    config = OmegaConf.load(names.CONF / f"algo/{name}.yaml")
    assert config.algorithm.adv_estimator == name
    assert config.algorithm.get(name, {}) == algos.options(name)


def test_defaults_that_preflight_can_and_cannot_read(monkeypatch, tmp_path):
    monkeypatch.setattr(algos, "FOLDER", tmp_path)
    signature = "token_level_rewards, *, index, a=-1.5, b=(1, 2), c=MISSING, d=None, **_"
    (tmp_path / "x.py").write_text(f"def compute_advantage({signature}): ...\n")
    assert algos.options("x") == {"a": -1.5, "b": (1, 2), "c": None, "d": None}


def test_what_a_file_declares_is_code_not_text(monkeypatch, tmp_path):
    monkeypatch.setattr(algos, "FOLDER", tmp_path)
    file = tmp_path / "x.py"
    body = "def compute_advantage(response_mask, *, index, config, a=1): ...\nLIMIT, KIND = 3, list()\n"
    file.write_text(f'"""Not meant:\n\nSTEP_REWARDS = True\ndef compute_policy_loss(x)"""\n{body}')
    assert not algos.uses_steps("x")
    assert algos.names("compute_policy_loss") == []
    assert algos.names("compute_advantage") == ["x"]
    file.write_text(f"STEP_REWARDS = (\n    True)  # it does\nKIND: str = 'b'\n{body}")
    assert algos.uses_steps("x")  # the file is read anew
    declared = algos.declares("x")
    assert declared.constants == {"STEP_REWARDS": True, "KIND": "b"}
    assert declared.functions == {"compute_advantage": ("response_mask", "index", "config", "a")}
    assert declared.options == {"a": 1}
    file.write_text("STEP_REWARDS = True\ndef compute_advantage(x\n")
    assert algos.names("compute_advantage") == ["x"]  # somebody has to report the error
    with pytest.raises(SyntaxError):
        algos.declares("x")


def test_a_name_of_verls_own_declares_nothing():
    assert not (algos.FOLDER / "grpo.py").exists()
    assert algos.declares("grpo") == ({}, {}, {})


def test_an_estimator_without_config_has_its_defaults():
    def compute_advantage(index, config=None, *, scale=1.0, **_):
        return index * scale

    bound = algos.with_options("mine", compute_advantage)
    assert bound(index=2) == bound(index=2, config={}) == bound(index=2, config={"mine": None}) == 2
    assert bound(index=2, config={"mine": {"scale": 3}, "other": {"scale": 9}}) == 6
    assert bound.__module__ == __name__


@pytest.mark.real
def test_a_run_with_an_estimator_and_a_loss_of_ones_own(copy, warm, sql_demo, tmp_path):
    folder = tmp_path / "run"
    done = launch(
        copy,
        "algo=median",
        "algorithm.median.scale=0.5",
        "actor_rollout_ref.actor.policy_loss.loss_mode=truncated",
        f"hydra.run.dir={folder}", f"lab.dataset.dir={sql_demo}", f"lab.model.path={warm.folder}",
        "lab.hw.samples_per_step=32", "trainer.total_training_steps=2", "trainer.save_freq=-1",
        "trainer.test_freq=-1", "trainer.val_before_train=false",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = read_metrics(folder / "metrics.jsonl")
    for step in (1, 2):
        assert metrics[step]["actor/ratio_max"] == pytest.approx(1, abs=1e-3)  # one update a step
        # scores are 0, 0.1 (it runs) or 1 (right), and the median is one of them: half of a difference
        for end in ("max", "min"):
            extreme = abs(metrics[step][f"critic/advantages/{end}"])
            assert min(abs(extreme - half) for half in (0, 0.05, 0.45, 0.5)) < 1e-6
    assert max(m["critic/advantages/max"] for s, m in metrics.items() if s) > 0
    assert max(m["actor/grad_norm"] for s, m in metrics.items() if s) > 0
