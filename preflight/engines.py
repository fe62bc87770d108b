"""The engines that a run trains with, under whichever keys its trainer has them: what checks ask of each."""

from collections.abc import Iterator
from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf

from preflight.facts import is_sft
from preflight.models import facts_of

A = "actor_rollout_ref"
CRITIC_TOKENS = "critic.ppo_infer_max_token_len_per_gpu"  # in no YAML of verl's


class Engine(NamedTuple):
    """One of verl's FSDP engines.

    Args:
        key: of its node (batches, optimizer).
        fsdp: key of its FSDP settings.
        model: key of its model.
        sequence: key of the number of workers that share a sequence (Ulysses), and that number.
    """

    key: str
    fsdp: str
    model: str
    sequence: tuple[str, int]


def workers(config: DictConfig) -> int:
    """Number of training workers (GPUs, or logical ones on a CPU)."""
    return config.trainer.nnodes * config.trainer.n_gpus_per_node


def has_critic(config: DictConfig) -> bool:
    """Whether a critic is trained (verl/trainer/ppo/utils.py, need_critic)."""
    if is_sft(config):
        return False
    enabled = config.critic.enable
    return config.algorithm.adv_estimator == "gae" if enabled is None else bool(enabled)


def has_reference(config: DictConfig) -> bool:
    """Whether there is a reference of its own: with a LoRA it is the actor without it."""
    if is_sft(config) or config[A].model.lora_rank:
        return False
    return bool(config.algorithm.use_kl_in_reward or config[A].actor.use_kl_loss)


def engines(config: DictConfig) -> Iterator[Engine]:
    """Those of this run."""

    def engine(key: str, fsdp: str, model: str, old: str | None = None) -> Engine:
        sequence = f"{fsdp}.ulysses_sequence_parallel_size"
        size = OmegaConf.select(config, sequence)
        if old and OmegaConf.select(config, old) > 1:  # a deprecated key, which wins
            sequence, size = old, OmegaConf.select(config, old)
        return Engine(key, fsdp, model, (sequence, size))

    if is_sft(config):
        yield engine("data", "engine", "model")
        return
    for name in ("actor", "ref") if has_reference(config) else ("actor",):
        key = f"{A}.{name}"
        yield engine(
            key, f"{key}.fsdp_config", f"{A}.model", f"{key}.ulysses_sequence_parallel_size"
        )
    if has_critic(config):
        yield engine("critic", "critic.fsdp", "critic.model")


def parts(config: DictConfig, engine: Engine) -> int:
    """Into how many parts a batch goes: workers that share a sequence get the same part."""
    return max(1, workers(config) // max(1, engine.sequence[1]))


def facts(path: str) -> dict:
    """What is known of the model at `path`; of one that reads images as well, its language model's."""
    found = facts_of(path) or {}
    return found | (found.get("text_config") or {})


def divides(part: int, whole: int) -> bool:
    """Whether `part` divides `whole`; 0 divides nothing."""
    return part > 0 and whole % part == 0


def nearest_multiple(size: int, n: int) -> int:
    """The multiple of n next to size, at least n."""
    return max(n, round(size / n) * n)


def nearest_divisor(total: int, wish: int) -> int:
    """The divisor of total next to wish."""
    return min((d for d in range(1, total + 1) if total % d == 0), key=lambda d: abs(d - wish))
