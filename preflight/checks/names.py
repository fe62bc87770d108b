"""Names inside the config: estimators, losses, loggers, unknown and ignored keys."""

import copy
import functools

from omegaconf import DictConfig, OmegaConf

from plugins import algos
from preflight.checks import DEFAULT, SLOW, checks, skipped
from preflight.estimators import registered
from preflight.facts import choice, is_rl, verl_folder
from preflight.mistakes import nearest, unknown
from preflight.names import CONF

IGNORED = {  # keys of old releases that verl 0.9 parses and never reads
    "custom_reward_function": "reward.custom_reward_function",
    "reward_model": "reward.reward_model",
    "sandbox_fusion": "reward.sandbox_fusion",
}
OURS = {  # keys that verl reads with .get(), passes on to Ray, or that are ours
    "lab", "trainer.wandb_proxy", "trainer.rl_insight", "trainer.remove_previous_ckpt_in_save",
    "ray_kwargs.ray_init", "reward.custom_reward_function.reward_kwargs", "reward.reward_kwargs",
    "data.apply_chat_template_kwargs", "data.mm_processor_kwargs", "data.sampler", "data.datagen",
    "algorithm.gdpo_reward_keys", "algorithm.gdpo_reward_weights",
}  # fmt: skip


def check_skip(config: DictConfig) -> str | None:
    """Names of checks that are left out."""
    if not skipped(config):
        return None
    known = [name.removeprefix("check_") for name in [*checks(DEFAULT), *checks(SLOW)]]
    for name in sorted(name.removeprefix("check_") for name in skipped(config)):
        if name not in known:
            near = nearest(name, known)
            return (
                f"unknown check {name!r} in lab.preflight.skip.{near} `make check` lists them all."
            )
    return None


def unregistered(config: DictConfig, key: str, function: str) -> str | None:
    """The value of `key`, if no function of that kind has this name."""
    name, known = OmegaConf.select(config, key), registered(function)
    return unknown(key, name, known) if name and name not in known else None


def check_estimator(config: DictConfig) -> str | None:
    """verl looks the estimator up after the first rollouts, and then doesn't say which there are."""
    return unregistered(config, "algorithm.adv_estimator", "compute_advantage")


def check_policy_loss(config: DictConfig) -> str | None:
    """The same for the loss."""
    key = "actor_rollout_ref.actor.policy_loss.loss_mode"
    return unregistered(config, key, "compute_policy_loss")


def check_ignored_keys(config: DictConfig) -> str | None:
    """Keys that verl takes and never looks at."""

    def values(node):
        for key in node:
            child = node[key]
            yield from values(child) if isinstance(child, DictConfig) else [child]

    for old, new in IGNORED.items():
        if old in config and any(value is not None for value in values(config[old])):
            return f"{old}.*: verl 0.9 ignores it. Use {new}.* instead."
    return None


@functools.cache
def verls_tree(rl: bool) -> DictConfig:
    """verl's own config tree of a kind of trainer."""
    base = verl_folder() / "trainer/config"
    if rl:
        return OmegaConf.load(base / "_generated_ppo_trainer.yaml")
    tree = OmegaConf.load(base / "sft_trainer_engine.yaml")
    groups = {"model": "hf_model", "engine": "fsdp", "optim": "fsdp", "profiler": "profiler"}
    for group, name in groups.items():
        tree[group] = OmegaConf.load(base / group / f"{name}.yaml")
    return tree


def check_unknown_keys(config: DictConfig) -> str | None:
    """Keys that stand in no tree of verl: a typing error after `+`, or a key of another release.

    Below a `_target_` verl builds a dataclass, which refuses unknown keys itself.
    """
    tree = copy.deepcopy(verls_tree(is_rl(config)))
    if is_rl(config):
        for name in algos.names("compute_advantage"):
            tree.algorithm[name] = None  # its options: see algos.py
    for root in OmegaConf.select(config, "lab.trainer.options", default=[]):
        # the algorithm's own options: its file is the list of them
        tree[root] = OmegaConf.load(CONF / "algo" / f"{choice('algo')}.yaml")[root]

    def strangers(node: DictConfig, known: DictConfig, prefix: str):
        for key in node:
            path = f"{prefix}{key}"
            if path in OURS or path in config.lab.trainer.unused:
                continue
            if key not in known:
                yield f"unknown key {path!r}: verl has no such key, and would not read it.{nearest(key, known)}"
                continue
            child, there = node._get_node(key), known._get_node(key)
            plain = isinstance(child, DictConfig) and isinstance(there, DictConfig)
            if not plain or there._is_none() or not len(there):
                continue
            if "_target_" not in there or path == "algorithm":  # which verl never builds
                yield from strangers(child, there, f"{path}.")

    return next(strangers(config, tree, ""), None)
