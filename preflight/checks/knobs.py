"""Dead knobs: settings that verl accepts and that change nothing in this run."""

from collections.abc import Iterable, Iterator

from omegaconf import DictConfig, OmegaConf

from preflight.checks import Note, applies_to
from preflight.declared import is_not_verls
from preflight.engines import CRITIC_TOKENS, has_critic
from preflight.estimators import compares_group
from preflight.facts import choice, given, is_rl, is_sft

KL_LOSS = "actor_rollout_ref.actor.kl_loss_coef"
KL_REWARD = "algorithm.kl_ctrl.kl_coef"
VERLS_DEFAULT = {KL_LOSS: 0.001, KL_REWARD: 0.001}
ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
UNREAD = {  # key → what is read instead, if there is anything
    f"{ACTOR}.grad_clip": f"set {ACTOR}.optim.clip_grad", "critic.grad_clip": "set critic.optim.clip_grad",
    f"{ACTOR}.use_torch_compile": "set lab.hw.compile", "actor_rollout_ref.ref.use_torch_compile": "set lab.hw.compile",
    f"{ACTOR}.use_prefix_grouper": "", f"{ACTOR}.freeze_vision_tower": "", "actor_rollout_ref.model.tiled_mlp": "",
    "critic.ulysses_sequence_parallel_size": "set critic.fsdp.ulysses_sequence_parallel_size",
    f"{ROLLOUT}.do_sample": f"set {ROLLOUT}.temperature",
    f"{ROLLOUT}.val_kwargs.do_sample": f"set {ROLLOUT}.val_kwargs.temperature; 0 is the greedy answer",
    f"{ROLLOUT}.over_sample_rate": "vLLM has no such thing",
    f"{ROLLOUT}.multi_turn.num_repeat_rollouts": "", "algorithm.use_pf_ppo": "", "algorithm.pf_ppo": "",
    "data.reward_fn_key": "it reads the column data_source",
}  # fmt: skip
HARMLESS = {  # of these nobody misses the effect: it is told, and the run goes on
    "trainer.balance_batch": "it balances always", "trainer.esi_redundant_time": "",
    "trainer.ray_wait_register_center_timeout": "", "actor_rollout_ref.nccl_timeout": "",
    "critic.forward_max_token_len_per_gpu": "", "critic.forward_micro_batch_size": "",
    "critic.forward_micro_batch_size_per_gpu": "", f"{ROLLOUT}.multi_stage_wake_up": "vLLM has no such thing",
    "data.truncation": "prompts that are too long are left out",
    "data.return_raw_chat": "", "data.return_raw_input_ids": "", "data.return_full_prompt": "",
}  # fmt: skip
UNREAD_BY_SFT = {"data.balance_dp_token": "", "data.use_shm": "", "model.tiled_mlp": ""}
HARMLESS_TO_SFT = {"trainer.balance_batch": ""}


def is_set(config: DictConfig, key: str) -> bool:
    """Whether somebody set a coefficient: on the command line, or in a file to another value than verl's. 0 is none."""
    value = OmegaConf.select(config, key)
    return value != 0 and (given(key) or value != VERLS_DEFAULT[key])


@applies_to(is_rl)
def check_kl(config: DictConfig) -> str | None:
    """A KL coefficient with its switch off; who has turned that off as well knows it."""
    loss, reward = (f"{ACTOR}.use_kl_loss", "algorithm.use_kl_in_reward")
    if is_set(config, KL_LOSS) and not (config.actor_rollout_ref.actor.use_kl_loss or given(loss)):
        return f"{KL_LOSS} does nothing: set actor_rollout_ref.actor.use_kl_loss=true as well, or leave it out."
    if is_set(config, KL_REWARD) and not (config.algorithm.use_kl_in_reward or given(reward)):
        return f"{KL_REWARD} does nothing: set algorithm.use_kl_in_reward=true as well, or leave it out."
    return None


@applies_to(is_rl)
def check_group(config: DictConfig) -> str | None:
    """An estimator that compares the answers of a group, with one answer a group."""
    name, rollout = config.algorithm.adv_estimator, config.actor_rollout_ref.rollout
    if rollout.n < 2 and compares_group(name):
        return f"{name} compares the answers to a prompt, and rollout.n=1: set actor_rollout_ref.rollout.n=8."
    if rollout.temperature == 0 and not config.trainer.val_only:
        return "rollout.temperature=0 makes all answers to a prompt equal: nothing could be learned. Set 1."
    if rollout.val_kwargs.n > 1 and rollout.val_kwargs.temperature == 0:
        return "rollout.val_kwargs.n > 1 with temperature 0 samples the same answer again: set val_kwargs.temperature."
    return None


def check_clip(config: DictConfig) -> str | None:
    """verl reads clip_ratio_low and clip_ratio_high; clip_ratio only where they are null."""
    actor = OmegaConf.select(config, "actor_rollout_ref.actor")
    key = "actor_rollout_ref.actor.clip_ratio"
    if actor is None or not given(key):
        return None
    if actor.clip_ratio_low != actor.clip_ratio and actor.clip_ratio_high != actor.clip_ratio:
        return f"{key} does nothing: set {key}_low and {key}_high."
    return None


