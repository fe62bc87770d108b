"""Names inside the config: estimators, losses, loggers, unknown and ignored keys."""

import copy

from omegaconf import DictConfig, OmegaConf

from plugins import algos
from preflight import renamed
from preflight.checks import DEFAULT, SLOW, checks, skipped
from preflight.declared import verls_tree
from preflight.estimators import registered
from preflight.facts import choice, is_rl
from preflight.mistakes import nearest, unknown
from preflight.names import CONF

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
    """Keys that verl takes and never looks at: it has others in their place."""

    def values(node: DictConfig, prefix: str):
        for key in node:
            child = node[key]
            yield from (
                values(child, f"{prefix}{key}.")
                if isinstance(child, DictConfig)
                else [(f"{prefix}{key}", child)]
            )

    told = []
    roots = [(root, config[root]) for root in renamed.LEGACY if config.get(root) is not None]
    for key, value in (pair for root, node in roots for pair in values(node, f"{root}.")):
        new = renamed.renamed(key)
        if value is None or (new and OmegaConf.select(config, new, default=None) == value):
            continue
        why = renamed.why_gone(key)
        told.append(f"{key} (set {new})" if new else key + (f" ({why})" if why else ""))
    return f"verl 0.9 ignores {', '.join(told)}." if told else None


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
            if path in (*OURS, *renamed.LEGACY, *config.lab.trainer.unused):
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
