"""Presets: each published set-up has a CPU variant, which runs for real."""

import contextlib
import json
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
import yaml
from helpers import ROOT, Run
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM

from launcher.best import best
from preflight import names

PRESETS = set(names.groups()["experiment"])
OWN_DATA = {"trading": ["--demo", "64"], "finance": ["--demo", "100"], "econ": []}  # to make some


def test_every_preset_runs_on_a_cpu():
    """A demo does by itself."""
    gpu = {name for name in PRESETS if not name.startswith("demo_") and not name.endswith("_cpu")}
    assert {f"{name}_cpu" for name in gpu} == {name for name in PRESETS if name.endswith("_cpu")}


ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
ASKED = {  # what the sources ask for
    "trading": {
        "data.train_batch_size": 8, "data.max_prompt_length": 512, "data.max_response_length": 1024,
        f"{ACTOR}.optim.lr": 5e-6, f"{ACTOR}.kl_loss_coef": 0.01, f"{ACTOR}.use_kl_loss": True,
        "trainer.total_epochs": 50, "trainer.save_freq": 2, "trainer.test_freq": 1,
        "trainer.n_gpus_per_node": 8, "actor_rollout_ref.model.path": "Qwen/Qwen3-30B-A3B",
    },
    "finance": {
        f"{ACTOR}.optim.lr": 1.4e-5, f"{ACTOR}.ppo_epochs": 4, "trainer.total_epochs": 3,
        "trainer.n_gpus_per_node": 1, "lab.hw.memory_gib": 11.5, "lab.keep_best": True,
        "actor_rollout_ref.model.enable_gradient_checkpointing": True,
    },
    "econ": {
        "data.train_batch_size": 4, "data.max_prompt_length": 1536, "data.max_response_length": 128,
        "actor_rollout_ref.model.lora_rank": 8, "actor_rollout_ref.model.lora_alpha": 16,
        "actor_rollout_ref.model.target_modules": "all-linear", f"{ROLLOUT}.n": 2,
        f"{ROLLOUT}.temperature": 0.7, f"{ACTOR}.entropy_coeff": 0.02, "trainer.n_gpus_per_node": 1,
        "algorithm.use_kl_in_reward": True, "algorithm.kl_ctrl.kl_coef": 0.005,
        "trainer.total_training_steps": 1000, "trainer.resume_mode": "auto",
        "actor_rollout_ref.model.path": "Qwen/Qwen2.5-7B-Instruct",
        "reward.custom_reward_function.reward_kwargs.mode": "strict",
    },
    "reward_sql_sft": {
        "optim.lr": 1e-5, "data.max_length": 8192, "model.path": "Qwen/Qwen2.5-Coder-7B-Instruct",
    },
    "reward_sql_prm": {"optim.lr": 1e-6, "trainer.total_epochs": 1},
    "reward_sql_grpo": {
        f"{ROLLOUT}.n": 8, "data.train_batch_size": 48, "data.max_prompt_length": 8192,
        "data.max_response_length": 512, f"{ACTOR}.optim.lr": 1e-6, f"{ACTOR}.use_kl_loss": True,
        f"{ACTOR}.kl_loss_coef": 0.001, f"{ACTOR}.kl_loss_type": "low_var_kl",
        "actor_rollout_ref.model.path": "Qwen/Qwen2.5-Coder-7B-Instruct",
        "reward.custom_reward_function.path": "pkg://rewards.prm",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(ASKED))
def test_the_settings_are_the_sources(composer, name):
    config = composer(f"experiment={name}")
    assert {key: OmegaConf.select(config, key) for key in ASKED[name]} == ASKED[name]


@pytest.mark.parametrize("algo", ["grpo_process", "grpo_weighted", "grpo_token"])
def test_reward_sql_takes_each_of_its_advantage_functions(composer, algo):
    config = composer("experiment=reward_sql_grpo", f"algo={algo}")
    assert config.algorithm.adv_estimator == algo
    assert config.reward.custom_reward_function.path == "pkg://rewards.prm"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """`dataset("finance")` → a small dataset of that name, made once."""
    made = {}

    def make(name: str):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name) / "data"
            command = [
                sys.executable,
                "-m",
                "data_prep",
                name,
                *OWN_DATA[name],
                "--out",
                made[name],
            ]
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        return made[name]

    return make


@pytest.fixture
def preset(dataset, tiny_model, tmp_path):
    """`preset("econ_cpu", ...)` → the run of a preset on its own data, as it is."""

    def go(name: str, *overrides: str) -> Run:
        folder, data = tmp_path / "run", dataset(name.removesuffix("_cpu"))
        command = [sys.executable, "launch.py", f"experiment={name}", f"hydra.run.dir={folder}",
                   f"lab.dataset.dir={data}", f"lab.model.path={tiny_model}", *overrides]  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        return Run(folder, done)

    return go


