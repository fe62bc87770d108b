"""What verl itself says of a config, before a run: its validation and its dataclasses.

    python -m preflight.verdict RESOLVED.yaml

A process of its own, because it imports verl (and torch with it). Prints what verl refuses, in a line, or nothing.
"""

import sys
import warnings

from omegaconf import DictConfig, OmegaConf, open_dict

from preflight.facts import is_rl


def convert_rl(config: DictConfig) -> None:
    """As main_ppo and its workers do it. The models themselves are not looked at."""
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    policy, reference = config.actor_rollout_ref, need_reference_policy(config)
    with open_dict(config):
        config.critic.pop("model")  # its dataclass loads a tokenizer
        policy.rollout.prometheus.served_model_name = None
        for name in ("micro_batch_size", "micro_batch_size_per_gpu", "max_token_len_per_gpu"):
            policy.ref[f"ppo_{name}"] = policy.ref.get(f"log_prob_{name}")  # as init_model does
        policy.ref.use_dynamic_bsz = policy.ref.log_prob_use_dynamic_bsz
        policy.ref.ppo_mini_batch_size = policy.actor.ppo_mini_batch_size
    validate_config(config, reference, need_critic(config))
    with open_dict(config):
        for name in [name for name in policy.ref if name.startswith("log_prob_")]:
            policy.ref.pop(name)
    parts = [policy.actor, policy.rollout, config.distillation]
    parts += [policy.ref] if reference else []
    parts += [config.reward.reward_model.rollout] if config.reward.reward_model.enable else []
    for part in parts:
        omega_conf_to_dataclass(part)


def convert_sft(config: DictConfig) -> None:
    """As SFTTrainer does it, but for the model."""
    from verl.utils.config import omega_conf_to_dataclass

    for key in ("engine", "optim", "checkpoint", "profiler"):
        omega_conf_to_dataclass(config[key])


def verdict(config: DictConfig) -> str | None:
    """What verl refuses, in a line; None if it takes the config."""
    try:
        convert_rl(config) if is_rl(config) else convert_sft(config)
    except Exception as error:  # whatever it is, a run would end with it
        causes: list[BaseException] = [error]
        while causes[-1].__cause__ is not None:
            causes.append(causes[-1].__cause__)
        return f"{type(causes[-1]).__name__}: {' '.join(str(causes[-1]).split())}"
    return None


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if refusal := verdict(OmegaConf.load(sys.argv[1])):
        print(f"verdict: {refusal}")
