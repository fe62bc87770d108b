"""Settings that this run doesn't read, because of what else it is: another estimator, another loss, a LoRA."""

import os
import re
from collections.abc import Iterable, Iterator
from functools import cache

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from preflight.checks import Note, applies_to
from preflight.declared import is_not_verls
from preflight.engines import A
from preflight.estimators import mentions
from preflight.facts import STAGE, given, is_driver, is_rl
from preflight.names import CONF

ACTOR = f"{A}.actor"
OF_ESTIMATORS = ("gamma", "lam", "norm_adv_by_std_in_grpo")
OF_LOSSES = ("tau_pos", "tau_neg", "clip_ratio_c", "clip_ratio_low", "clip_ratio_high")
# key → another one, and the value with which the first is read
WITH = {
    f"{ACTOR}.optim.num_cycles": (f"{ACTOR}.optim.lr_scheduler_type", "cosine"),
    f"{ACTOR}.optim.min_lr_ratio": (f"{ACTOR}.optim.lr_scheduler_type", "cosine"),
    "critic.optim.num_cycles": ("critic.optim.lr_scheduler_type", "cosine"),
    "optim.num_cycles": ("optim.lr_scheduler_type", "cosine"),
    f"{ACTOR}.loss_scale_factor": (f"{ACTOR}.loss_agg_mode", "seq-mean-token-sum-norm"),
    f"{A}.hybrid_engine": ("trainer.v1.trainer_mode", "separate_async"),
    "algorithm.filter_groups.metric": ("algorithm.filter_groups.enable", True),
}  # fmt: skip
GREEDY = ("top_k", "top_p")
READ_BY_CODE = (
    "lab.run_dir",
    "lab.loggers",
    "lab.name",
    "lab.env",
    "lab.reward",
    "lab.hw.device",
    "lab.lora_rank",
)


@applies_to(is_rl)
def check_of_estimator(config: DictConfig) -> str | None:
    """Numbers of other estimators."""
    return dead(
        config, "algorithm", OF_ESTIMATORS, "compute_advantage", config.algorithm.adv_estimator
    )


@applies_to(is_rl)
def check_of_loss(config: DictConfig) -> Note | None:
    """Numbers of other losses: scripts carry them from one to the next, and they are only not read."""
    line = dead(
        config, ACTOR, OF_LOSSES, "compute_policy_loss", config[A].actor.policy_loss.loss_mode
    )
    return Note(line) if line else None


def dead(config: DictConfig, prefix: str, keys: Iterable[str], kind: str, name: str) -> str | None:
    """The line for those keys that were set and that the function `name` has nowhere in its source."""
    told = [
        f"{prefix}.{key}"
        for key in keys
        if is_not_verls(config, f"{prefix}.{key}") and mentions(kind, name, key) is False
    ]
    return f"{', '.join(told)} does nothing: {name} doesn't read it." if told else None


def check_with(config: DictConfig) -> str | None:
    """Settings that are read beside one value of another."""
    for key, (other, value) in WITH.items():
        have = OmegaConf.select(config, other)
        if is_not_verls(config, key) and have is not None and have != value:
            return f"{key} does nothing with {other}={have}: it is read with {value}."
    if not is_rl(config):
        return None
    for name in (f"{A}.rollout", f"{A}.rollout.val_kwargs"):
        node = OmegaConf.select(config, name)
        told = [f"{name}.{key}" for key in GREEDY if is_not_verls(config, f"{name}.{key}")]
        if told and node.temperature == 0:
            return f"{', '.join(told)} does nothing with {name}.temperature=0, which takes the likeliest token."
    return None


@cache
def mapped() -> frozenset[str]:
    """Keys of lab.* that the files of conf/trainer/ map to verl's."""
    text = "\n".join(file.read_text() for file in sorted((CONF / "trainer").rglob("*.yaml")))
    return frozenset(re.findall(r"\$\{(lab\.[\w.]+)\}", text))


def raw_nodes(node, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(key, text) of every interpolation in a config."""
    for key in node:
        child, path = node._get_node(key), f"{prefix}{key}"
        if child._is_interpolation():
            yield path, child._value()
        elif OmegaConf.is_dict(child) and not child._is_none():
            yield from raw_nodes(child, f"{path}.")


def other(value):
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value * 2 + 3
    return f"{value}_" if isinstance(value, str) else None


def check_unread_words(config: DictConfig) -> str | None:
    """A word of this project whose change would change none of verl's keys: another one is read in its place.

    In a stage of several, which get one command line, that is no mistake.
    """
    if is_driver(config):
        return None  # its stages read them
    if next(raw_nodes(config), None) is None:
        return None  # a run that goes on: its values are there, and nothing is calculated from these words any more
    set_here = [
        key for key in sorted(mapped()) if given(key) and OmegaConf.select(config, key) is not None
    ]
    told = [
        f"{key} does nothing in this run: {instead(config, key)}"
        for key in set_here
        if not changes(config, key)
    ]
    line = " ".join(told) or None
    return Note(line) if line and os.environ.get(STAGE) else line


def changes(config: DictConfig, key: str) -> bool:
    """Whether another value of `key` would change a key of verl's. A key that code reads, too, counts as read."""
    value = OmegaConf.select(config, key)
    if other(value) is None or key in READ_BY_CODE:
        return True
    users = [
        path for path, text in raw_nodes(config) if f"{{{key}}}" in text or f"{{{key}," in text
    ]
    before = {path: _select(config, path) for path in users}
    OmegaConf.update(config, key, other(value))
    try:
        return any(_select(config, path) != before[path] for path in users)
    finally:
        OmegaConf.update(config, key, value)


def _select(config: DictConfig, path: str):
    try:
        return OmegaConf.select(config, path)
    except (OmegaConfBaseException, TypeError, ValueError):
        return None


def instead(config: DictConfig, key: str) -> str:
    """Why: the keys that would take it, and what they take."""
    if key.startswith("lab.model.") and "_lr" in key:
        adapter = "_lora" if config.lab.lora_rank else ""
        stem = "rl_lr" if is_rl(config) else "sft_lr"
        return f"lab.model.{stem}{adapter} is read (lab.lora_rank={config.lab.lora_rank})."
    return "what it would set is set otherwise, or belongs to another algorithm."