@applies_to(is_rl)
def check_critic(config: DictConfig) -> str | None:
    """Settings of a critic that this algorithm doesn't have, and one that is missing."""
    name, enabled = config.algorithm.adv_estimator, config.critic.enable
    if name == "gae":
        return (
            None
            if enabled in (None, True)
            else "critic.enable=false: gae needs the values of a critic. Leave it out."
        )
    if given("critic") or enabled:
        return f"critic.* does nothing: {name} has no critic (algorithm.adv_estimator=gae has one)."
    if config.trainer.critic_warmup > 0:
        warmup = config.trainer.critic_warmup
        return f"trainer.critic_warmup={warmup} only delays the actor: {name} has no critic. Leave it out."
    return None


def check_lora(config: DictConfig) -> str | None:
    """An alpha without a rank."""
    if given("lab.lora_alpha") and not config.lab.lora_rank:
        return "lab.lora_alpha does nothing with lab.lora_rank=0."
    return None


def unread(config: DictConfig, table: dict[str, str]) -> Iterator[tuple[str, str]]:
    """(key, what is read instead) of those that somebody sets to another value than verl's own."""
    for key, instead in table.items():
        if not is_not_verls(config, key):
            continue
        value = OmegaConf.select(config, key)
        if key.endswith(".do_sample"):
            sampling = OmegaConf.select(config, key.rpartition(".")[0])
            if value == (sampling.temperature > 0):
                continue  # that is what it does
        yield key, instead


def fixed_sizes(config: DictConfig) -> Iterator[tuple[str, str]]:
    """(key, why) of micro-batches of a fixed size where dynamic ones are on, and of the critic's."""
    if is_sft(config):
        dynamic, sizes = config.data.use_dynamic_bsz, ["data.micro_batch_size_per_gpu"]
    else:
        dynamic = config.actor_rollout_ref.actor.use_dynamic_bsz
        sizes = [
            f"{ACTOR}.ppo_micro_batch_size_per_gpu",
            f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu",
        ]
    for key in sizes if dynamic else ():
        if given(key) and OmegaConf.select(config, key) is not None:
            yield key, "batches are dynamic: lab.hw.tokens_per_gpu is their size"
    for name in (
        ("ppo_max_token_len_per_gpu", "use_dynamic_bsz", "ppo_micro_batch_size_per_gpu")
        if has_critic(config)
        else ()
    ):
        if given(f"critic.{name}") and (
            name != "use_dynamic_bsz" or config.critic[name] != dynamic
        ):
            yield f"critic.{name}", f"set {CRITIC_TOKENS}"


def joined(found: Iterable[tuple[str, str]]) -> str:
    """One line for all of them; "" if there are none."""
    by_reason: dict[str, list[str]] = {}
    for key, reason in found:
        by_reason.setdefault(reason or "verl 0.9.1 never reads it", []).append(key)
    if sum(map(len, by_reason.values())) > 1:
        each = "; ".join(f"{', '.join(keys)} ({reason})" for reason, keys in by_reason.items())
        return f"{sum(map(len, by_reason.values()))} settings do nothing: {each}."
    return "".join(f"{keys[0]} does nothing: {reason}." for reason, keys in by_reason.items())


def check_unread(config: DictConfig) -> str | None:
    """Keys that verl 0.9.1 has and never looks at, under the engines of this project."""
    table = dict(UNREAD) if is_rl(config) else UNREAD_BY_SFT
    if is_rl(config) and not config.data.filter_overlong_prompts:
        table["data.truncation"] = "set data.filter_overlong_prompts=true"
    return joined([*unread(config, table), *fixed_sizes(config)]) or None


def check_harmless(config: DictConfig) -> Note | None:
    """Keys of the same kind whose effect nobody misses."""
    table = HARMLESS if is_rl(config) else HARMLESS_TO_SFT
    said = joined(unread(config, table))
    return Note(said) if said else None


def check_padding(config: DictConfig) -> str | None:
    """Packed batches of few lengths, where nothing is packed."""
    for key in [f"{ACTOR}.fsdp_config", "critic.fsdp"] if is_rl(config) else ["engine"]:
        if OmegaConf.select(config, f"{key}.pad_to_length") and not config.lab.hw.remove_padding:
            return f"{key}.pad_to_length does nothing: it pads only packed sequences (lab.hw.remove_padding=true)."
    return None


def check_show_samples(config: DictConfig) -> str | None:
    """Answers to be shown that nobody samples, or that are not written down."""
    if not config.lab.show_samples:
        return None
    if config.lab.trainer.entry != "verl.trainer.main_ppo":
        return f"lab.show_samples does nothing with algo={choice('algo')}: it shows answers that RL samples in a step."
    if not config.trainer.rollout_data_dir:
        return "lab.show_samples does nothing without trainer.rollout_data_dir: it reads the answers there."
    return None


def check_keep_best(config: DictConfig) -> str | None:
    """A best model to be chosen from one: only what is validated and saved can be kept."""
    if not config.lab.keep_best:
        return None
    keys = ("trainer.test_freq", "trainer.save_freq")
    values = {key: OmegaConf.select(config, key) for key in keys}
    off = [
        f"{key}={value}" for key, value in values.items() if isinstance(value, int) and value < 1
    ]
    if off:
        both = " and ".join(off)
        return f"lab.keep_best chooses among steps that are validated and saved, and {both} leaves only the last one."
    return None


@applies_to(is_sft)
def check_reward_of_sft(config: DictConfig) -> str | None:
    """SFT has no reward."""
    if given("reward") and choice("reward") != "none":
        return "reward= does nothing: this algorithm learns from given answers and scores nothing. Leave it out."
    return None
