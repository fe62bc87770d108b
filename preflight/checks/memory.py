"""What doesn't fit: the models into the memory, the checkpoints onto the disk."""

import math
import shutil
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from preflight.checks import of_a_cpu_node
from preflight.facts import is_rl
from preflight.memory import cures
from preflight.memory.forecast import Forecast
from preflight.memory.sizes import Setup
from preflight.memory.training import GIB, Engine
from preflight.mistakes import unknown

PLANS = ("check", "auto", "off")


def check_plan(config: DictConfig) -> str | None:
    """lab.plan is one of three words."""
    return None if config.lab.plan in PLANS else unknown("lab.plan", config.lab.plan, PLANS)


@of_a_cpu_node
def check_fit(config: DictConfig, expected: Forecast) -> str | None:
    """The memory of every phase of a step, and the shortest change that makes it fit."""
    return cures.refusal(config, expected.plan) if expected.plan else None


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


def saved(config: DictConfig, setup: Setup) -> list[tuple[Engine, list[str], str]]:
    """Of each model with checkpoints: its sizes, what of it is saved, the key of how many are kept."""
    if not is_rl(config):
        return [(setup.actor, list(config.checkpoint.save_contents), "trainer.max_ckpt_to_keep")]
    models = [(setup.actor, config.actor_rollout_ref.actor, "trainer.max_actor_ckpt_to_keep")]
    if setup.critic:
        models.append((setup.critic, config.critic, "trainer.max_critic_ckpt_to_keep"))
    return [(engine, list(node.checkpoint.save_contents), key) for engine, node, key in models]


def check_checkpoint_space(config: DictConfig, expected: Forecast) -> str | None:
    """Room for the checkpoints that are kept; verl fails while it writes, hours after the start."""
    if expected.setup is None:
        return None
    need, models = 0.0, saved(config, expected.setup)
    for engine, contents, key in models:
        count = kept(config, key, config.trainer.total_training_steps)
        if math.isinf(count):
            continue  # as many as the run makes steps for: nobody knows
        need += count * bytes_of(engine, contents)
    folder = Path(config.trainer.default_local_dir)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if need <= free:
        return None
    _, _, key = models[0]
    return (f"the checkpoints of this run take {need / GIB:.0f} GiB, and {folder} has {free / GIB:.0f} free: keep fewer"
            f" ({key}=1), save only the last (trainer.save_freq=-1), or choose another folder"
            " (trainer.default_local_dir).")  # fmt: skip
