"""The judge that a run is scored with: its options, and that there is a key for it."""

import os

from omegaconf import DictConfig, OmegaConf

JUDGE = "pkg://rewards.judge"


def check_judge(config: DictConfig) -> str | None:
    """All that reward=judge itself refuses, before anything starts. The judge isn't asked."""
    function = OmegaConf.select(config, "reward.custom_reward_function")
    if config.lab.spmd or function is None or function.path != JUDGE:
        return None
    from rewards._judge_settings import settings_of
    from rewards._options import options_of, refuse_unknown
    from rewards.judge import compute_score

    given = OmegaConf.to_container(function.reward_kwargs, resolve=True)
    for name in ("folder", "template_file"):
        if given.get(name) and not os.path.isabs(given[name]):
            full = os.path.abspath(given[name])
            return f"reward=judge: {name} is read in other working folders, name it in full: {full}"
    try:
        refuse_unknown(given, compute_score)
        settings_of(**options_of(compute_score) | given).key()
    except ValueError as error:
        return f"reward=judge: {error}."
    return None
