"""Measure what an update and a pass without gradients take, by torch's own accounting, and write it down.

    python tests/bench/bench_memory.py                # all points, into memory_points.json (20 minutes, 12 GB)
    python tests/bench/bench_memory.py small_lora     # one of them
    python tests/bench/bench_memory.py gpu            # those of a GPU with 80 GB, into memory_points_gpu.json

Each point runs verl's own FSDP2 engine with random weights and tokens. On the CPU torch's profiler notes each
allocation; a GPU's allocator counts them itself. tests/preflight/memory/test_memory.py compares the files with what
preflight/memory/training.py predicts.
"""

import contextlib
import gc
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from memory_settings import POINTS, POINTS_GPU

from preflight.memory import training as memory
from preflight.models import Shape
from preflight.names import ROOT

warnings.filterwarnings("ignore")
AT_ONCE = 4  # points on one GPU: each counts its own
FILE, FILE_GPU = (
    ROOT / "tests/bench/memory_points.json",
    ROOT / "tests/bench/memory_points_gpu.json",
)


def engine_of(facts: dict, settings: dict, sequences: tuple[int, int]):
    """The prediction's Engine for a point."""
    count, length = sequences
    usual = {"c": 4, "checkpointing": False, "packed": False, "foreach": False, "cuda": False}
    settings = usual | settings
    settings.setdefault("softmax", settings["c"])
    tokens = count // settings.get("passes", 1) * length
    return memory.Engine(
        Shape.of(facts), flash=False, masked=settings["packed"], longest=length, tokens=tokens, infer_tokens=tokens,
        **settings,
    )  # fmt: skip


class AccountingOnGpu:
    """Bytes allocated and freed inside the block: `peak` and `end`, relative to its begin."""

    def __enter__(self):
        import torch

        gc.collect()
        torch.cuda.reset_peak_memory_stats()
        self.begin = torch.cuda.memory_allocated()
        return self

    def __exit__(self, *exc):
        import torch

        torch.cuda.synchronize()
        self.peak = torch.cuda.max_memory_allocated() - self.begin
        self.end = torch.cuda.memory_allocated() - self.begin


class Accounting:
    """The same on a CPU."""

    def __enter__(self):
        import torch

        gc.collect()  # what an earlier point left must not end inside
        self.profiler = torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
        )
        self.profiler.__enter__()
        return self

    def __exit__(self, *exc):
        self.profiler.__exit__(*exc)
        events = self.profiler.profiler.kineto_results.events()
        self.peak = self.end = 0
        for _, size in sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"):
            self.end += size
            self.peak = max(self.peak, self.end)


