"""Does a run fit? The memory of one GPU in each phase of a step, and what to change so that it fits.

verl's parts take turns on a GPU: vLLM generates, then sleeps; the actor computes log-probabilities and updates; the
weights go to vLLM, which wakes. What isn't offloaded stays meanwhile. training.py and vllm.py have the sizes of the
parts.
"""

from dataclasses import dataclass

from omegaconf import DictConfig

from preflight import machine, tables
from preflight.memory.sizes import Setup, setup_of
from preflight.memory.training import GIB, ON_GPU, inference, training
from preflight.memory.vllm import Server

USABLE = 0.99  # of a GPU
FRAGMENTS = 0.06  # of what torch allocates in verl's process is lost between blocks: 5 to 8 % in a run on an H100
OUTSIDE = (  # what torch doesn't allocate there
    "contexts", "collectives", "fragments", "asleep", "graphs", "vLLM's weights", "vLLM's activations", "KV cache",
)  # fmt: skip
ROWS = {  # part → row of the table
    "weights": "weights", "optimizer": "optimizer", "optimizer's step": "optimizer", "gradients": "gradients",
    "activations": "activations", "logits": "logits", "gathered": "gathered", "vLLM's weights": "vLLM",
    "vLLM's activations": "vLLM", "KV cache": "KV cache",
}  # fmt: skip
NAMES = [*dict.fromkeys(ROWS.values()), "other"]
NOTHING, TERMINAL = "-", 80  # of the table: less than can be shown; characters of a line
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
        server.concurrent(gpu) if server else None,
        server.sequences if server else None,
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
    several = ON_GPU["collectives"] if setup.workers > 1 else 0
    verl = {"contexts": ON_GPU["trainer"], "collectives": several}
    return fragmented(beside_vllm(setup, gpu, verl) if setup.server else alone(setup, verl))


def alone(setup: Setup, verl: dict[str, float]) -> dict[str, dict[str, float]]:
    """Of a trainer without vLLM. verl: what its process takes in every phase."""
    actor = setup.actor
    phases = {"update": added(verl, training(actor))}
    if setup.reference:
        stays = {"weights": actor.stored, "optimizer": actor.optimizer}
        phases["reference"] = added(verl, stays, inference(setup.reference))
    return phases


def beside_vllm(setup: Setup, gpu: float, verl: dict[str, float]) -> dict[str, dict[str, float]]:
    """Of a trainer whose models take turns with vLLM's servers: in each phase one works, and all the others rest."""
    actor, critic = setup.actor, setup.critic
    actors, critics = actor.resident, critic.resident if critic else {}
    asleep = resting(setup, gpu)

    def works(*parts: dict[str, float]) -> dict[str, float]:
        """One of verl's models works, while the servers sleep."""
        return added(verl, asleep, *parts)

    def serves(server: Server) -> dict[str, float]:
        """One of the servers works, while verl's models rest."""
        return added(verl, actors, critics, resting(setup, gpu, but=server), server.parts(gpu))

    def optimizer(resident: dict[str, float]) -> dict[str, float]:
        """It stays where its model's weights are at work."""
        return {"optimizer": resident["optimizer"]}

    phases = {"rollout": serves(setup.server)}
    if setup.scorer:
        phases["reward model"] = serves(setup.scorer)
    phases["log-probs"] = works(critics, optimizer(actors), inference(actor))
    if setup.reference:
        phases["reference"] = works(actors, critics, inference(setup.reference))
    if critic:
        phases["values"] = works(actors, optimizer(critics), inference(critic))
        phases["critic update"] = works(actors, training(critic))
    phases["update"] = works(critics, training(actor))
    phases["weight sync"] = works(critics, sync(setup))
    return phases


def resting(setup: Setup, gpu: float, but: Server | None = None) -> dict[str, float]:
    """What vLLM's servers hold while none of them works, `but` aside."""
    servers = [s for s in (setup.server, setup.scorer) if s and s is not but]
    return added(*(s.asleep() if s.sleeps else s.parts(gpu) for s in servers))


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
    work = {"update": training(setup.actor)}
    if setup.server:
        work["log-probs"] = inference(setup.actor)
    if setup.critic:
        work["critic update"] = training(setup.critic)
    phases = {}
    for name, parts in work.items():
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
    """The plan for a person: a column a phase, a row a part, GiB; at most 80 characters a line in all but a few."""
    place = "one GPU" if found.cuda else "this machine"
    rows = [
        [name, *(gib(amount(parts, name)) for parts in found.phases.values())] for name in NAMES
    ]
    rows = [row for row in rows if any(cell != NOTHING for cell in row[1:])]
    rows.append(["sum", *(gib(sum(parts.values())) for parts in found.phases.values())])
    what, size = found.largest
    lines = [tables.text(["GiB", *found.phases], rows, TERMINAL), ""]
    lines += [f"largest phase: {found.worst}; largest part of it: {what}, {gib(size)} GiB"]
    if found.concurrent is not None:
        lines.append(f"the KV cache holds {found.concurrent:.0f} sequences of {found.cache_tokens} tokens at once"
                     f" (max_num_seqs {found.asked})")  # fmt: skip
    verdict = "fits" if found.fits else "DOES NOT FIT"
    lines.append(f"{verdict}: {gib(found.peak)} GiB of {place}'s {found.gpu / GIB:.1f}")
    return "\n".join(lines)


def gib(size: float) -> str:
    """Bytes as GiB, for the table."""
    return f"{size / GIB:.2f}" if size >= 0.005 * GIB else NOTHING


def amount(parts: dict[str, float], name: str) -> float:
    """Bytes of a row of the table in one phase."""
    return sum(value for part, value in parts.items() if ROWS.get(part, "other") == name)


def shortfall(found: Plan) -> str:
    """What is missing in a run that doesn't fit, in one line."""
    what, size = found.largest
    if found.starves:
        return (f"vLLM's share has room for {found.concurrent:.2f} sequences of {found.cache_tokens} tokens:"
                " it would not start.")  # fmt: skip
    place = "a GPU" if found.cuda else "this machine"
    return (f"{found.worst} needs {found.peak / GIB:.1f} GiB ({what}: {size / GIB:.1f}), and {place} has"
            f" {found.gpu / GIB:.1f}.")  # fmt: skip
