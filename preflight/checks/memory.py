"""What doesn't fit: the models into the memory, the checkpoints onto the disk."""

import math
import shutil
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from preflight.checks.values import unusable
from preflight.facts import is_rl
from preflight.memory import fit
from preflight.memory.sizes import setup_of
from preflight.memory.training import GIB, Engine
from preflight.mistakes import unknown
from preflight.models import UnknownModel

PLANS = ("check", "auto", "off")


def check_plan(config: DictConfig) -> str | None:
    """lab.plan is one of three words."""
    return None if config.lab.plan in PLANS else unknown("lab.plan", config.lab.plan, PLANS)


def check_fit(config: DictConfig) -> str | None:
    """The memory of every phase of a step, and the shortest change that makes it fit."""
    return None if config.lab.plan == "off" or unusable(config) else fit.refused(config)


def bytes_of(e: Engine, contents: list[str]) -> float:
    """A checkpoint of one model, of all GPUs together."""
    weights = e.stored * e.shards
    optimizer = e.optimizer * e.shards
    return weights * (("model" in contents) + ("hf_model" in contents)) + optimizer * (
        "optimizer" in contents
    )


def kept(config: DictConfig, key: str, steps: int | None) -> float:
    """Checkpoints on the disk at a time: those that stay, and the one that is written before an old one goes."""
    each, most = config.trainer.save_freq, OmegaConf.select(config, key)
    if not isinstance(each, int):  # after each epoch
        made = config.trainer.total_epochs
    else:
        made = 1 if each < 1 else math.ceil(steps / each) if steps else math.inf
    return min(made, most + 1 if most else math.inf)


def check_checkpoint_space(config: DictConfig) -> str | None:
    """Room for the checkpoints that are kept; verl fails while it writes, hours after the start."""
    if unusable(config):
        return None  # another check says so
    try:
        setup = setup_of(config)
    except UnknownModel:
        return None
    steps = config.trainer.total_training_steps
    if not is_rl(config):
        parts = [(setup.actor, config.checkpoint.save_contents, "trainer.max_ckpt_to_keep")]
    else:
        contents = config.actor_rollout_ref.actor.checkpoint.save_contents
        parts = [(setup.actor, contents, "trainer.max_actor_ckpt_to_keep")]
        if setup.critic:
            parts.append(
                (
                    setup.critic,
                    config.critic.checkpoint.save_contents,
                    "trainer.max_critic_ckpt_to_keep",
                )
            )
    need = 0.0
    for engine, contents, key in parts:
        count = kept(config, key, steps)
        if math.isinf(count):
            continue  # as many as the run makes steps for: nobody knows
        need += count * bytes_of(engine, list(contents))
    folder = Path(config.trainer.default_local_dir)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if need <= free:
        return None
    return (f"the checkpoints of this run take {need / GIB:.0f} GiB, and {folder} has {free / GIB:.0f} free: keep fewer"
            f" ({parts[0][2]}=1), save only the last (trainer.save_freq=-1), or another folder"
            " (trainer.default_local_dir).")  # fmt: skip
