"""Limits of the reward function that would stop every call, or make none."""

from omegaconf import DictConfig, OmegaConf

NEVER_NULL = ("timeout_s", "processes", "failed_share")


def check_limits(config: DictConfig) -> str | None:
    """Numbers above 0, or null for no limit where there may be none."""
    for key, value in (OmegaConf.select(config, "lab.reward_limits") or {}).items():
        if value is None and key not in NEVER_NULL:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if key == "failed_share":
            if not (number and 0 <= value <= 1):
                return f"lab.reward_limits.{key}={value} must be a number from 0 to 1."
            continue
        if not (number and value > 0):
            return f"lab.reward_limits.{key}={value} must be a number above 0 (see conf/trainer/rl/rollout.yaml)."
    return None
