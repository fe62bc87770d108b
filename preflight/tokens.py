"""Lengths of some rows in tokens, without torch: by tokenizer.json, and by the chat template where that decides."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from preflight.facts import columns_of, data_files, is_rl, model_key
from preflight.models import file_of
from preflight.sample import sample

ROWS = 200  # of a file
AROUND = 300  # tokens that a template puts around the words, at most (SmolLM3's system prompt has some 200)
SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")


def looked_at(config: DictConfig) -> Iterator[tuple[str, int, Any]]:
    """(file, number, messages) of some rows."""
    key = config.data.prompt_key if is_rl(config) else config.data.messages_key
    for file in data_files(config):
        columns = columns_of(file)
        if columns and key in columns:
            yield from read(file, key, Path(file).stat().st_mtime_ns)


@cache
def read(file: str, column: str, mtime_ns: int) -> list[tuple[str, int, Any]]:
    """(file, number, value) of a column of some rows; read once for the checks of a start."""
    return [(place, number, row[column]) for place, number, row in sample(file, ROWS, [column])]


def wrong_messages(messages: Any) -> str | None:
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


@cache
def tokenizer_at(path: str):
    """A model's tokenizer.json, read without transformers; None if it has none here."""
    from tokenizers import Tokenizer

    file = file_of(path, "tokenizer.json")
    return Tokenizer.from_file(str(file)) if file else None


def words(messages: list[dict]) -> str:
    """Messages without what a template puts around them."""
    return "\n".join(
        m["content"] if isinstance(m["content"], str) else json.dumps(m["content"])
        for m in messages
    )


def rendered(config: DictConfig, conversations: list[list[dict]]) -> list[str] | None:
    """Messages as the run's chat template renders them; None if it has none here, or can't."""
    model = OmegaConf.select(config, model_key(config))
    path = model.tokenizer_path or model.path
    file, own = file_of(path, "tokenizer_config.json"), file_of(path, "chat_template.jinja")
    known = json.loads(file.read_text()) if file else {}
    template = model.custom_chat_template or (
        own.read_text() if own else known.get("chat_template")
    )
    if not isinstance(template, str):
        return None
    from transformers.utils.chat_template_utils import render_jinja_template

    special = {name: known[name] for name in SPECIAL if known.get(name)}
    special = {k: v["content"] if isinstance(v, dict) else v for k, v in special.items()}
    options = OmegaConf.to_container(config.data.apply_chat_template_kwargs, resolve=True)
    try:
        return render_jinja_template(
            conversations,
            chat_template=template,
            **{"add_generation_prompt": is_rl(config), **special, **options},
        )[0]
    except Exception:  # whatever a template raises; `make check` says it
        return None


def lengths(config: DictConfig, most: int | None = None) -> dict[str, list[int]]:
    """Tokens of each good row that is looked at, by file; nothing if the tokenizer is not here.

    Args:
        most: a limit. Rows that are all far below it are counted by their words alone.
    """
    model = OmegaConf.select(config, model_key(config))
    tokenizer = tokenizer_at(model.tokenizer_path or model.path)
    rows = [row for row in looked_at(config) if not wrong_messages(row[-1])] if tokenizer else []
    if not rows:
        return {}

    def count(texts: list[str]) -> list[int]:
        return [len(one.ids) for one in tokenizer.encode_batch(texts, add_special_tokens=False)]

    found = count([words(messages) for *_, messages in rows])
    if most is None or max(found) > most - AROUND:
        texts = rendered(config, [messages for *_, messages in rows])
        found = count(texts) if texts else found
    by_file: dict[str, list[int]] = {}
    for (file, *_), length in zip(rows, found, strict=True):
        by_file.setdefault(file, []).append(length)
    return by_file
