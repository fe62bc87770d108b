"""A rough time of a step: operations of each phase over rates that were measured (a CPU) or assumed (rates.yaml).

Operations: 2 for each weight that a token meets, and 4 for each pair of positions and query of a layer; three times
as many with gradients, four times where activations are calculated again (Korthikanti et al., arXiv:2205.05198).
Generating is bound by memory: each step of it reads all weights and the cache (Pope et al., arXiv:2211.05102).
"""

import os
import textwrap
from dataclasses import dataclass
from pathlib import Path

import yaml
from omegaconf import DictConfig

from preflight.memory.sizes import Setup
from preflight.memory.training import Engine
from preflight.memory.vllm import Server

RATES = yaml.safe_load((Path(__file__).parent / "rates.yaml").read_text())
JOINED = "\N{NO-BREAK SPACE}"  # no line ends there


@dataclass(frozen=True)
class Estimate:
    """phases: seconds of each phase of a step. assumed: what it rests on."""

    phases: dict[str, float]
    assumed: str

    @property
    def step_s(self) -> float:
        """Seconds of a whole step."""
        return sum(self.phases.values())

    def text(self) -> str:
        """For a person: at most 80 characters a line."""
        phases = [f"{name} {round_s(seconds)}" for name, seconds in self.phases.items()]
        lines = [
            ", ".join(phase.replace(" ", JOINED) for phase in phases),
            f"assumed: {self.assumed}",
        ]
        wrapped = [
            textwrap.fill(line, 80, initial_indent="  ", subsequent_indent="  ") for line in lines
        ]
        return "\n".join([f"a step: about {round_s(self.step_s)}", *wrapped]).replace(JOINED, " ")


def round_s(seconds: float) -> str:
    """Two figures: more are not known."""
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def operations(e: Engine, tokens: float, length: float) -> float:
    """Of a pass without gradients over sequences of that length."""
    shape = e.shape
    weights = shape.active - (shape.embedding if e.head == "value" else 0)
    return tokens * (2 * weights + 4 * shape.layers * shape.q * length / 2)


def passes(setup: Setup, length: float) -> dict[str, tuple[float, float]]:
    """Of each phase with passes: (operations, times that a sequence goes through it)."""
    tokens, actor = setup.samples * length, setup.actor
    found: dict[str, tuple[float, float]] = {}

    def update(e: Engine) -> tuple[float, float]:
        times = 3 + e.checkpointing - bool(e.rank)  # frozen weights need no gradients
        return setup.epochs * times * operations(e, tokens, length), setup.epochs

    if setup.server:
        found["log-probs"] = (operations(actor, tokens, length), 1)
    if setup.reference or setup.in_actor:
        found["reference"] = (operations(setup.reference or actor, tokens, length), 1)
    if setup.critic:
        found["values"] = (operations(setup.critic, tokens, length), 1)
        found["critic update"] = update(setup.critic)
    found["update"] = update(actor)
    return found


def estimate(setup: Setup, config: DictConfig, concurrent: float | None) -> Estimate | None:
    """Seconds of a step; None where the profile doesn't say how fast the GPU is."""
    hw, length = config.lab.hw, RATES["fill"] * setup.longest
    if not setup.cuda:
        return on_cpu(setup, length)
    if not hw.bf16_tflops or not hw.memory_gb_s:
        return None
    return on_gpu(setup, length, Speed(hw.bf16_tflops * 1e12, hw.memory_gb_s * 1e9), concurrent)


def on_cpu(setup: Setup, length: float) -> Estimate:
    """All workers share the cores."""
    rates, cores = RATES["cpu"], len(os.sched_getaffinity(0))
    flops = rates["gflops"] * 1e9 * min(cores, setup.workers * (1 if setup.server else 2))
    phases = {
        name: ops / flops + times * setup.samples * rates["sequence_s"]
        for name, (ops, times) in passes(setup, length).items()
    }
    if setup.server:
        tokens = setup.samples * length
        generating = (
            operations(setup.actor, tokens, length) / flops + setup.samples * rates["sample_s"]
        )
        phases = {"rollout": generating} | phases | {"rest": rates["step_s"]}
    return Estimate(
        phases, f"sequences of {length:.0f} tokens on average, rates measured on 2 cores"
    )


@dataclass(frozen=True)
class Speed:
    """Of one GPU, by its data sheet. flops: operations a second in bf16. bandwidth: bytes a second of its memory."""

    flops: float
    bandwidth: float


def on_gpu(setup: Setup, length: float, speed: Speed, concurrent: float | None) -> Estimate:
    """All GPUs work alike. concurrent: sequences that vLLM's cache holds at once."""
    rates = RATES["cuda"]
    phases = {
        name: ops / all_gpus(setup, speed, "train_share" if "update" in name else "infer_share")
        for name, (ops, _) in passes(setup, length).items()
    }
    if setup.server:
        phases = {"rollout": rollout(setup, length, speed, concurrent)} | phases
    phases["rest"] = rest(setup)
    shares = f"{rates['train_share']:.0%} of the data sheet's TFLOP/s and {rates['decode_share']:.0%} of its GB/s"
    return Estimate(phases, f"sequences of {length:.0f} tokens on average, {shares}")


def all_gpus(setup: Setup, speed: Speed, share: str) -> float:
    """Operations a second of all GPUs together, with that share of rates.yaml."""
    return setup.workers * speed.flops * RATES["cuda"][share]


def rollout(setup: Setup, length: float, speed: Speed, concurrent: float | None) -> float:
    """Seconds that vLLM takes for all answers: it reads the prompts, then decodes token by token."""
    rates, server, answer = (
        RATES["cuda"],
        setup.server,
        RATES["fill"] * (setup.longest - setup.prompt),
    )
    replicas = max(1, setup.workers // server.parallel)
    samples = max(1.0, setup.samples / replicas)  # of one replica
    at_once = max(1.0, min(server.sequences, concurrent or 1.0, samples))
    prompts = operations(setup.actor, setup.samples * (length - answer), length)
    prefill_s = prompts / all_gpus(setup, speed, "infer_share")
    read = server.weights + at_once * server.token * (length - answer / 2)
    read_s = read / (speed.bandwidth * rates["decode_share"])
    tokens = answer * samples / at_once
    return tokens * max(launch_s(server), read_s) + prefill_s + setup.samples * rates["sample_s"]


def launch_s(server: Server) -> float:
    """Seconds of a step of decoding that no GPU makes shorter: scheduling, sampling, launching kernels."""
    rates = RATES["cuda"]
    if not server.eager:
        return rates["graphs_s"]
    return server.shape.layers * rates["eager_adapter_layer_s" if server.rank else "eager_layer_s"]


def rest(setup: Setup) -> float:
    """Seconds for what is offloaded on its way to the GPU and back, for vLLM's new weights, and for all else."""
    rates, actor = RATES["cuda"], setup.actor
    moved = 2 * (2 * actor.stored * actor.param_offload + actor.optimizer * actor.optimizer_offload)
    moved += setup.server.weights if setup.server else 0
    return moved / (rates["pci_gb_s"] * 1e9) + (rates["step_s"] if setup.server else 0)
