"""Limits of the reward function that would stop every call, or make none."""

from omegaconf import DictConfig, OmegaConf

NEVER_NULL = ("timeout_s", "processes")


def check_limits(config: DictConfig) -> str | None:
    """Numbers above 0, or null for no limit where there may be none."""
    for key, value in (OmegaConf.select(config, "lab.reward_limits") or {}).items():
        if value is None and key not in NEVER_NULL:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and value > 0):
            return f"lab.reward_limits.{key}={value} must be a number above 0 (see conf/trainer/rl/rollout.yaml)."
    return None
