"""Run verl with vLLM within the memory of a smaller card, on a larger GPU, and compare each phase with the plan.

    python tests/bench/bench_gpu.py               # all points, into memory_runs_gpu.json (30 minutes, one 80 GB GPU)
    python tests/bench/bench_gpu.py rtx4070       # one of them

Models have random weights in their real shape. What the card lacks is taken from the GPU beforehand, so that a run
which needs more fails. Beside torch's own accounting (tests/bench/memory_probe.py) NVML is asked every 20 ms.
"""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import bench_memory

from launcher.metrics import read_metrics
from preflight import names, resolvers
from preflight.memory.plan import allocated, plan_of
from preflight.memory.training import GIB
from preflight.names import ROOT

FILE = ROOT / "tests/bench/memory_runs_gpu.json"
LIMIT_S = 600  # of one run: 292 were needed where vLLM compiles and captures graphs (1.5B, H200)
# Of the last step's metrics.
KEPT = ("timing_s/", "perf/", "actor/perf/", "prompt_length/", "response_length")
USUAL = [
    "algo=grpo", "reward=sql", "dataset=sql_demo", "data.max_prompt_length=256", "data.max_response_length=512",
    "data.train_batch_size=8", "actor_rollout_ref.rollout.n=8", "trainer.total_training_steps=2",
    "trainer.val_before_train=false", "trainer.test_freq=-1", "trainer.save_freq=-1",
]  # fmt: skip
RESIDENT = ["lab.hw.param_offload=false", "lab.hw.optimizer_offload=false"]
POINTS = {  # overrides over USUAL; the card is the profile's
    "rtx4070": ["hw=rtx4070", "model=qwen2_5_1_5b"],
    "rtx4090": ["hw=rtx4090", "model=qwen2_5_1_5b"],
    "rtx4080_full": ["hw=rtx4080", "model=qwen2_5_0_5b", "lab.lora_rank=0"],
    "rtx4090_full": ["hw=rtx4090", "model=qwen2_5_0_5b", "lab.lora_rank=0", "lab.hw.weights_dtype=fp32",
                     "actor_rollout_ref.actor.use_kl_loss=true", *RESIDENT],
    "rtx4090_ppo": ["hw=rtx4090", "model=qwen2_5_0_5b", "algo=ppo", "lab.lora_rank=0"],
    "h100_7b": ["hw=h100", "model=qwen2_5_7b", "lab.lora_rank=32", "lab.hw.attention=sdpa", "lab.hw.weights_dtype=bf16",
                "lab.hw.tokens_per_gpu=8192"],
}  # fmt: skip


def composed(overrides: list[str]):
    """The resolved config of a run."""
    resolvers.register()
    return names.composed([*USUAL, *overrides])


def save_model(facts: dict, folder: Path) -> None:
    """Random weights, and a tokenizer that knows each of the model's tokens."""
    from data_prep.__main__ import main as data_prep

    tiny = folder.with_suffix(".tiny")
    data_prep(["tiny_model", "--out", str(tiny)])
    bench_memory.save_model(facts | {"eos_token_id": 2, "pad_token_id": 0}, folder, tiny)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    words = tokenizer["model"]["vocab"]
    words |= {f"<{i}>": i for i in range(len(words), facts["vocab_size"])}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


class Memory:
    """NVML's count of the bytes that each process has on the GPU, while the block runs."""

    def __enter__(self):
        import pynvml

        pynvml.nvmlInit()
        self.gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
        self.samples: list[tuple[float, dict[int, int]]] = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        return self

    def watch(self) -> None:
        import pynvml

        while not self.stop.wait(0.02):
            running = pynvml.nvmlDeviceGetComputeRunningProcesses(self.gpu)
            self.samples.append((time.time(), {p.pid: p.usedGpuMemory for p in running}))

    def __exit__(self, *exc):
        self.stop.set()
        self.thread.join()

    def most(self, begin: float, end: float, of: set[int]) -> int:
        """The most bytes that some processes have at once between two times."""
        inside = [by for t, by in self.samples if begin <= t <= end]
        return max((sum(v for p, v in by.items() if p in of) for by in inside), default=0)


