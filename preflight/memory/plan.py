"""Does a run fit? The memory of one GPU in each phase of a step, and what to change so that it fits.

verl's parts take turns on a GPU: vLLM generates, then sleeps; the actor computes log-probabilities and updates; the
weights go to vLLM, which wakes. What isn't offloaded stays meanwhile. memory.py has the sizes of the parts.
"""

from dataclasses import dataclass

from omegaconf import DictConfig

from preflight import machine
from preflight.memory.sizes import Setup, setup_of
from preflight.memory.training import GIB, ON_GPU, inference, training
from preflight.memory.vllm import Server

USABLE = 0.99  # of a GPU
FRAGMENTS = 0.06  # of what torch allocates in verl's process is lost between blocks: 5 to 8 % in a run on an H100
OUTSIDE = (  # what torch doesn't allocate there
    "contexts", "collectives", "fragments", "asleep", "graphs", "vLLM's weights", "vLLM's activations", "KV cache",
)  # fmt: skip
COLUMNS = {  # part → column of the table
    "weights": "weights", "optimizer": "optimizer", "optimizer's step": "optimizer", "gradients": "gradients",
    "activations": "activations", "logits": "logits", "gathered": "gathered", "vLLM's weights": "vLLM",
    "vLLM's activations": "vLLM", "KV cache": "KV cache",
}  # fmt: skip
NAMES = [*dict.fromkeys(COLUMNS.values()), "other"]
ON_CPU = {  # measured on runs of model=tiny with one worker and with two: everything but the tensors
    "processes": 2.4 * GIB,  # the system, verl, Ray, the queue, reward workers
    "worker": 1.3 * GIB,  # each worker with its vLLM
}
# The same of a trainer without Ray and vLLM.
ON_CPU_ALONE = {"processes": 0.9 * GIB, "worker": 0.35 * GIB}


@dataclass(frozen=True)
class Plan:
    """phases: of each its parts, in bytes. gpu: bytes of the device. concurrent: sequences in the KV cache at once."""

    phases: dict[str, dict[str, float]]
    gpu: float
    cuda: bool
    concurrent: float | None
    asked: int | None
    cache_tokens: int

    @property
    def peak(self) -> float:
        """Bytes of the largest phase."""
        return max(sum(parts.values()) for parts in self.phases.values())

    @property
    def worst(self) -> str:
        """The largest phase."""
        return max(self.phases, key=lambda phase: sum(self.phases[phase].values()))

    @property
    def largest(self) -> tuple[str, float]:
        """The largest part of the largest phase."""
        parts = self.phases[self.worst]
        return max(parts.items(), key=lambda part: part[1])

    @property
    def starves(self) -> bool:
        """vLLM refuses to start with room for less than one sequence."""
        return self.concurrent is not None and self.concurrent < 1

    @property
    def fits(self) -> bool:
        return not self.starves and self.peak <= USABLE * self.gpu


def device_bytes(config: DictConfig) -> float:
    """Of one GPU, or of the machine where the CPU is the device."""
    if config.lab.hw.device == "cpu":
        return machine.memory_gib() * GIB
    return config.lab.hw.memory_gib * GIB


def plan_of(config: DictConfig) -> Plan:
    """The plan of a composed config. Raises UnknownModel."""
    return plan(setup_of(config), device_bytes(config))


def plan(setup: Setup, gpu: float) -> Plan:
    """All phases of a step."""
    phases = on_gpu(setup, gpu) if setup.cuda else on_cpu(setup, gpu)
    server = setup.server
    return Plan(
        phases,
        gpu,
        setup.cuda,
        server and server.concurrent(gpu),
        server and server.sequences,
        setup.longest,
    )


def added(*parts: dict[str, float]) -> dict[str, float]:
    """The parts of all, added up by name."""
    total: dict[str, float] = {}
    for some in parts:
        for name, value in some.items():
            total[name] = total.get(name, 0) + value
    return {name: value for name, value in total.items() if value}


def allocated(parts: dict[str, float]) -> float:
    """Of a phase, what torch allocates in verl's own process."""
    return sum(value for name, value in parts.items() if name not in OUTSIDE)


def sync(setup: Setup) -> dict[str, float]:
    """Weights on their way to vLLM, one after the other; of an adapter's model all are loaded before."""
    actor, server = setup.actor, setup.server
    shape = actor.shape
    one = max(shape.embedding, shape.hidden * shape.intermediate) * actor.w
    sending = {
        "weights": actor.resident["weights"],
        "gathered": 0 if actor.rank else one * (1 + 1 / actor.shards),
        "buffer": setup.bucket,
    }
    moments = [sending, {"weights": actor.stored}] if actor.rank else [sending]
    waking = server.weights if server.sleeps else 0
    stays = {"optimizer": actor.resident["optimizer"], "vLLM's weights": waking}
    return added(stays, max(moments, key=lambda parts: sum(parts.values())))


