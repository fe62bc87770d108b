"""The reward's own options: what it would refuse at the first answer, after minutes."""

from omegaconf import DictConfig

from preflight.reward_function import options_fault


def check_reward_options(config: DictConfig) -> str | None:
    """Those that a reward of this project refuses."""
    return options_fault(config)