def check(result: Run, *parts: str) -> dict:
    """The parts of the reward are metrics, with their spread; returns the run's statistics."""
    last = max(result.metrics)
    for part in parts:
        assert f"reward/{part}" in result.metrics[last], sorted(result.metrics[last])
        assert result.at(last, f"reward/{part}/std") >= 0
    found = json.loads((result.folder / "training_stats.json").read_text())
    config = json.loads((result.folder / "training_config.json").read_text())
    assert config == yaml.safe_load((result.folder / "resolved.yaml").read_text())
    assert found["steps"] == config["trainer"]["total_training_steps"] == last
    return found


@pytest.mark.real
def test_trading(preset):
    result = preset("trading_cpu")
    check(result, "score", "code_quality", "reasoning_quality", "completeness")
    assert result.at(1, "actor/kl_loss") == pytest.approx(0, abs=1e-5)


@pytest.mark.real
@pytest.mark.parametrize("algo", ["grpo", "ppo"])
def test_finance(preset, algo):
    result = preset("finance_cpu", f"algo={algo}")
    found = check(result, "score", "accuracy", "risk", "trust")
    bands = [m for m in result.metrics[1] if m.startswith("reward/band/")]
    assert sum(result.at(1, band) for band in bands) == pytest.approx(1)
    assert ("critic/grad_norm" in result.metrics[1]) == (algo == "ppo")
    kept = best(result.folder)
    assert kept["value"] == found["validation"]["best"] and kept["step"] in (2, 4)
    AutoModelForCausalLM.from_pretrained(result.folder / "best_model")


@pytest.mark.real
def test_econ(preset):
    result = preset("econ_cpu")
    found = check(result, "score", "valid_json")
    assert found["metrics"]["reward/valid_json"]["mean"] <= 1
    adapter = result.folder / "checkpoints/global_step_3/actor/lora_train_meta.json"
    assert json.loads(adapter.read_text())["r"] == 8


@pytest.mark.real
def test_reward_sql(sql_demo, tiny_model, tmp_path):
    """SFT, a process reward model from its model, and GRPO on both."""
    stages = [f"reward_sql_{stage}_cpu" for stage in ("sft", "prm", "grpo")]
    command = [sys.executable, "-m", "tools.pipeline", *stages, "--dir", tmp_path,
               f"lab.dataset.dir={sql_demo}", f"{stages[0]}:lab.model.path={tiny_model}"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    _, prm, grpo = (Run(tmp_path / f"{i}_{name}", done) for i, name in enumerate(stages, 1))
    assert prm.at(40, "val/accuracy") > 0.6
    check(grpo, "score", "step_mean", "outcome_score")
    used = yaml.safe_load((grpo.folder / "resolved.yaml").read_text())
    assert used["reward"]["reward_model"]["model_path"].startswith(str(prm.folder))
    assert used["actor_rollout_ref"]["model"]["path"].startswith(str(tmp_path / "1_"))
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0 and again.stdout.count("is done") == 3


@pytest.mark.real
def test_stages_with_an_adapter(sql_demo, tiny_model, tmp_path, monkeypatch):
    """The one-stop set: SFT and DPO on its model, all with LoRA and a W&B logger that is offline."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    command = [sys.executable, "-m", "tools.pipeline", "sft", "dpo", "--dir", tmp_path, "lab.lora_rank=8",
               "logger=wandb", f"lab.dataset.dir={sql_demo}",
               f"sft:lab.model.path={tiny_model}", "trainer.total_training_steps=10",
               "trainer.test_freq=5"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert Run(tmp_path / "2_dpo", done).at(10, "train/loss") > 0
    for stage in ("1_sft", "2_dpo"):
        assert list((tmp_path / stage / "wandb").glob("offline-run-*"))


@pytest.fixture
def cluster(tmp_path_factory, monkeypatch):
    """The address of a Ray that is not the run's own, and asks for a token."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    folder = tempfile.mkdtemp(prefix="ray-")  # short: sockets lie in it
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray = Path(sys.executable).parent / "ray"
    command = [ray, "start", "--head", "--block", f"--port={port}", "--num-cpus=32", "--num-gpus=1",
               f"--temp-dir={folder}", "--include-dashboard=false", "--disable-usage-stats"]  # fmt: skip
    head = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    for line in head.stdout:
        if "Ray runtime started" in line:
            break
    yield f"127.0.0.1:{port}", head
    started = psutil.Process(head.pid).children(recursive=True)
    head.terminate()
    head.wait(60)
    for process in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.real
def test_a_run_joins_a_ray_that_is_up(start, warm, cluster, tmp_path):
    """And leaves it as it was."""
    address, head = cluster
    process = start(f"ray_kwargs.ray_init.address={address}", f"lab.model.path={warm.folder}",
                    "trainer.val_before_train=false", "trainer.test_freq=-1")  # fmt: skip
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    result = Run(tmp_path / "run", subprocess.CompletedProcess(process.args, 0, output))
    assert result.at(2, "actor/grad_norm") > 0
    assert "Connecting to existing Ray cluster" in result.log() and address in result.log()
    assert head.poll() is None
