"""Some rows as they are: prompts that are no messages, that are empty, that are too long for all of them to stay."""

import json
import os
from collections.abc import Iterator
from functools import cache

from omegaconf import DictConfig, OmegaConf

from preflight.checks import applies_to
from preflight.facts import columns_of, data_files, is_rl, is_verls_sft, model_key, row_count
from preflight.models import file_of
from preflight.sample import sample

ROWS = 200  # of a file
CONVERT = "`python -m data_prep convert {0}` makes rows of messages."


def looked_at(config: DictConfig) -> Iterator[tuple[str, int, object]]:
    """(file, number, messages) of some rows."""
    key = config.data.prompt_key if is_rl(config) else config.data.messages_key
    for file in data_files(config):
        columns = columns_of(file)
        if columns and key in columns:
            yield from (
                (place, number, row[key]) for place, number, row in sample(file, ROWS, [key])
            )


def wrong_messages(messages: object) -> str | None:
    """What is wrong with the messages of a row."""
    if isinstance(messages, str):
        return "is text, and verl takes messages [{role, content}]"
    if not messages:
        return "is empty"
    for message in messages:
        if not isinstance(message, dict):
            return "is no list of messages {role, content}"
        if "from" in message and "value" in message:
            return "has from and value (ShareGPT), and verl takes role and content"
        if missing := [name for name in ("role", "content") if name not in message]:
            return f"has a message without {' and '.join(missing)}"
    if all(not message["content"] for message in messages):
        return "has no text"
    return None


@applies_to(lambda config: is_rl(config) or is_verls_sft(config))
def check_messages(config: DictConfig) -> str | None:
    """Rows whose prompt a chat template can't render."""
    if any(row_count(file) == 0 for file in data_files(config)):
        empty = [os.path.relpath(file) for file in data_files(config) if row_count(file) == 0]
        return f"{', '.join(empty)} has no rows."
    key = "data.prompt_key" if is_rl(config) else "data.messages_key"
    column = OmegaConf.select(config, key)
    for file, number, messages in looked_at(config):
        if wrong := wrong_messages(messages):
            cure = CONVERT.format(file) if "verl takes" in wrong else "Leave such rows out."
            return f"{file}, row {number}: {column} {wrong}. {cure}"
    return None


@cache
def tokenizer_at(path: str):
    """A model's tokenizer.json, read without transformers; None if it has none here."""
    from tokenizers import Tokenizer

    file = file_of(path, "tokenizer.json")
    return Tokenizer.from_file(str(file)) if file else None


def texts(messages: list[dict]) -> str:
    """The words of messages, without what a template puts around them."""
    return "\n".join(
        m["content"] if isinstance(m["content"], str) else json.dumps(m["content"])
        for m in messages
    )


@applies_to(lambda config: is_rl(config) or is_verls_sft(config))
def check_long_rows(config: DictConfig) -> str | None:
    """Rows that are too long by their words alone, so with a template, too. `make check` counts exactly."""
    model = OmegaConf.select(config, model_key(config))
    tokenizer = tokenizer_at(model.tokenizer_path or model.path)
    rows = list(looked_at(config)) if tokenizer else []
    key = "max_prompt_length" if is_rl(config) else "max_length"
    most, by_file = config.data[key], {}
    for (file, *_), encoded in zip(
        rows, tokenizer.encode_batch([texts(m) for *_, m in rows]) if rows else (), strict=True
    ):
        by_file.setdefault(file, []).append(len(encoded.ids))
    for file, lengths in by_file.items():
        long = sum(length > most for length in lengths)
        what = f"{file}: {long} of {len(lengths)} rows looked at have more than data.{key}={most} tokens"
        what += f" (up to {max(lengths)})"
        if long == len(lengths):
            return f"{what}: none is left. Set lab.dataset.{key if is_rl(config) else 'max_prompt_length'} higher."
        if long and is_rl(config) and not config.data.filter_overlong_prompts:
            return f"{what}: vLLM refuses them. Set data.filter_overlong_prompts=true, which leaves them out."
    return None
