"""Batch arithmetic and lengths: what goes to each worker, how many rows there are, and what fits."""

import math

from omegaconf import DictConfig, OmegaConf

from preflight import tokens
from preflight.checks import Note, applies_to
from preflight.engines import A, divides, engines, facts, nearest_divisor, nearest_multiple, parts
from preflight.facts import given, is_rl, is_sft, rows_read
from preflight.models import trained
from preflight.resolvers import floor_div

PROMPT, ANSWER = "lab.dataset.max_prompt_length", "lab.dataset.max_response_length"
ROOM = 16  # tokens: lengths that are proposed are multiples of it


@applies_to(is_sft)
def check_sft_batch(config: DictConfig) -> str | None:
    """SFT divides its batch among the workers and drops the rest of an epoch."""
    size, n = config.data.train_batch_size, parts(config, next(engines(config)))
    if size % n:
        return f"data.train_batch_size={size} doesn't divide by {n} workers: {nearest_multiple(size, n)} does."
    for kind in ("train", "val"):
        have = rows_read(config, kind)
        if have is not None and have < size:
            smaller = f"Set lab.hw.sft_batch_size={have // n * n}, or have" if have >= n else "Have"
            share = " (data_prep's --val-share)" if kind == "val" else ""
            return (f"data.{kind}_files has {have} rows, fewer than one batch of data.train_batch_size={size}: verl"
                    f" would drop them all. {smaller} more of them{share}.")  # fmt: skip
    return None


@applies_to(is_rl)
def check_samples_per_step(config: DictConfig) -> str | None:
    """The answers of a step are whole groups: a profile counts answers, verl counts prompts."""
    asked, n, prompts = (
        config.lab.hw.samples_per_step,
        config[A].rollout.n,
        config.data.train_batch_size,
    )
    if asked % n == 0 or prompts != floor_div(asked, n):  # then somebody has set it
        return None
    words = f"lab.hw.samples_per_step={asked} doesn't divide by rollout.n={n}: a step has {prompts * n} answers."
    if given("lab.hw.samples_per_step") or n > asked:
        return f"{words} Set lab.hw.samples_per_step={prompts * n}, or data.train_batch_size, the prompts of a step."
    return Note(words)


@applies_to(is_rl)
def check_mini_batches(config: DictConfig) -> str | None:
    """An algorithm asks for so many updates a step, and a small batch can't always be cut that way."""
    asked, prompts, mini = (
        config.lab.mini_batches,
        config.data.train_batch_size,
        config[A].actor.ppo_mini_batch_size,
    )
    if prompts % asked == 0 or mini != floor_div(prompts, asked):  # then somebody has set it
        return None
    if prompts % mini:
        return None  # check_rl_batch refuses that
    words = f"{prompts} prompts a step make {prompts // mini} mini-batches, not lab.mini_batches={asked}."
    if given("lab.mini_batches"):
        return f"{words} Set data.train_batch_size={nearest_multiple(prompts, asked)}, or that number of mini-batches."
    return Note(words)


@applies_to(is_rl)
def check_rl_batch(config: DictConfig) -> str | None:
    """verl gives a mini-batch of answers to each worker, in equal parts."""
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
            good = nearest_multiple(mini, among // math.gcd(n, among))
            return (f"{key}={mini} × rollout.n={n} answers don't divide by {among} workers: {good} does, with"
                    f" data.train_batch_size={nearest_multiple(prompts, good)}.")  # fmt: skip
    have = rows_read(config, "train")
    if have is not None and have < prompts:
        return (f"data.train_files has {have} rows, fewer than data.train_batch_size={prompts}: no step would be made."
                f" Set lab.hw.samples_per_step={have * n} or less, or make more rows.")  # fmt: skip
    return None


@applies_to(is_rl)
def check_refills(config: DictConfig) -> str | None:
    """Prompts are drawn in whole chunks of data.gen_batch_size; dynamic sampling draws them one by one."""
    if config.algorithm.filter_groups.enable:
        return None
    size, prompts = config.data.gen_batch_size, config.data.train_batch_size
    if size is not None and not divides(size, prompts):
        return (f"data.gen_batch_size={size} doesn't divide data.train_batch_size={prompts}: leave it out, or"
                f" set {nearest_divisor(prompts, size)}.")  # fmt: skip
    return None


@applies_to(is_rl)
def check_queue_room(config: DictConfig) -> str | None:
    """All answers of a step, and all of a validation, lie in verl's queue at once."""
    key, rollout = "transfer_queue.backend.SimpleStorage.total_storage_size", config[A].rollout
    validated = rows_read(config, "val") or 0
    sizes = {
        "data.train_batch_size × rollout.n": config.data.train_batch_size * rollout.n,
        "validation rows × rollout.val_kwargs.n": validated * rollout.val_kwargs.n,
    }
    room = OmegaConf.select(config, key)
    for what, size in sizes.items():
        if room is not None and size > room:
            return f"{what} = {size}, more than the queue between the workers holds: set {key}={2 * size}."
    return None


def lengths_that_fit(config: DictConfig, context: int) -> str:
    """What to set, by the longest prompt of the rows that are looked at."""
    by_file = tokens.lengths(config)
    longest = max((max(lengths) for lengths in by_file.values()), default=0)
    prompt = ROOM * math.ceil(longest / ROOM)
    if not longest or prompt > context - ROOM:
        return "Shorten one of the two, or take a model with a longer context."
    looked = sum(map(len, by_file.values()))
    return (f"Of {looked} prompts looked at the longest has {longest} tokens: set {PROMPT}={prompt} and"
            f" {ANSWER}={context - prompt}, or less, which is faster.")  # fmt: skip


@applies_to(is_rl)
def check_lengths(config: DictConfig) -> str | None:
    """A prompt and its answer must fit into vLLM's and the model's context."""
    need = config.data.max_prompt_length + config.data.max_response_length
    have = config[A].rollout.max_model_len
    if have is not None and have < need:
        return (f"{A}.rollout.max_model_len={have} is less than max_prompt_length + max_response_length = {need}:"
                " long answers would be cut or fail.")  # fmt: skip
    context = facts(trained(config)).get("max_position_embeddings")
    if context and context < need:
        prompt, answer = config.data.max_prompt_length, config.data.max_response_length
        return (f"{PROMPT}={prompt} and {ANSWER}={answer} are {need} tokens together, and the model's context is"
                f" {context}. {lengths_that_fit(config, context)}")  # fmt: skip
    if context and have and context < have:
        return f"{A}.rollout.max_model_len={have}, but the model's context is {context} tokens: leave it out."
    return None


@applies_to(is_rl)
def check_weight_bucket(config: DictConfig) -> str | None:
    """On the CPU no tensor may exceed the bucket of the weight sync: verl's sender would fail or hang."""
    if config.lab.hw.device != "cpu":
        return None
    model = facts(trained(config))
    embedding_mib = model.get("vocab_size", 0) * model.get("hidden_size", 0) * 4 / 2**20
    bucket = config[A].rollout.checkpoint_engine.update_weights_bucket_megabytes
    if embedding_mib > bucket:
        return (f"lab.hw.weight_bucket_mib={bucket} is smaller than the model's embedding: set"
                f" {math.ceil(embedding_mib)} or more.")  # fmt: skip
    return None