def on_gpu(setup: Setup, gpu: float) -> dict[str, dict[str, float]]:
    """Phases of a step on one GPU."""
    actor, critic, server = setup.actor, setup.critic, setup.server
    several = ON_GPU["collectives"] if setup.workers > 1 else 0
    verl = {"contexts": ON_GPU["trainer"], "collectives": several}
    if server is None:
        phases = {"update": added(verl, training(actor))}
        if setup.reference:
            resident = {"weights": actor.stored, "optimizer": actor.optimizer}
            phases["reference"] = added(verl, resident, inference(setup.reference))
        return fragmented(phases)
    servers = [s for s in (server, setup.scorer) if s]

    def resting(some: list[Server]) -> dict[str, float]:
        return added(*({"asleep": ON_GPU["asleep"]} if s.sleeps else s.parts(gpu) for s in some))

    def generating(one: Server) -> dict[str, float]:
        return added(verl, stay, resting([s for s in servers if s is not one]), one.parts(gpu))

    base = added(verl, resting(servers))
    stay = added(*(e.resident for e in (actor, critic) if e))
    beside_actor = added(base, critic.resident if critic else {})
    beside_critic = added(base, actor.resident)
    phases = {"rollout": generating(server)}
    if setup.scorer:
        phases["reward model"] = generating(setup.scorer)
    phases["log-probs"] = added(
        beside_actor, {"optimizer": actor.resident["optimizer"]}, inference(actor)
    )
    if setup.reference:
        phases["reference"] = added(base, stay, inference(setup.reference))
    if critic:
        phases["values"] = added(
            beside_critic, {"optimizer": critic.resident["optimizer"]}, inference(critic)
        )
        phases["critic update"] = added(beside_critic, training(critic))
    phases["update"] = added(beside_actor, training(actor))
    phases["weight sync"] = added(beside_actor, sync(setup))
    return fragmented(phases)


def fragmented(phases: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """The phases, with what torch's allocator loses."""
    return {
        name: parts | {"fragments": FRAGMENTS * allocated(parts)} for name, parts in phases.items()
    }


def on_cpu(setup: Setup, memory: float) -> dict[str, dict[str, float]]:
    """The same where all workers share the computer's memory, and nothing leaves it."""
    engines = [e for e in (setup.actor, setup.reference, setup.critic) if e]
    stay = added(*({"weights": e.stored, "optimizer": e.optimizer} for e in engines))
    measured = ON_CPU if setup.server else ON_CPU_ALONE
    base = {"processes": measured["processes"] / setup.workers + measured["worker"]}
    served = added(*(s.parts(memory) for s in (setup.server, setup.scorer) if s))
    work = {"update": (setup.actor, training(setup.actor))}
    if setup.server:
        work["log-probs"] = (setup.actor, inference(setup.actor))
    if setup.critic:
        work["critic update"] = (setup.critic, training(setup.critic))
    phases = {}
    for name, (_, parts) in work.items():
        moving = {k: v for k, v in parts.items() if k not in ("weights", "optimizer")}
        each = added(base, stay, served, moving)
        phases[name] = {part: value * setup.workers for part, value in each.items()}
    return phases


def trainer_bytes(found: Plan) -> float:
    """The most that verl's own process allocates on a GPU, as it reports it; on a CPU all that the run takes."""
    if not found.cuda:
        return found.peak
    return max(map(allocated, found.phases.values()))


def table(found: Plan) -> str:
    """The plan for a person: a row a phase, GiB."""
    shown = [
        n for n in NAMES if any(column(parts, n) >= 0.005 * GIB for parts in found.phases.values())
    ]
    place = "of one GPU" if found.cuda else "of this machine"
    head = [f"GiB {place}", *shown, "sum"]
    rows = []
    for name, parts in found.phases.items():
        total = sum(parts.values())
        cells = [f"{v / GIB:.2f}" if (v := column(parts, c)) >= 0.005 * GIB else "-" for c in shown]
        rows.append([name + (" *" if name == found.worst else ""), *cells, f"{total / GIB:.2f}"])
    widths = [max(map(len, cells)) for cells in zip(head, *rows, strict=True)]
    lines = [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in [head, *rows]
    ]
    what, size = found.largest
    lines.append(f"\nlargest: {what} in {found.worst}, {size / GIB:.2f} GiB")
    if found.concurrent is not None:
        lines.append(f"the KV cache holds {found.concurrent:.0f} sequences of {found.cache_tokens} tokens at once"
                     f" (max_num_seqs {found.asked})")  # fmt: skip
    verdict = "fits" if found.fits else "DOES NOT FIT"
    lines.append(f"{verdict}: {found.peak / GIB:.2f} GiB of {found.gpu / GIB:.1f}")
    return "\n".join(lines)


def column(parts: dict[str, float], name: str) -> float:
    """Bytes of a column."""
    return sum(value for part, value in parts.items() if COLUMNS.get(part, "other") == name)


def told(found: Plan) -> str:
    """One line for a run that doesn't fit."""
    what, size = found.largest
    if found.starves:
        return (f"vLLM's share has room for {found.concurrent:.2f} sequences of {found.cache_tokens} tokens:"
                " it would not start.")  # fmt: skip
    place = "a GPU" if found.cuda else "this machine"
    return (f"{found.worst} needs {found.peak / GIB:.1f} GiB ({what}: {size / GIB:.1f}), and {place} has"
            f" {found.gpu / GIB:.1f}.")  # fmt: skip
