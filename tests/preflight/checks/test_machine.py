"""What preflight says about this machine, Ray, installed packages, columns and chat templates."""

import importlib.metadata
import json
import os
import shutil
import socket
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from preflight_helpers import RL_ROW, SFT_ROW, all_checks, caught, each

from preflight.checks import machine, ray

ADDRESS = "ray_kwargs.ray_init.address"
# check → cases: overrides, and what the line must say
MISTAKES = {
    "check_ray_address": [
        ([f"{ADDRESS}=somewhere"], "is neither HOST:PORT nor auto"),
        ([f"{ADDRESS}=127.0.0.1:1"], "doesn't answer. Start Ray there"),
        ([f"{ADDRESS}=ray://127.0.0.1:1"], "doesn't answer"),
    ],
    "check_ray_gpus": [(["trainer.n_gpus_per_node=2"], "need 2 GPUs, and Ray counts 1: set lab.hw.gpus_per_node")],
    "check_ray_nodes": [(["lab.hw.nodes=2"], f"needs a running Ray cluster: {ADDRESS}=HOST:PORT")],
    "check_ray_cpus": [
        (["lab.hw.ray_cpus=4"], "asks Ray for 5 CPUs (3 a GPU, 2 for the queue) and waits for ever where it has 4"),
        (["hw=cpu_x2", "lab.hw.ray_cpus=7"], "set lab.hw.ray_cpus=8"),
    ],
    "check_loggers": [(["logger=trackio"], "pip install trackio")],
    "check_one_node": [(["algo=sft", "trainer.nnodes=2"], "runs on one node")],
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


test_each_mistake_is_found = each(MISTAKES)


def test_a_cluster_that_answers(configure, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        joins = configure(f"{ADDRESS}={address}", "lab.hw.nodes=2")
        assert ray.check_ray_address(joins) is None and ray.check_ray_nodes(joins) is None
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert ray.check_ray_address(configure()) is None
    assert ray.check_ray_address(configure()).startswith("$RAY_ADDRESS=")
    assert ray.check_ray_address(configure(f"{ADDRESS}=auto")) is None
    assert ray.check_ray_cpus(configure("lab.hw.ray_cpus=1")) is None  # the cluster's are not known
    assert ray.check_ray_cpus(configure("algo=sft")) is None


def test_open_files(configure, monkeypatch):
    config = configure()
    for most, fits in ((1024, False), (65536, True), (ray.resource.RLIM_INFINITY, True)):
        monkeypatch.setattr(ray.resource, "getrlimit", lambda _, most=most: (256, most))
        if fits:
            assert ray.check_open_files(config) is None
        else:
            assert "a process may open 1024 files here" in caught("check_open_files", config)


def test_shared_memory(configure, monkeypatch, tmp_path, tiny_model):
    config, free = configure("hw=cpu_x2"), SimpleNamespace(f_bavail=1, f_frsize=2**20)
    assert ray.check_shared_memory(config) is None
    monkeypatch.setattr(os, "statvfs", lambda _: free)
    line = caught("check_shared_memory", config)
    assert "has 1 MiB free, and new weights on their way to vLLM need 3" in line
    assert "NCCL and vLLM need 512" in ray.check_shared_memory(configure("hw=h100x8"))
    assert ray.check_shared_memory(configure("hw=h100")) is None
    assert ray.check_shared_memory(configure("algo=sft")) is None


def test_a_machine_that_cannot_reach_itself(configure, monkeypatch):
    config = configure()
    assert ray.check_loopback(config) is None
    monkeypatch.setattr(ray, "reaches", lambda *_: False)
    assert "can't reach itself as localhost (a firewall" in caught("check_loopback", config)
    monkeypatch.undo()
    monkeypatch.setattr(ray, "own_address", lambda: "192.0.2.77")  # nobody's
    assert "can't reach itself as 192.0.2.77" in ray.check_loopback(config)
    assert ray.check_loopback(configure("algo=sft")) is None  # torchrun uses localhost alone


def test_packages_that_do_not_belong_together(configure, monkeypatch):
    from preflight.checks.machine import check_versions

    config = configure()
    assert check_versions(config) is None
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda n: "5.6.0" if n == "transformers" else version(n)
    )
    line = caught("check_versions", config)
    assert line.startswith("verl 0.9.1 needs transformers") and "5.6.0 is installed" in line
    other = configure("actor_rollout_ref.rollout.name=sglang")
    assert "not installed: sglang" in caught("check_packages", other)


def write(folder, name: str, row: dict) -> None:
    pq.write_table(pa.Table.from_pylist([row] * 64), folder / f"{name}.parquet")


def test_columns(configure, tmp_path):
    check, here = all_checks()["check_columns"], f"lab.dataset.dir={tmp_path}"
    for name in ("train", "val"):
        write(tmp_path, name, RL_ROW)
        write(tmp_path, f"sft_{name}", SFT_ROW)
    for overrides in ([], ["algo=sft"], ["reward=sql"], ["algo=dpo"]):
        assert check(configure(here, *overrides)) is None
    other = f"lab.dataset.sft_train={tmp_path}/train.parquet"
    assert "has no column messages (data.messages_key)" in caught(
        "check_columns", configure("algo=sft", other)
    )
    assert "has no column question (data.prompt_key)" in check(configure(here, "data.prompt_key=question"))  # fmt: skip
    write(tmp_path, "train", {"prompt": RL_ROW["prompt"]})
    assert "has no column reward_model, which the reward needs" in check(configure(here, "reward=sql"))  # fmt: skip
    assert "has no column data_source" in check(configure(here))
    assert check(configure(here, "reward=length")) is None
    (tmp_path / "train.parquet").write_text("{}")
    assert "is not a parquet file: `python -m data_prep convert" in check(configure(here))


def test_data_that_verl_has_no_reward_for(configure, tmp_path):
    check, here = all_checks()["check_data_source"], f"lab.dataset.dir={tmp_path}"
    for source, fits in (("openai/gsm8k", True), ("aime24", True), ("mine", False)):
        write(tmp_path, "train", RL_ROW | {"data_source": source})
        assert (check(configure(here)) is None) == fits
    assert "no reward for data_source='mine'" in caught("check_data_source", configure(here))
    assert check(configure(here, "reward=exact")) is None


def test_json_is_data_of_rl_alone(configure, tmp_path):
    check = all_checks()["check_columns"]
    (tmp_path / "rows.jsonl").write_text("{}")
    assert check(configure(f"lab.dataset.train={tmp_path}/rows.jsonl")) is None
    line = check(configure("algo=sft", f"lab.dataset.sft_train={tmp_path}/rows.jsonl"))
    assert "is not a parquet file" in line


def test_a_model_of_one_architecture(configure, tmp_path):
    check, here = all_checks()["check_architecture"], f"lab.model.path={tmp_path}"
    assert check(configure()) is None and check(configure("lab.model.path=org/unknown")) is None
    for named, fits in ((["A"], True), (["A", "B"], False), (None, False)):
        (tmp_path / "config.json").write_text(json.dumps({"architectures": named}))
        assert (check(configure(here)) is None) == fits
    assert "names no architectures" in caught("check_architecture", configure(here))


def test_a_model_without_a_chat_template(configure, tiny_model, tmp_path):
    check = all_checks()["check_chat_template"]
    assert check(configure()) is None and check(configure("lab.model.path=org/unknown")) is None
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    (model / "chat_template.jinja").unlink()
    here = f"lab.model.path={model}"
    assert "has no chat template" in caught("check_chat_template", configure(here))
    assert "set lab.model.chat_template=FILE" in check(configure(here, "algo=sft"))
    assert (
        check(configure(here, "actor_rollout_ref.model.custom_chat_template='{{messages}}'"))
        is None
    )
    no_text = "actor_rollout_ref.model.custom_chat_template=qwen.jinja"
    assert "is a template's text, and no file" in caught(
        "check_chat_template", configure(here, no_text)
    )
    assert check(configure(here, "lab.model.chat_template=chatml")) is None
    settings = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": "{{x}}"}))
    assert check(configure(here)) is None


def test_another_verl(configure, monkeypatch):
    monkeypatch.setattr(machine, "VERL", "0.8.0")
    assert "the files in conf/trainer are for 0.8.0" in caught("check_packages", configure())


def test_wandb_needs_a_key(said, monkeypatch, tmp_path):
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert "WANDB_MODE=offline" in said("logger=wandb")[0]
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert said("logger=wandb") == []


def test_what_a_gpu_profile_needs(configure, monkeypatch, tool):
    tool()
    assert "hw=cpu runs anywhere" in caught("check_gpus", configure("hw=rtx4070"))
    tool("nvidia-smi", "NVIDIA GeForce RTX 4060, 8188, 8.9, GPU-0")
    assert "and one here has 8 GiB" in caught("check_gpus", configure("hw=rtx4070"))
    assert "and there are 1: set lab.hw.gpus_per_node=1" in caught(
        "check_gpus", configure("hw=h100x8")
    )
    monkeypatch.setattr(machine, "has", lambda module: False)
    assert "lab.hw.attention=sdpa" in caught("check_flash_attention", configure("hw=h100x8"))
