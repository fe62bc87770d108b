"""What single algorithms need: verl would say so after the first rollouts, or never."""

from omegaconf import DictConfig, OmegaConf

SQUARES = "actor_rollout_ref.actor.calculate_sum_pi_squared"
NEEDS = {  # estimator or loss → the key that it can't do without
    "optimal_token_baseline": f"{SQUARES}=true",
    "tir_optimal_token_baseline": f"{SQUARES}=true",
    "gdpo": "algorithm.gdpo_reward_keys=[acc,...], the names of parts of the reward",
    "dro": "actor_rollout_ref.actor.policy_loss.dro_beta=0.05",
}


def check_needs(config: DictConfig) -> str | None:
    """An estimator or a loss without its own setting."""
    for key in ("algorithm.adv_estimator", "actor_rollout_ref.actor.policy_loss.loss_mode"):
        name = OmegaConf.select(config, key)
        if (need := NEEDS.get(name)) and not OmegaConf.select(config, need.partition("=")[0]):
            return f"{name} needs {need} (see conf/algo)."
    return None


def check_greedy_baseline(config: DictConfig) -> str | None:
    """ReMax's greedy answers are sampled as those of a validation are (plugins/patches/algos.py)."""
    if OmegaConf.select(config, "algorithm.adv_estimator") != "remax":
        return None
    key = "actor_rollout_ref.rollout.val_kwargs.temperature"
    if OmegaConf.select(config, key) != 0:
        return f"remax compares with the greedy answer, which is sampled as in validation: set {key}=0."
    if config.trainer.v1.trainer_mode != "sync":
        return "remax samples its greedy answers only with trainer.v1.trainer_mode=sync: set it."
    return None


def check_squares(config: DictConfig) -> str | None:
    """The sum of squared probabilities needs all logits, which fused kernels never hold."""
    policy = OmegaConf.select(config, "actor_rollout_ref")
    if policy and policy.actor.calculate_sum_pi_squared and policy.model.use_fused_kernels:
        return f"{SQUARES}=true doesn't work with actor_rollout_ref.model.use_fused_kernels=true: set one to false."
    return None


def check_overlong(config: DictConfig) -> str | None:
    """The penalty for long answers acts within the longest answer (plugins/rollout/reward_manager.py)."""
    options = OmegaConf.select(config, "reward.reward_kwargs")
    buffer = options and options.get("overlong_buffer_cfg")
    if not buffer or not buffer.enable:
        return None
    most = options.get("max_resp_len") or 0
    if not 0 < buffer.len <= most:
        return (f"reward.reward_kwargs.overlong_buffer_cfg.len={buffer.len} must be from 1 to"
                f" reward.reward_kwargs.max_resp_len={most}.")  # fmt: skip
    return None


def check_manager(config: DictConfig) -> str | None:
    """What only some reward managers do: the penalty for long answers, and groups judged by either of two."""
    buffer = OmegaConf.select(config, "reward.reward_kwargs.overlong_buffer_cfg")
    manager = OmegaConf.select(config, "reward.reward_manager")
    if manager is None or manager.source != "register":
        return None
    if buffer and buffer.enable and manager.name != "dapo":
        return (f"reward.reward_kwargs.overlong_buffer_cfg does nothing with verl's reward manager {manager.name}:"
                " leave reward.reward_manager out.")  # fmt: skip
    groups = config.algorithm.filter_groups
    if groups and groups.enable and groups.metric == "acc_or_score":
        return ("verl's reward managers don't know the metric acc_or_score: leave reward.reward_manager out, or set"
                " algorithm.filter_groups.metric=acc.")  # fmt: skip
    return None
