"""What verl takes and what would keep a run from learning: rates, warm-ups, lengths, engines that disagree."""

from omegaconf import DictConfig, OmegaConf

from preflight.checks import Note, applies_to
from preflight.declared import of_conf
from preflight.engines import A, has_critic
from preflight.facts import is_driver, is_rl
from preflight.memory.forecast import total_steps

FAR = 30  # times the largest, or a part of the smallest, of the learning rates in conf/
RATES = {True: (f"{A}.actor.optim.lr", "rl_lr"), False: ("optim.lr", "sft_lr")}


def check_learning_rate(config: DictConfig) -> Note | None:
    """A rate of another order than those in conf/model/, which are the published ones: most of these are slips."""
    key, ours = RATES[is_rl(config)]
    ours = f"lab.model.{ours}{'_lora' if config.lab.lora_rank else ''}"
    rate, usual = (
        OmegaConf.select(config, key),
        [v for v in of_conf()[ours].values if isinstance(v, float)],
    )
    if rate == 0:
        return Note(f"{key}=0: nothing is learned.")
    if rate > FAR * max(usual) or rate < min(usual) / FAR:
        return Note(
            f"{key}={rate:g} is far from what is usual here ({ours}: {min(usual):g} to {max(usual):g})."
        )
    return None


@applies_to(is_rl)
def check_warmup(config: DictConfig) -> str | None:
    """A policy that never comes to its first update."""
    steps = total_steps(config)
    if steps is None or is_driver(config):
        return None
    if has_critic(config) and config.trainer.critic_warmup >= steps:
        return (f"trainer.critic_warmup={config.trainer.critic_warmup}: the critic alone learns for so many steps, and"
                f" the run has {steps}: the policy would never learn.")  # fmt: skip
    return None


@applies_to(is_rl)
def check_clip_high(config: DictConfig) -> Note | None:
    """An upper clip far above every published one clips nothing."""
    high = config[A].actor.clip_ratio_high
    usual = max(
        value
        for value in of_conf()[f"{A}.actor.clip_ratio_high"].values
        if isinstance(value, int | float)
    )
    if high > max(1, usual):
        return Note(
            f"{A}.actor.clip_ratio_high={high:g}: no ratio is ever clipped above (0.2 to 0.28 are usual)."
        )
    return None


def check_rate_warmup(config: DictConfig) -> str | None:
    """A rate that is still rising when the run ends."""
    steps = total_steps(config)
    for key in (f"{A}.actor.optim", "critic.optim") if is_rl(config) else ("optim",):
        warmup = OmegaConf.select(config, f"{key}.lr_warmup_steps")
        if steps and not is_driver(config) and warmup is not None and warmup >= steps > 1:
            return (f"{key}.lr_warmup_steps={warmup}, and the run has {steps} steps: the rate never comes up to"
                    f" {key}.lr.")  # fmt: skip
    return None


@applies_to(is_rl)
def check_rollout_lengths(config: DictConfig) -> str | None:
    """The rollout's own lengths: a shorter one cuts prompts from the left, without a word."""
    for name, key in (
        ("prompt_length", "max_prompt_length"),
        ("response_length", "max_response_length"),
    ):
        own, data = config[A].rollout[name], config.data[key]
        if own != data:
            return f"{A}.rollout.{name}={own}, but data.{key}={data}: set lab.dataset.{key} alone, which sets both."
    return None


def check_strategies(config: DictConfig) -> str | None:
    """verl takes an engine's strategy from the key above its settings."""
    above = {f"{A}.actor": "fsdp_config", f"{A}.ref": "fsdp_config", "critic": "fsdp"}
    for key, fsdp in above.items() if is_rl(config) else ():
        strategy, engine = (
            OmegaConf.select(config, k) for k in (f"{key}.strategy", f"{key}.{fsdp}.strategy")
        )
        if strategy != engine:
            return (f"{key}.strategy={strategy}, but {key}.{fsdp}.strategy={engine}: verl reads the first one. Set both"
                    " to the same.")  # fmt: skip
    for key in (
        (f"{A}.actor.fsdp_config", f"{A}.ref.fsdp_config", "critic.fsdp")
        if is_rl(config)
        else ("engine",)
    ):
        engine = OmegaConf.select(config, key)
        if engine.offload_policy and engine.strategy != "fsdp2":
            return f"{key}.offload_policy does nothing with {key}.strategy={engine.strategy}: only fsdp2 has it."
    return None


def check_validation_rows(config: DictConfig) -> Note | None:
    """Validation on the rows that are trained on says nothing of others."""
    train, val = ([files] if isinstance(files, str) else list(files or ())
                  for files in (config.data.train_files, config.data.val_files))  # fmt: skip
    if same := sorted(set(train) & set(val)):
        return Note(
            f"{', '.join(same)} is both trained on and validated on: the validation says nothing of other rows."
        )
    return None
