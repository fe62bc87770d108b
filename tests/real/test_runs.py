"""Real runs of verl on this CPU, through the command line that a user types.

`make test` makes the one marked quick; `make test-all` makes all.
"""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time

import psutil
import pytest
import yaml
from transformers import AutoModelForCausalLM

from launcher.metrics import read_metrics

pytestmark = pytest.mark.real


@pytest.mark.quick
def test_sft(warm):
    assert warm.at(100, "train/loss") < 0.5 * warm.at(1, "train/loss")
    assert warm.at(100, "val/loss") < warm.at(50, "val/loss")
    assert re.search(
        r"a step took [\d.]+ s \(predicted: [\d.]+\); the run's processes [\d.]+ GiB",
        warm.done.stdout,
    )
    model = warm.folder / "checkpoints/global_step_100/huggingface"
    assert json.loads((model / "config.json").read_text())["architectures"] == ["Qwen2ForCausalLM"]


@pytest.mark.quick
def test_grpo_with_the_sql_reward(run, warm):
    """The path of the README: Ray, FSDP2, vLLM and the real reward, with everything a run's folder has."""
    result = run("trainer.save_freq=2", f"lab.model.path={warm.folder}")
    assert set(result.metrics) == {0, 1, 2}
    for step in (1, 2):
        # vLLM samples from the very weights that the actor has
        assert result.at(step, "training/rollout_probs_diff_max") < 1e-5
        assert result.at(step, "actor/grad_norm") > 0
        outcomes = {
            k: v for k, v in result.metrics[step].items() if k.startswith("reward/outcome/")
        }
        assert sum(outcomes.values()) == pytest.approx(1)
        assert result.at(step, "reward/masked") == 0
        assert len((result.folder / f"rollouts/{step}.jsonl").read_text().splitlines()) == 32
    assert "val-core/sql_demo/acc/mean@1" in result.metrics[0]
    row = json.loads((result.folder / "validation/2.jsonl").read_text().splitlines()[0])
    assert {"input", "output", "gts", "score", "acc", "outcome", "executed"} <= set(row)
    assert 'prefork.py", line' not in result.log()  # the fork server lived to the end
    # what the user saw: a line a step and no flood
    lines = result.done.stdout.splitlines()
    assert len(lines) < 20
    assert any(re.search(r" 2/2 ", line) for line in lines), result.done.stdout
    # what was expected of it, and what it took
    assert "GiB of this machine" in (result.folder / "plan.txt").read_text()
    assert re.search(
        r"a step took [\d.]+ s \(predicted: [\d.]+\); the run's processes [\d.]+ GiB",
        result.done.stdout,
    )
    # the folder
    config = yaml.safe_load((result.folder / "resolved.yaml").read_text())
    assert "${" not in (result.folder / "resolved.yaml").read_text()
    assert config["reward"]["custom_reward_function"]["path"] == "pkg://rewards.sql"
    start = config["actor_rollout_ref"]["model"]["path"]  # of a run's folder, its last checkpoint
    assert start == str(warm.folder / "checkpoints/global_step_100/huggingface")
    attempt = json.loads((result.folder / "run.json").read_text())["attempts"][0]
    assert (
        attempt["exit"] == 0 and attempt["versions"]["verl"] and attempt["end"] > attempt["start"]
    )
    assert attempt["alerts"] == [] and "alert: " not in result.done.stdout
    assert all(result.at(step, "actor/weights_changed") > 0 for step in (1, 2))
    assert "groups/same_score" in result.metrics[2]
    assert "val-aux/same_answer" in result.metrics[0]
    assert (
        result.folder / "checkpoints/global_step_2/actor/huggingface/model.safetensors"
    ).exists()


@pytest.fixture
def busy_ports():
    """The usual ports of Ray, its dashboard, torch's rendezvous and vLLM are somebody else's."""
    with contextlib.ExitStack() as stack:
        for port in (6379, 8265, 29500, 8000):
            taken = stack.enter_context(socket.socket())
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):  # it is taken already: as good
                taken.bind(("", port))
                taken.listen()
        yield


@pytest.mark.usefixtures("busy_ports")
def test_ppo_trains_a_critic(run):
    result = run("algo=ppo", "trainer.val_before_train=false", "logger=tensorboard")
    assert result.at(1, "critic/grad_norm") > 0
    assert result.at(1, "critic/vf_loss") > 0
    assert list((result.folder / "tensorboard").rglob("events.out.tfevents.*"))


