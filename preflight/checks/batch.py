"""Batch arithmetic and lengths: what goes to each worker, how many rows there are, and what fits."""

from math import gcd
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from preflight.checks.files import as_list
from preflight.engines import A, divides, engines, facts, nearest_divisor, nearest_multiple, parts
from preflight.facts import is_rl
from preflight.models import trained


def rows(files) -> int | None:
    """Rows of parquet files; None if one is not there (another check says so)."""
    import pyarrow.parquet as pq

    total = 0
    for file in as_list(files):
        try:
            if not Path(file).is_file():
                return None
            total += pq.read_metadata(file).num_rows
        except (OSError, ValueError):
            return None
    return total if files else None


def read(config: DictConfig, kind: str) -> int | None:
    """Rows that are read for `kind`, train or val; None if that can't be told."""
    have, limit = rows(config.data[f"{kind}_files"]), config.data[f"{kind}_max_samples"]
    return min(have, limit) if have is not None and limit > 0 else have


def check_sft_batch(config: DictConfig) -> str | None:
    """SFT divides its batch among the workers and drops the rest of an epoch."""
    if is_rl(config):
        return None
    size, n = config.data.train_batch_size, parts(config, next(engines(config)))
    if size % n:
        return f"data.train_batch_size={size} doesn't divide by {n} workers: {nearest_multiple(size, n)} does."
    for kind in ("train", "val"):
        have = read(config, kind)
        if have is not None and have < size:
            return (f"data.{kind}_files has {have} rows, fewer than one batch of data.train_batch_size={size}:"
                    " verl would drop them all.")  # fmt: skip
    return None


def check_rl_batch(config: DictConfig) -> str | None:
    """verl gives a mini-batch of answers to each worker, in equal parts."""
    if not is_rl(config):
        return None
    prompts, n = config.data.train_batch_size, config[A].rollout.n
    for engine in engines(config):
        key = f"{engine.key}.ppo_mini_batch_size"
        if engine.key.endswith("ref"):
            continue  # it makes no updates
        mini, among = OmegaConf.select(config, key), parts(config, engine)
        if not divides(mini, prompts):
            good = nearest_divisor(prompts, mini)
            return f"{key}={mini} doesn't divide data.train_batch_size={prompts}: {good} does."
        if mini * n % among:
            good = nearest_multiple(mini, among // gcd(n, among))
            return (f"{key}={mini} × rollout.n={n} answers don't divide by {among} workers: {good} does, with"
                    f" data.train_batch_size={nearest_multiple(prompts, good)}.")  # fmt: skip
    have = read(config, "train")
    if have is not None and have < prompts:
        return f"data.train_files has {have} rows, fewer than data.train_batch_size={prompts}: no step would be made."
    return None


def check_refills(config: DictConfig) -> str | None:
    """Prompts are drawn in whole chunks of data.gen_batch_size; dynamic sampling draws them one by one."""
    if not is_rl(config) or config.algorithm.filter_groups.enable:
        return None
    size, prompts = config.data.gen_batch_size, config.data.train_batch_size
    if size is not None and not divides(size, prompts):
        return (f"data.gen_batch_size={size} doesn't divide data.train_batch_size={prompts}: leave it out, or"
                f" {nearest_divisor(prompts, size)}.")  # fmt: skip
    return None


def check_queue_room(config: DictConfig) -> str | None:
    """All answers of a step, and all of a validation, lie in verl's queue at once."""
    if not is_rl(config):
        return None
    key, rollout = "transfer_queue.backend.SimpleStorage.total_storage_size", config[A].rollout
    sizes = {
        "data.train_batch_size × rollout.n": config.data.train_batch_size * rollout.n,
        "validation rows × rollout.val_kwargs.n": (read(config, "val") or 0) * rollout.val_kwargs.n,
    }
    room = OmegaConf.select(config, key)
    for what, size in sizes.items():
        if room is not None and size > room:
            return (
                f"{what} = {size}, more than the queue between the workers holds: {key}={2 * size}."
            )
    return None


def check_lengths(config: DictConfig) -> str | None:
    """A prompt and its answer must fit into vLLM's and the model's context."""
    if not is_rl(config):
        return None
    need = config.data.max_prompt_length + config.data.max_response_length
    have = config[A].rollout.max_model_len
    if have is not None and have < need:
        return (f"{A}.rollout.max_model_len={have} is less than max_prompt_length + max_response_length = {need}:"
                " long answers would be cut or fail.")  # fmt: skip
    context = facts(trained(config)).get("max_position_embeddings")
    if context and context < need:
        return f"data.max_prompt_length + max_response_length = {need}, but the model's context is {context} tokens."
    if context and have and context < have:
        return f"{A}.rollout.max_model_len={have}, but the model's context is {context} tokens: leave it out."
    return None


def check_weight_bucket(config: DictConfig) -> str | None:
    """On the CPU no tensor may exceed the bucket of the weight sync: verl's sender would fail or hang."""
    if config.lab.hw.device != "cpu" or not is_rl(config):
        return None
    model = facts(trained(config))
    embedding_mib = model.get("vocab_size", 0) * model.get("hidden_size", 0) * 4 / 2**20
    bucket = config[A].rollout.checkpoint_engine.update_weights_bucket_megabytes
    if embedding_mib > bucket:
        return f"lab.hw.weight_bucket_mib={bucket} is smaller than the model's embedding ({embedding_mib:.0f} MiB)."
    return None
