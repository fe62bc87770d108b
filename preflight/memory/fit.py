"""Changes that make a run fit: the shortest that helps, or with lab.plan=auto all that it leaves open.

A change is a key of lab.* and a value; conf/trainer maps it to verl's keys, and the plan is made of these anew. So
what the command line sets directly stays as it is.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import yaml
from omegaconf import DictConfig, OmegaConf

from preflight.checks.knobs import given
from preflight.facts import is_rl
from preflight.memory.plan import (
    GIB,
    USABLE,
    Plan,
    device_bytes,
    plan,
    plan_of,
    told,
)
from preflight.memory.sizes import setup_of
from preflight.models import Shape, UnknownModel
from preflight.names import CONF

Change = tuple[str, object]
TOKENS, SHARE, RANK = "lab.hw.tokens_per_gpu", "lab.hw.rollout_memory", "lab.lora_rank"
DTYPE = "lab.hw.weights_dtype"
LORA = 32
MANY = 4096  # tokens of a pass that keep a GPU busy
SHARES = [round(0.05 * k, 2) for k in range(18, 1, -1)]  # 0.9 to 0.1


def value(config: DictConfig, key: str):
    """Of a key, or None if it isn't there."""
    return OmegaConf.select(config, key)


def change(config: DictConfig, *changes: Change) -> list[Change]:
    """Make the changes; returns those that take them back."""
    back = [(key, value(config, key)) for key, _ in changes]
    for key, new in changes:
        OmegaConf.update(config, key, new)
    return back[::-1]


def longest(config: DictConfig) -> int:
    """Tokens of the longest sequence that must fit into one pass; of a pair, both."""
    if not is_rl(config):
        return config.data.max_length * config.lab.trainer.sequences
    return config.data.max_prompt_length + config.data.max_response_length


def shares(config: DictConfig) -> Iterator[list[Change]]:
    """Of the GPU for vLLM: the largest first."""
    if is_rl(config):
        yield from ([(SHARE, share)] for share in SHARES)


def fewer_tokens(config: DictConfig) -> Iterator[list[Change]]:
    """Half as many in a pass, and again, down to one sequence."""
    tokens, least = value(config, TOKENS), longest(config)
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


def shortest(config: DictConfig) -> list[Change] | None:
    """Changes that make it fit, cheapest first and none too many; None if nothing does. `config` stays as it is."""
    made: dict[str, object] = {}
    before: dict[str, object] = {}
    found = plan_of(config)

    def apply(changes: dict) -> Plan:
        change(config, *before.items())
        change(config, *changes.items())
        return plan_of(config)

    for step in STEPS:
        for changes in list(step(config)):
            if found.fits:
                break
            for key, _ in changes:
                before.setdefault(key, value(config, key))
            tried = apply(made | dict(changes))
            if excess(tried) < excess(found) - 1e-6:
                made, found = made | dict(changes), tried
        apply(made)
    if found.fits:
        for key in list(made):  # an earlier change may not be needed after a later one
            fewer = {k: v for k, v in made.items() if k != key}
            if apply(fewer).fits:
                made = fewer
    change(config, *before.items())
    return list(made.items()) if found.fits else None


def written(changes: list[Change]) -> str:
    """As on the command line."""
    return " ".join(
        f"{key}={str(new).lower() if isinstance(new, bool) else new}" for key, new in changes
    )


def refused(config: DictConfig) -> str | None:
    """Why a run can't fit, and what would help, in one line; None if it fits, or nothing is known of its model."""
    try:
        found = plan_of(config)
    except UnknownModel:
        return None
    if found.fits:
        return None
    if changes := shortest(config):
        hint = "" if config.lab.plan == "auto" else " (lab.plan=auto chooses)"
        return f"{told(found)} It fits with: {written(changes)}{hint}"
    smaller = next(smaller_models(config), None)
    return (f"{told(found)} No setting makes it fit: take a smaller model"
            f"{f' (model={smaller} would)' if smaller else ''}, shorter sequences, or more GPUs.")  # fmt: skip


def smaller_models(config: DictConfig) -> Iterator[str]:
    """Models of conf/model/ that would fit as the others are, the largest first."""
    now, sizes = setup_of(config).actor.shape.parameters(), {}
    for file in sorted((CONF / "model").glob("*.yaml")):
        model = yaml.safe_load(file.read_text())
        if "facts" in model and (size := Shape.of(model["facts"]).parameters()) < now:
            sizes.setdefault(size, (file.stem, model["path"]))
    for _, (name, path) in sorted(sizes.items(), reverse=True):
        back = change(config, ("lab.model.path", path))
        fitting = best_share(config)
        change(config, *back)
        if fitting:
            yield name