def test_lora_trains_an_adapter(run, warm, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    result = run(
        "lab.lora_rank=8",
        f"lab.model.path={warm.folder}",
        "trainer.save_freq=2",
        "trainer.val_before_train=false",
        "logger=wandb",
    )
    assert list((result.folder / "wandb").glob("offline-run-*/*.wandb"))
    assert result.at(2, "actor/grad_norm") > 0
    assert result.at(2, "training/rollout_probs_diff_max") < 1e-4  # the adapter reached vLLM
    # the saved model is base and adapter in one
    saved = result.folder / "checkpoints/global_step_2/actor/huggingface"
    start = warm.folder / "checkpoints/global_step_100/huggingface"
    (new, info), old = (
        AutoModelForCausalLM.from_pretrained(saved, output_loading_info=True, dtype="float32"),
        AutoModelForCausalLM.from_pretrained(start, dtype="float32"),
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    for name, weight in new.named_parameters():
        change = (weight - old.get_parameter(name)).abs().max()
        assert (change > 0) == name.endswith("proj.weight"), name
        assert change < 0.1


def test_two_workers(run):
    result = run("hw=cpu_x2", "trainer.val_before_train=false")
    assert result.at(2, "training/rollout_probs_diff_max") < 1e-5
    assert "global_seqlen/minmax_diff" in result.metrics[2]
    assert result.log().count("FSDP") > 0


@pytest.mark.usefixtures("tidy")
def test_resume_after_kill_9(start, run, tmp_path):
    folder = tmp_path / "run"
    process = start("trainer.total_training_steps=40", "trainer.save_freq=2", "trainer.val_before_train=false",
                    "trainer.test_freq=-1", folder=folder)  # fmt: skip
    tree: list[psutil.Process] = []
    deadline = time.time() + 300
    while max(read_metrics(folder / "metrics.jsonl"), default=0) < 3:
        assert process.poll() is None and time.time() < deadline, process.stdout.read()
        tree = psutil.Process(process.pid).children(recursive=True)
        time.sleep(0.2)
    process.kill()  # the launcher itself: nobody cleans up, as when a machine goes down
    for child in tree:
        if child.is_running():
            child.kill()
    first = (folder / "metrics.jsonl").read_text()
    last = max(read_metrics(folder / "metrics.jsonl"))
    saved = int((folder / "checkpoints/latest_checkpointed_iteration.txt").read_text())
    resumed = run(f"resume={folder}", f"trainer.total_training_steps={last + 2}", folder=folder)
    assert (
        (folder / "metrics.jsonl").read_text().startswith(first.rpartition("\n")[0])
    )  # the past is there
    assert sorted(s for s in resumed.metrics if s) == list(
        range(1, last + 3)
    )  # and the steps go on
    assert f"global step to {saved}" in resumed.log()
    assert len(json.loads((folder / "run.json").read_text())["attempts"]) == 2


@pytest.mark.usefixtures("tidy")
def test_verls_own_entry_point_repeats_a_run(run, tmp_path):
    """resolved.yaml is a complete config of verl: no launch.py, no environment; the run's folder stays as it is."""
    first = run("trainer.val_before_train=false", "trainer.test_freq=-1", "trainer.save_freq=1")
    before = {file: file.stat().st_mtime_ns for file in first.folder.rglob("*")}
    ours = ("VERL", "LAB", "RAY", "VLLM", "PYTHON")
    env = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    command = [sys.executable, "-m", "verl.trainer.main_ppo", "--config-path", first.folder,
               "--config-name", "resolved"]  # fmt: skip
    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        command, cwd=tmp_path / "elsewhere", env=env, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert before == {file: file.stat().st_mtime_ns for file in first.folder.rglob("*")}
    (again,) = (tmp_path / "elsewhere/outputs").glob("*/*")
    assert (again / "checkpoints/global_step_2/actor").is_dir()
    assert (again / "rollouts/2.jsonl").is_file()
    metrics = read_metrics(again / "metrics.jsonl")
    assert set(metrics) == {1, 2}
    name = "response_length/mean"  # the same seed, the same first batch
    assert metrics[1]["prompt_length/mean"] == first.at(1, "prompt_length/mean")
    assert metrics[1][name] == pytest.approx(first.at(1, name), rel=0.5)
