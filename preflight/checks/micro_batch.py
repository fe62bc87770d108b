"""Micro-batches, in which a worker goes through its part: so many tokens (dynamic), or so many sequences."""

from collections.abc import Iterator

from omegaconf import DictConfig, OmegaConf

from preflight.checks import applies_to
from preflight.engines import (
    CRITIC_TOKENS,
    A,
    Engine,
    divides,
    engines,
    has_critic,
    has_reference,
    nearest_divisor,
    parts,
)
from preflight.facts import has_own_rows, is_rl, is_sft


def fixed(config: DictConfig) -> Iterator[tuple[str, int, Engine]]:
    """Keys of micro-batches of a fixed size, how many sequences they are cut from, and on which engine."""
    named = {engine.key: engine for engine in engines(config)}
    if is_sft(config):
        if not config.data.use_dynamic_bsz:
            yield "data.micro_batch_size_per_gpu", config.data.train_batch_size, named["data"]
        return
    actor, n = config[A].actor, config[A].rollout.n
    answers = config.data.train_batch_size * n
    if not actor.use_dynamic_bsz:
        engine = named[f"{A}.actor"]
        yield f"{A}.actor.ppo_micro_batch_size_per_gpu", actor.ppo_mini_batch_size * n, engine
        yield f"{A}.rollout.log_prob_micro_batch_size_per_gpu", answers, engine
    if has_reference(config) and not config[A].ref.log_prob_use_dynamic_bsz:
        yield f"{A}.ref.log_prob_micro_batch_size_per_gpu", answers, named[f"{A}.ref"]


def check_micro_batches(config: DictConfig) -> str | None:
    """They must be named, and divide what a worker gets."""
    for key, whole, engine in fixed(config):
        size, (share, rest) = OmegaConf.select(config, key), divmod(whole, parts(config, engine))
        if rest:
            return (f"without dynamic batches {whole} sequences ({key}) must divide by {parts(config, engine)}"
                    " workers: change data.train_batch_size or rollout.n.")  # fmt: skip
        if size is None:
            return f"{key} is needed without dynamic batches: {nearest_divisor(share, 8)}, for instance."
        if not divides(size, share):
            return (f"{key}={size} doesn't divide the {share} sequences that a worker gets:"
                    f" {nearest_divisor(share, size)} does.")  # fmt: skip
    return None


@applies_to(is_rl)
def check_old_micro_batches(config: DictConfig) -> str | None:
    """Sizes for all GPUs together: keys of old releases, with which verl refuses to start, or ignores them."""
    keys = [f"{A}.actor.ppo_micro_batch_size", f"{A}.rollout.log_prob_micro_batch_size"]
    keys += [f"{A}.ref.log_prob_micro_batch_size"] if has_reference(config) else []
    keys += ["critic.ppo_micro_batch_size"] if has_critic(config) else []
    if old := [key for key in keys if OmegaConf.select(config, key) is not None]:
        new = [f"{key}_per_gpu" for key in old]
        are = "is a key" if len(old) == 1 else "are keys"
        return f"{', '.join(old)} {are} of old releases: set {', '.join(new)} instead, the size on one GPU."
    return None


@applies_to(is_rl)
def check_dynamic_batches(config: DictConfig) -> str | None:
    """One switch for updates and log-probabilities."""
    switch, again = f"{A}.actor.use_dynamic_bsz", f"{A}.rollout.log_prob_use_dynamic_bsz"
    if OmegaConf.select(config, switch) != OmegaConf.select(config, again):
        return f"{again} must be the same as {switch}: leave it out."
    return None


def check_critic_batches(config: DictConfig) -> str | None:
    """verl's V1 trainer cuts the critic's micro-batches by one key alone (trainer_base.py:267)."""
    if not has_critic(config):
        return None
    if not config.critic.use_dynamic_bsz and config.critic.ppo_micro_batch_size_per_gpu is None:
        return ("critic.use_dynamic_bsz=false needs critic.ppo_micro_batch_size_per_gpu. Any number will do: verl only"
                f" checks that it is there, and reads {CRITIC_TOKENS}.")  # fmt: skip
    return None


def budgets(config: DictConfig) -> Iterator[tuple[str, int | None, int]]:
    """Keys of dynamic micro-batches, their tokens, and how many workers share a sequence there."""
    sharing = {engine.key: engine.sequence[1] for engine in engines(config)}
    if is_sft(config):
        if config.data.use_dynamic_bsz and not has_own_rows(config):  # check_items_fit
            yield "lab.hw.tokens_per_gpu", config.data.max_token_len_per_gpu, sharing["data"]
        return
    actor, ref, rollout = config[A].actor, config[A].ref, config[A].rollout
    name = "log_prob_max_token_len_per_gpu"
    if actor.use_dynamic_bsz:
        yield "lab.hw.tokens_per_gpu", actor.ppo_max_token_len_per_gpu, sharing[f"{A}.actor"]
        yield f"{A}.rollout.{name}", rollout[name], sharing[f"{A}.actor"]
    if has_reference(config) and ref.log_prob_use_dynamic_bsz:
        yield f"{A}.ref.{name}", ref[name], sharing[f"{A}.ref"]
    if has_critic(config):
        yield CRITIC_TOKENS, config.critic.ppo_infer_max_token_len_per_gpu, sharing["critic"]


def check_token_budget(config: DictConfig) -> str | None:
    """A sequence is never split: the longest must fit into one micro-batch."""
    if is_sft(config):
        need = config.data.max_length
        what = f"data.max_length={need}"
    else:
        need = config.data.max_prompt_length + config.data.max_response_length
        what = f"one prompt and answer ({need} tokens)"
    for key, tokens, workers in budgets(config):
        if tokens is None or tokens * workers < need:
            return f"{key}={tokens} is less than {what}: set {-(-need // workers)} or more."
    return None
