"""The reward's own options: what it would refuse at the first answer, after minutes."""

import importlib

from omegaconf import DictConfig, OmegaConf

from preflight.check_3_files import check_reward_function, choice


def check_reward_options(config: DictConfig) -> str | None:
    """Ask a reward of ours: `check_options`, else `bars`, which looks at all of them."""
    function = OmegaConf.select(config, "reward.custom_reward_function")
    if config.lab.spmd or function is None or not function.path:
        return None
    if not function.path.startswith("pkg://rewards.") or check_reward_function(config):
        return None
    reward = importlib.import_module(function.path.removeprefix("pkg://"))
    options = OmegaConf.to_container(function, resolve=True).get("reward_kwargs") or {}
    look = getattr(reward, "check_options", None) or getattr(reward, "bars", None)
    try:
        if look:
            look(**options)
    except (TypeError, ValueError) as error:
        return f"reward={choice('reward')}: {error}"
    return None
