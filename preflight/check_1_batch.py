"""Batch arithmetic and lengths."""

import json
from pathlib import Path

from omegaconf import DictConfig, OmegaConf


def workers(config: DictConfig) -> int:
    """Number of training workers (GPUs, or logical ones on a CPU)."""
    return config.trainer.nnodes * config.trainer.n_gpus_per_node


def rows(file: str | None) -> int | None:
    """Rows of a parquet file; None if it is not there (another check says so)."""
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(file).num_rows if file and Path(file).is_file() else None
    except (OSError, ValueError):
        return None


def check_sft_batch(config: DictConfig) -> str | None:
    """SFT divides its batch among the workers and drops the rest of an epoch."""
    if not config.lab.spmd:
        return None
    size, n = config.data.train_batch_size, workers(config)
    if size % n:
        return f"data.train_batch_size={size} doesn't divide by {n} workers: {nearest_multiple(size, n)} does."
    for key in ("train_files", "val_files"):
        have = rows(config.data[key])
        limit = config.data[key.replace("files", "max_samples")]
        have = min(have, limit) if have and limit > 0 else have
        if have is not None and have < size:
            return (f"data.{key} has {have} rows, fewer than one batch of data.train_batch_size={size}:"
                    " verl would drop them all.")  # fmt: skip
    return None


def check_rl_batch(config: DictConfig) -> str | None:
    """verl gives a mini-batch of answers to each worker, in equal parts."""
    if config.lab.spmd:
        return None
    prompts, n = config.data.train_batch_size, config.actor_rollout_ref.rollout.n
    parts = {"actor_rollout_ref.actor": config.actor_rollout_ref.actor.ppo_mini_batch_size}
    if config.algorithm.adv_estimator == "gae":
        parts["critic"] = config.critic.ppo_mini_batch_size
    for key, mini in parts.items():
        if prompts % mini:
            return (f"{key}.ppo_mini_batch_size={mini} doesn't divide data.train_batch_size={prompts}:"
                    f" {nearest_divisor(prompts, mini)} does.")  # fmt: skip
        if mini * n % workers(config):
            return (f"{key}.ppo_mini_batch_size={mini} × rollout.n={n} answers don't divide by"
                    f" {workers(config)} workers.")  # fmt: skip
    have = rows(config.data.train_files)
    if have is not None and have < prompts:
        return f"data.train_files has {have} rows, fewer than data.train_batch_size={prompts}: no step would be made."
    return None


def check_lengths(config: DictConfig) -> str | None:
    """A prompt and its answer must fit into vLLM's and the model's context."""
    if config.lab.spmd:
        return None
    need = config.data.max_prompt_length + config.data.max_response_length
    have = config.actor_rollout_ref.rollout.max_model_len
    if have is not None and have < need:
        return (f"actor_rollout_ref.rollout.max_model_len={have} is less than max_prompt_length +"
                f" max_response_length = {need}: long answers would be cut or fail.")  # fmt: skip
    file = Path(config.actor_rollout_ref.model.path) / "config.json"
    context = (
        json.loads(file.read_text()).get("max_position_embeddings") if file.is_file() else None
    )
    if context and context < need:
        return f"data.max_prompt_length + max_response_length = {need}, but the model's context is {context} tokens."
    budget = config.actor_rollout_ref.actor.ppo_max_token_len_per_gpu
    if config.actor_rollout_ref.actor.use_dynamic_bsz and budget < need:
        return f"lab.hw.tokens_per_gpu={budget} is less than one prompt and answer ({need} tokens)."
    return None


def check_weight_bucket(config: DictConfig) -> str | None:
    """On the CPU no tensor may exceed the bucket of the weight sync: verl's sender would fail or hang."""
    file = (
        Path(OmegaConf.select(config, "actor_rollout_ref.model.path", default="")) / "config.json"
    )
    if config.lab.hw.device != "cpu" or config.lab.spmd or not file.is_file():
        return None
    model = json.loads(file.read_text())
    embedding_mib = model.get("vocab_size", 0) * model.get("hidden_size", 0) * 4 / 2**20
    bucket = config.actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes
    if embedding_mib > bucket:
        return f"lab.hw.weight_bucket_mib={bucket} is smaller than the model's embedding ({embedding_mib:.0f} MiB)."
    return None


def nearest_multiple(size: int, n: int) -> int:
    """The multiple of n next to size, at least n."""
    return max(n, round(size / n) * n)


def nearest_divisor(total: int, wish: int) -> int:
    """The divisor of total next to wish."""
    return min((d for d in range(1, total + 1) if total % d == 0), key=lambda d: abs(d - wish))
