"""The reward's own options: what it would refuse at the first answer, after minutes."""

from omegaconf import DictConfig

from preflight.checks.files import own_reward


def check_reward_options(config: DictConfig) -> str | None:
    """Ask a reward of ours: `check_options`, else `bars`, which looks at all of them."""
    if not (found := own_reward(config)):
        return None
    reward, options = found
    look = getattr(reward, "check_options", None) or getattr(reward, "bars", None)
    try:
        if look:
            look(**options)
    except (TypeError, ValueError) as error:
        return f"reward={reward.__name__.rpartition('.')[2]}: {error}"
    return None