def save_model(facts: dict, folder: Path, tokenizer: Path) -> None:
    """Random weights of that shape, with some tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(**facts)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    for file in tokenizer.iterdir():
        if file.name.startswith("tokenizer") or file.suffix == ".jinja":
            shutil.copy(file, folder)


def measure(
    facts: dict, settings: dict, sequences: tuple[int, int], tokenizer: Path
) -> dict[str, int]:
    """{parameters: count, stored, optimizer, update, inference: bytes}; the last two are peaks, with all that stays."""
    import torch
    from tensordict import TensorDict
    from verl.trainer.config import CheckpointConfig
    from verl.utils import tensordict_utils as tu
    from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig
    from verl.workers.engine.base import EngineRegistry

    e = engine_of(facts, settings, sequences)
    accounting = AccountingOnGpu if e.cuda else Accounting
    names = {4: "fp32", 2: "bf16"}
    with tempfile.TemporaryDirectory() as folder:
        save_model(facts, Path(folder), tokenizer)
        kind = "language_model" if e.head == "lm" else "value_model"
        model = HFModelConfig(
            path=folder, use_remove_padding=e.packed, enable_gradient_checkpointing=e.checkpointing, lora_rank=e.rank,
            lora_alpha=16, target_modules="all-linear", override_config={"attn_implementation": "sdpa"},
        )  # fmt: skip
        model.model_type = kind
        with accounting() as loading:
            engine = EngineRegistry.new(
                model_type=kind, backend="fsdp2", model_config=model,
                engine_config=FSDPEngineConfig(
                    strategy="fsdp2", model_dtype=names[e.w], use_torch_compile=e.compiled,
                    entropy_from_logits_with_chunking=e.chunk is not None,
                    entropy_from_logits_chunk_size=e.chunk or 2048,
                    mixed_precision={"param_dtype": names[e.c], "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
                ),
                optimizer_config=FSDPOptimizerConfig(
                    lr=1e-5, total_training_steps=10,
                    override_optimizer_config={"foreach": True} if e.foreach else None,
                ),
                checkpoint_config=CheckpointConfig(),
            )  # fmt: skip
            engine.initialize()
    count, length = sequences

    def batch(rows: int) -> TensorDict:
        def nested(make):
            return torch.nested.as_nested_tensor([make() for _ in range(rows)], layout=torch.jagged)

        data = TensorDict(
            {
                "input_ids": nested(lambda: torch.randint(0, 400, (length,))),
                "position_ids": nested(lambda: torch.arange(length)),
                "loss_mask": nested(lambda: torch.ones(length)),
            },
            batch_size=[rows],
        )
        tu.assign_non_tensor(
            data, temperature=0.7 if e.scaled else 1.0, use_remove_padding=e.packed, use_dynamic_bsz=True,
            max_token_len_per_gpu=e.tokens, use_fused_kernels=False, pad_token_id=0,
        )  # fmt: skip
        return data

    def loss(model_output, data, dp_group):
        if e.head == "value":
            return model_output["values"].values().mean(), {}
        value = -model_output["log_probs"].values().mean()
        return value - (0.01 * model_output["entropy"].values().mean() if e.entropy else 0), {}

    for _ in range(2):  # the optimizer's state comes with the first
        data = batch(count)
        tu.assign_non_tensor(data, calculate_entropy=e.entropy)
        with engine.train_mode(), accounting() as update:
            engine.train_batch(data, loss_function=loss)
    data = batch(count // e.passes)
    tu.assign_non_tensor(data, calculate_entropy=True)
    with engine.eval_mode(), accounting() as inference:
        engine.infer_batch(data)
    moments = [
        v.to_local() if hasattr(v, "to_local") else v
        for s in engine.optimizer.state.values()
        for v in s.values()
    ]
    optimizer = sum(m.nbytes for m in moments)
    return {
        "parameters": sum(p.numel() for p in engine.module.parameters()),
        "stored": loading.end,
        "optimizer": optimizer,
        "update": loading.end + optimizer + update.peak,
        "inference": loading.end + inference.peak,
    }


def alone(name: str) -> dict[str, int]:
    """A point in a process of its own: what an earlier one left would be freed inside."""
    gpu = name in POINTS_GPU
    shards = 1 if gpu else POINTS[name][1].get("shards", 1)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={shards}",
        __file__,
    ]
    platform = "nvidia" if gpu else "cpu"
    env = os.environ | {"VERL_PLATFORM": platform, "VERL_USE_EXTERNAL_MODULES": "plugins.register"}
    done = subprocess.run([*command, name], capture_output=True, text=True, cwd=ROOT, env=env)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr}")
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))


def main(names: list[str]) -> None:
    """Measure all points and write them, or those that are named; under torchrun one."""
    if "RANK" in os.environ:
        under_torchrun(names[0])
        return
    if names == ["gpu"]:
        names = list(POINTS_GPU)
    gpu = bool(names) and names[0] in POINTS_GPU
    file = FILE_GPU if gpu else FILE
    found = json.loads(file.read_text()) if names and file.exists() else {}
    with ThreadPoolExecutor(AT_ONCE if gpu else 1) as pool:
        for name, one in [(name, pool.submit(alone, name)) for name in names or POINTS]:
            try:
                found[name] = one.result()
            except RuntimeError as error:
                print(error, flush=True)
                continue
            print(f"{name:<26}{compared(name, found[name])}", flush=True)
            file.write_text(json.dumps(found, indent=1) + "\n")


def under_torchrun(name: str) -> None:
    """Measure a point in this process, print it as JSON."""
    import torch.distributed as dist

    from data_prep.__main__ import main as data_prep

    dist.init_process_group("cpu:gloo,cuda:nccl" if name in POINTS_GPU else "gloo")
    with tempfile.TemporaryDirectory() as tokenizer, contextlib.redirect_stdout(io.StringIO()):
        data_prep(["tiny_model", "--out", f"{tokenizer}/tiny"])
        found = measure(*(POINTS | POINTS_GPU)[name], Path(tokenizer) / "tiny")
    if dist.get_rank() == 0:
        print(json.dumps(found))
    dist.barrier()


def compared(name: str, measured: dict[str, int]) -> str:
    """Measured and predicted, in MiB."""
    e = engine_of(*(POINTS | POINTS_GPU)[name])
    predicted = {
        "stored": e.stored, "optimizer": e.optimizer, "update": sum(memory.training(e).values()),
        "inference": sum(memory.inference(e).values()),
    }  # fmt: skip
    return "  ".join(
        f"{k} {measured[k] / 2**20:.1f} {v / 2**20:.1f} {v / measured[k] - 1:+.1%}"
        for k, v in predicted.items()
    )


if __name__ == "__main__":
    main(sys.argv[1:])