def run(name: str, work: Path) -> dict:
    """One point: what it takes in each phase, in bytes, and how long a step takes."""
    import torch
    from omegaconf import OmegaConf

    config = composed(POINTS[name])
    model = work / next(o for o in POINTS[name] if o.startswith("model=")).removeprefix("model=")
    if not model.exists():
        save_model(OmegaConf.to_container(config.lab.model.facts), model)
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    card = int(config.lab.hw.memory_gib * GIB)
    ballast = torch.empty(max(0, free - card), dtype=torch.uint8, device="cuda")
    probe, run_dir = work / f"{name}.jsonl", work / name
    probe.unlink(missing_ok=True)
    share = config.lab.hw.rollout_memory * min(card, total) / total
    overrides = [
        *POINTS[name],
        f"lab.hw.memory_gib={total / GIB}",
        f"lab.hw.rollout_memory={share}",
    ]
    own = [
        f"lab.model.path={model}", f"hydra.run.dir={run_dir}", f"+lab.env.LAB_MEMORY_PROBE={probe}",
        "lab.env.VERL_USE_EXTERNAL_MODULES='plugins.register,memory_probe'",
    ]  # fmt: skip
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(
            filter(None, [str(ROOT / "tests/bench"), os.getenv("PYTHONPATH")])
        )
    }
    with Memory() as memory, open(work / f"{name}.out", "w") as out:
        code = subprocess.run(
            ["timeout", str(LIMIT_S), sys.executable, "launch.py", *USUAL, *overrides, *own],
            cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, env=env,
        ).returncode  # fmt: skip
    del ballast
    marks = [json.loads(line) for line in probe.read_text().splitlines()] if probe.exists() else []
    steps = list(read_metrics(run_dir / "metrics.jsonl").values())
    (work / f"{name}.samples.json").write_text(json.dumps(memory.samples))
    return {
        "exit": code, "gpu": torch.cuda.get_device_name(), "total": total, "card": card, "overrides": overrides,
        "phases": phases(marks, memory), "step": kept(steps[-1]) if steps else None,
    }  # fmt: skip


def kept(step: dict) -> dict[str, float]:
    """Of a step's metrics, what says how long it took and for what."""
    return {key: value for key, value in step.items() if key.startswith(KEPT)}


def phases(marks: list[dict], memory: Memory) -> dict[str, dict[str, int]]:
    """Of each phase the peaks: of torch's allocator in verl's process; of all processes, of verl's, of vLLM's."""
    found: dict[str, dict[str, int]] = {}
    verl = {mark["pid"] for mark in marks}
    others = {p for _, by in memory.samples for p in by} - verl - {os.getpid()}

    def add(name: str, begin: float, end: float, **more: int) -> None:
        row = more | {
            "gpu": memory.most(begin, end, verl | others), "verl": memory.most(begin, end, verl),
            "vllm": memory.most(begin, end, others),
        }  # fmt: skip
        old = found.setdefault(name, row)
        found[name] = {key: max(value, old.get(key, 0)) for key, value in row.items()}

    def first(phase: str, begin: float, end: float, otherwise: float) -> float:
        return min(
            [m["begin"] for m in marks if m["phase"] == phase and begin < m["begin"] < end],
            default=otherwise,
        )

    work = [mark for mark in marks if "end" in mark]
    for mark in work:
        begin, end = mark["begin"], mark["end"]
        window = first("wake", begin, end, begin), first("cache", begin, end, end)
        add(mark["phase"], *window, allocated=mark["allocated"], reserved=mark["reserved"])
    for mark in marks:
        if mark["phase"] == "cache":
            later = [other["begin"] for other in work if other["begin"] > mark["begin"]]
            add("rollout", mark["begin"], min(later, default=mark["begin"] + 5))
    return found


def compared(name: str, found: dict) -> str:
    """Measured, predicted, and how far off: of the GPU, and of torch's allocator in verl's own process. GiB."""
    lines = [f"{name}: exit {found['exit']}, {found['gpu']}, {found['card'] / GIB:.1f} GiB of it"]
    for phase, parts in plan_of(composed(found["overrides"])).phases.items():
        measured = found["phases"].get(phase)
        if measured is None:
            lines.append(f"  {phase:<14} not measured")
            continue
        cells = [("GPU", measured["gpu"], sum(parts.values()))]
        if "allocated" in measured:
            cells.append(("allocated", measured["allocated"], allocated(parts)))
        more = [
            f"{k} {measured[k] / GIB:.2f}" for k in ("reserved", "verl", "vllm") if k in measured
        ]
        told = [f"{what} {m / GIB:.2f} ({p / GIB:.2f}, {p / m - 1:+.0%})" for what, m, p in cells]
        lines.append(f"  {phase:<14}" + "   ".join([*told, *more]))
    return "\n".join(lines)


def main(points: list[str]) -> None:
    """Measure the points that are named, or all."""
    work = Path(os.environ.get("OUT") or "outputs/bench_gpu").resolve()
    work.mkdir(parents=True, exist_ok=True)
    found = json.loads(FILE.read_text()) if FILE.exists() else {}
    for name in points or POINTS:
        found[name] = run(name, work)
        FILE.write_text(json.dumps(found, indent=1) + "\n")
        print(compared(name, found[name]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
