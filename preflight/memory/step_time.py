"""A rough time of a step: operations of each phase over rates that were measured (a CPU) or assumed (rates.yaml).

Operations: 2 for each weight that a token meets, and 4 for each pair of positions and query of a layer; three times
as many with gradients, four times where activations are calculated again (Korthikanti et al., arXiv:2205.05198).
Generating is bound by memory: each step of it reads all weights and the cache (Pope et al., arXiv:2211.05102).
"""

import os
from dataclasses import dataclass
from pathlib import Path

import yaml
from omegaconf import DictConfig

from preflight.memory.sizes import Setup
from preflight.memory.training import Engine

RATES = yaml.safe_load((Path(__file__).parent / "rates.yaml").read_text())


@dataclass(frozen=True)
class Estimate:
    """phases: seconds of each phase of a step. assumed: what it rests on."""

    phases: dict[str, float]
    assumed: str

    @property
    def step_s(self) -> float:
        return sum(self.phases.values())


def operations(e: Engine, tokens: float, length: float) -> float:
    """Of a pass without gradients over sequences of that length."""
    shape = e.shape
    weights = shape.active - (shape.embedding if e.head == "value" else 0)
    return tokens * (2 * weights + 4 * shape.layers * shape.q * length / 2)


def passes(setup: Setup, length: float) -> dict[str, tuple[float, float]]:
    """Of each phase with passes: (operations, times that a sequence goes through it)."""
    tokens, actor, found = setup.samples * length, setup.actor, {}

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
    return on_gpu(setup, length, hw.bf16_tflops * 1e12, hw.memory_gb_s * 1e9, concurrent)


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


def on_gpu(
    setup: Setup, length: float, flops: float, bandwidth: float, concurrent: float | None
) -> Estimate:
    """All GPUs work alike."""
    rates, workers, server, actor = RATES["cuda"], setup.workers, setup.server, setup.actor
    phases = {}
    for name, (ops, _) in passes(setup, length).items():
        share = rates["train_share" if "update" in name else "infer_share"]
        phases[name] = ops / (workers * flops * share)
    moved = 2 * (actor.stored * actor.param_offload * 2 + actor.optimizer * actor.optimizer_offload)
    if server:
        answer = RATES["fill"] * (setup.longest - setup.prompt)
        replicas = max(1, workers // server.parallel)
        share = max(1.0, setup.samples / replicas)
        at_once = max(1.0, min(server.sequences, concurrent or 1.0, share))
        reads = server.weights + at_once * server.token * (length - answer / 2)
        steps = answer * share / at_once
        prompts = operations(actor, setup.samples * (length - answer), length) / (
            workers * flops * rates["infer_share"]
        )
        launching = (
            actor.shape.layers * rates["eager_layer_s"] if server.eager and server.rank else 0
        )
        decoding = steps * max(launching, reads / (bandwidth * rates["decode_share"]))
        phases = {"rollout": decoding + prompts + setup.samples * rates["sample_s"]} | phases
        moved += server.weights
    phases["rest"] = moved / (rates["pci_gb_s"] * 1e9) + (rates["step_s"] if server else 0)
    return Estimate(
        phases,
        f"sequences of {length:.0f} tokens on average, {rates['train_share']:.0%} of the data sheet's TFLOP/s and"
        f" {rates['decode_share']:.0%} of its GB/s",
    )
