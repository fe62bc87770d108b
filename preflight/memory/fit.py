"""lab.plan=auto: what the command line leaves open is set so that a run fits and is fast.

A change is a key of lab.* and a value; conf/trainer maps it to verl's keys, and the plan is made of these anew. So
what the command line sets directly stays as it is.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from preflight.facts import given, is_rl
from preflight.memory.plan import device_bytes, plan
from preflight.memory.sizes import longest_of, setup_of, workers_of

Change = tuple[str, Any]
TOKENS, SHARE, RANK = "lab.hw.tokens_per_gpu", "lab.hw.rollout_memory", "lab.lora_rank"
DTYPE = "lab.hw.weights_dtype"
LORA = 32
MANY = 4096  # tokens of a pass that keep a GPU busy
MOST = 65536  # tokens of a pass: more does not make it faster
SHARES = [round(0.05 * k, 2) for k in range(18, 1, -1)]  # 0.9 to 0.1
OFFLOADS: tuple[list[Change], ...] = (
    [],
    [("lab.hw.optimizer_offload", True)],
    [("lab.hw.optimizer_offload", True), ("lab.hw.param_offload", True)],
)
NO_OFFLOAD = [("lab.hw.optimizer_offload", False), ("lab.hw.param_offload", False)]
WHY = {RANK: "all weights don't fit, even offloaded", DTYPE: "in fp32 they don't fit"}


def value(config: DictConfig, key: str):
    """Of a key, or None if it isn't there."""
    return OmegaConf.select(config, key)


def change(config: DictConfig, *changes: Change) -> list[Change]:
    """Make the changes; returns those that take them back."""
    back = [(key, value(config, key)) for key, _ in changes]
    for key, new in changes:
        OmegaConf.update(config, key, new)
    return back[::-1]


def tokens_of_update(config: DictConfig) -> int:
    """All that one GPU gets in an update, if every sequence is as long as it may be."""
    rows = config.data.train_batch_size
    if is_rl(config):
        policy = config.actor_rollout_ref
        rows = policy.actor.ppo_mini_batch_size * policy.rollout.n
    return math.ceil(rows / workers_of(config)) * longest_of(config)


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


def on_gpu(config: DictConfig) -> bool:
    """Whether there is a GPU's memory to be shared, from which something can be offloaded."""
    return config.lab.hw.device != "cpu"


def ways(config: DictConfig) -> Iterator[tuple[list[Change], list[Change], int]]:
    """(what is trained, what is offloaded, tokens of a pass at least), the fastest and best first."""
    longest, enough = longest_of(config), min(MANY, tokens_of_update(config))
    for trained in trainable(config):
        for tokens in (max(longest, enough), longest):
            for offloaded in OFFLOADS if on_gpu(config) else [[]]:
                yield trained, offloaded, tokens


def first_way_that_fits(config: DictConfig) -> dict[str, str] | None:
    """Set it, as far as the command line leaves it open; why, by key. None: nothing fits, nothing is changed."""
    usual = NO_OFFLOAD if on_gpu(config) else []
    for trained, offloaded, tokens in list(ways(config)):
        wanted = dict([*trained, *usual, *offloaded, (TOKENS, tokens)])
        back = change(config, *((key, new) for key, new in wanted.items() if not given(key)))
        if best_share(config):
            break
        change(config, *back)
    else:
        return None
    why = {key: WHY[key] for key, _ in trained}
    why |= {key: "without it there is too little room" for key, _ in offloaded if not given(key)}
    rest = [key for key, _ in usual if key not in dict(offloaded) and not given(key)]
    return why | dict.fromkeys(rest, "there is room without")


def more_tokens(config: DictConfig) -> dict[str, str]:
    """Twice as many in a pass, and again, while that fits and is faster."""
    if given(TOKENS):
        return {}
    fits, most = value(config, TOKENS), tokens_of_update(config)
    most = min(MOST, max(longest_of(config), most))
    while fits < most:
        more = min(most, 2 * fits)
        change(config, (TOKENS, more))
        if not best_share(config):
            change(config, (TOKENS, fits))
            return {TOKENS: f"{more} don't fit"}
        fits = more
    return {TOKENS: "more are not faster" if most == MOST else "all of an update"}


def largest_share(config: DictConfig) -> dict[str, str]:
    """Of the GPU's memory for vLLM."""
    if not is_rl(config) or not on_gpu(config) or given(SHARE):
        return {}
    change(config, (SHARE, best_share(config)))
    return {SHARE: "the largest that fits beside what stays"}


def choose(config: DictConfig) -> dict[str, str]:
    """lab.plan=auto: set in `config` what the command line leaves open, so that the run fits and is fast.

    First of all weights or LoRA, and in which type, then what has to be offloaded, each only if it must be; then tokens
    a pass, as many as fit; then vLLM's share of the memory, as large as fits.

    Returns:
        of each key that it set, as `key=value`: why. Empty if nothing fits, and then nothing is changed.

    Raises UnknownModel.
    """
    why = first_way_that_fits(config)
    if why is None:
        return {}
    why |= more_tokens(config)
    why |= largest_share(config)
    return {f"{key}={value(config, key)}": reason for key, reason in why.items()}
