"""What would help a run that doesn't fit: the shortest change, or a smaller model."""

import contextlib
from collections.abc import Callable, Iterator

import yaml
from omegaconf import DictConfig

from preflight.facts import is_rl
from preflight.memory.fit import (
    DTYPE,
    LORA,
    RANK,
    SHARE,
    SHARES,
    TOKENS,
    Change,
    best_share,
    change,
    value,
)
from preflight.memory.plan import GIB, USABLE, Plan, plan_of, shortfall
from preflight.memory.sizes import longest_of, setup_of
from preflight.models import Shape, UnknownModel, trained
from preflight.names import CONF


def shares(config: DictConfig) -> Iterator[list[Change]]:
    """Of the GPU for vLLM: the largest first."""
    if is_rl(config):
        yield from ([(SHARE, share)] for share in SHARES)


def fewer_tokens(config: DictConfig) -> Iterator[list[Change]]:
    """Half as many in a pass, and again, down to one sequence."""
    tokens, least = value(config, TOKENS), longest_of(config)
    while tokens > least:
        tokens = max(least, tokens // 2)
        yield [(TOKENS, tokens)]


def switch(key: str, *values) -> Callable:
    """A key that may get one of the values, the cheapest first."""

    def make(config: DictConfig) -> Iterator[list[Change]]:
        yield from ([(key, new)] for new in values if value(config, key) not in (None, new))

    return make


def chunks(config: DictConfig) -> Iterator[list[Change]]:
    """The entropy of log-probabilities a few tokens at a time; torch.compile does it without."""
    hw = config.lab.hw
    if is_rl(config) and hw.remove_padding and not hw.compile and not hw.entropy_chunk:
        yield [("lab.hw.entropy_chunk", 512)]


def split(config: DictConfig) -> Iterator[list[Change]]:
    """vLLM's model over several GPUs."""
    gpus = config.lab.hw.gpus_per_node
    yield from (
        [("lab.hw.tensor_parallel", n)] for n in (2, 4, 8) if gpus % n == 0 and is_rl(config)
    )


def adapter(config: DictConfig) -> Iterator[list[Change]]:
    """LoRA, then on bf16 weights."""
    if not config.lab.lora_rank:
        yield [(RANK, LORA)]
    yield [(RANK, config.lab.lora_rank or LORA), (DTYPE, "bf16")]


STEPS = (  # what costs least time first
    shares,
    chunks,
    fewer_tokens,
    switch("lab.hw.max_num_batched_tokens", 4096, 2048),
    switch("lab.hw.gradient_checkpointing", True),
    switch("lab.hw.optimizer_offload", True),
    switch("lab.hw.param_offload", True),
    split,
    adapter,
)


def excess(found: Plan) -> float:
    """How far from fitting: GiB over the limit of all phases, and the room that the cache lacks."""
    over = sum(max(0.0, sum(p.values()) - USABLE * found.gpu) for p in found.phases.values()) / GIB
    return over + (100 * (1 - found.concurrent) if found.starves else 0)


class Trial:
    """Changes that are tried on a config, which gets its own values back at the end.

    made: those that help so far. plan: with these.
    """

    def __init__(self, config: DictConfig, found: Plan):
        self.config, self.plan = config, found
        self.made: dict[str, object] = {}
        self.before: dict[str, object] = {}  # of every key that was tried

    def set(self, changes: dict[str, object]) -> None:
        """These changes and no others."""
        change(self.config, *self.before.items())
        change(self.config, *changes.items())

    def plan_with(self, changes: dict[str, object]) -> Plan:
        """The plan with these changes and no others."""
        for key in changes:
            self.before.setdefault(key, value(self.config, key))
        self.set(changes)
        return plan_of(self.config)

    def keep_if_better(self, changes: list[Change]) -> None:
        """Add these to what is made, if they bring the run nearer to fitting."""
        more = self.made | dict(changes)
        tried = self.plan_with(more)
        if excess(tried) < excess(self.plan) - 1e-6:
            self.made, self.plan = more, tried

    def drop_what_is_not_needed(self) -> None:
        """An earlier change may not be needed after a later one."""
        for key in list(self.made):
            fewer = {k: new for k, new in self.made.items() if k != key}
            if self.plan_with(fewer).fits:
                self.made = fewer


def shortest(config: DictConfig, found: Plan) -> list[Change] | None:
    """Changes that make it fit, cheapest first and none too many; None if nothing does. `config` stays as it is.

    Args:
        found: the plan of `config`, which doesn't fit.
    """
    trial = Trial(config, found)
    for step in STEPS:
        for changes in list(step(config)):
            if trial.plan.fits:
                break
            trial.keep_if_better(changes)
        trial.set(trial.made)  # the next step begins with these
    if trial.plan.fits:
        trial.drop_what_is_not_needed()
    trial.set({})
    return list(trial.made.items()) if trial.plan.fits else None


def written(changes: list[Change]) -> str:
    """As on the command line."""
    return " ".join(
        f"{key}={str(new).lower() if isinstance(new, bool) else new}" for key, new in changes
    )


def refusal(config: DictConfig, found: Plan) -> str | None:
    """Why a run can't fit, and what would help, in one line; None if it fits. `config` stays as it is.

    Args:
        found: the plan of `config`.
    """
    if found.fits:
        return None
    if changes := shortest(config, found):
        hint = "" if config.lab.plan == "auto" else " (lab.plan=auto chooses)"
        return f"{shortfall(found)} It fits with: {written(changes)}{hint}"
    smaller = next(smaller_models(config), None)
    return (f"{shortfall(found)} No setting makes it fit: take a smaller model"
            f"{f' (model={smaller} would)' if smaller else ''}, shorter sequences, or more GPUs.")  # fmt: skip


def smaller_models(config: DictConfig) -> Iterator[str]:
    """Models of conf/model/ that would fit as all else is: those of its family first, and the largest first."""
    now = setup_of(config).actor.shape.parameters()
    sizes = dict(shipped_sizes())
    names = {path: name for name, (path, _) in sizes.items()}
    mine = names.get(trained(config), "").split("_")

    def rank(name: str) -> tuple[bool, int, int]:
        words = name.split("_")  # qwen2_5_coder_7b
        return words[0] == mine[0], sizes[name][1], len({*words} & {*mine})

    for name in sorted((n for n, (_, size) in sizes.items() if size < now), key=rank, reverse=True):
        back = change(config, ("lab.model.path", sizes[name][0]))
        fitting = best_share(config)
        change(config, *back)
        if fitting:
            yield name


def shipped_sizes() -> Iterator[tuple[str, tuple[str, int]]]:
    """Of each model of conf/model/ whose sizes are known: its name, its path and its parameters."""
    for file in sorted((CONF / "model").glob("*.yaml")):
        model = yaml.safe_load(file.read_text())
        with contextlib.suppress(UnknownModel):
            if "facts" in model:
                yield file.stem, (model["path"], Shape.of(model["facts"]).parameters())