OFFLOADS = (
    [],
    [("lab.hw.optimizer_offload", True)],
    [("lab.hw.optimizer_offload", True), ("lab.hw.param_offload", True)],
)
NO_OFFLOAD = [("lab.hw.optimizer_offload", False), ("lab.hw.param_offload", False)]
MOST = 65536  # tokens of a pass: more does not make it faster


def tokens_of_update(config: DictConfig) -> int:
    """All that one GPU gets in an update, if every sequence is as long as it may be."""
    workers = config.trainer.nnodes * config.trainer.n_gpus_per_node
    if not is_rl(config):
        rows = config.data.train_batch_size
        return math.ceil(rows / workers) * longest(config)
    rows = config.actor_rollout_ref.actor.ppo_mini_batch_size * config.actor_rollout_ref.rollout.n
    return math.ceil(rows / workers) * longest(config)


def best_share(config: DictConfig) -> float | None:
    """The largest share of the memory for vLLM that fits; None if none does. Where there is no choice: as it is."""
    setup, gpu, now = setup_of(config), device_bytes(config), config.lab.hw.rollout_memory
    if setup.server is None or not setup.cuda or given(SHARE) or setup.server.share != now:
        return now if plan(setup, gpu).fits else None
    for share in SHARES:
        if plan(replace(setup, server=replace(setup.server, share=share)), gpu).fits:
            return share
    return None


def trainable(config: DictConfig) -> list[list[Change]]:
    """All weights, LoRA, LoRA on bf16 weights: what the command line leaves open of them."""
    ways, rank = [[]], config.lab.lora_rank
    if not rank and not given(RANK):
        ways.append([(RANK, LORA)])
    if (rank or len(ways) > 1) and config.lab.hw.weights_dtype != "bf16" and not given(DTYPE):
        ways.append([*ways[-1], (DTYPE, "bf16")])
    return ways


def choose(config: DictConfig) -> dict[str, str]:
    """lab.plan=auto: set what the command line leaves open so that the run fits and is fast.

    First of all weights or LoRA, and in which type, then what has to be offloaded, each only if it must be; then tokens
    a pass, as many as fit; then vLLM's share of the memory, as large as fits.

    Returns:
        of each key that it set: why. Empty if nothing fits, and then nothing is changed.
    """
    enough = min(MANY, tokens_of_update(config))
    most = min(MOST, max(longest(config), tokens_of_update(config)))
    cuda = config.lab.hw.device != "cpu"
    for way, least, offload in (
        (w, max(longest(config), n), o)
        for w in trainable(config)
        for n in (enough, 0)
        for o in (OFFLOADS if cuda else [[]])
    ):
        wanted = way + (NO_OFFLOAD if cuda else []) + offload + [(TOKENS, least)]
        wanted = [(key, new) for key, new in dict(wanted).items() if not given(key)]
        back = change(config, *wanted)
        if best_share(config):
            break
        change(config, *back)
    else:
        return {}
    why = {}
    reasons = {
        RANK: "all weights don't fit, with anything offloaded",
        DTYPE: "in fp32 they don't fit",
    }
    why |= {key: reasons[key] for key, _ in way}
    for key, new in offload:
        if (key, new) in wanted:
            why[key] = "without it there is too little room"
    for key, _ in NO_OFFLOAD if cuda else []:
        if key not in dict(offload) and not given(key):
            why[key] = "there is room without"
    if not given(TOKENS):
        fitting = [least]
        while fitting[-1] < most:
            change(config, (TOKENS, min(most, 2 * fitting[-1])))
            if not best_share(config):
                break
            fitting.append(config.lab.hw.tokens_per_gpu)
        change(config, (TOKENS, fitting[-1]))
        if fitting[-1] < most:
            why[TOKENS] = f"{min(most, 2 * fitting[-1])} don't fit"
        else:
            why[TOKENS] = "more are not faster" if most == MOST else "all of an update"
    if is_rl(config) and cuda and not given(SHARE):
        change(config, (SHARE, best_share(config)))
        why[SHARE] = "the largest that fits beside what stays"
    return {f"{key}={value(config, key)}": reason for key, reason in why.items()}
