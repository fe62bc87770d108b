"""Questions of a file: prompts, and what their answers are scored with."""

import json
import math
import numbers
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from data_prep._read import Broken, read
from preflight.mistakes import Mistake
from rewards._rows import INFO_KEYS, TRUTH_KEYS, info_of

PROMPTS = ("prompt", "messages", "question", "instruction", "query", "problem", "input")
TRUTHS = (*TRUTH_KEYS, "reference", "answer", "solution", "output")
SHORT = 100  # characters of a text that may be a category
MOST_COLUMNS = 20


class Row(NamedTuple):
    """A question."""

    number: int  # from 0, through all the files
    messages: list[dict]
    truth: object  # None: there is none
    info: dict
    source: str
    columns: dict  # short values of the row, such as a category

    @property
    def reward_row(self) -> dict:
        """As a reward's file has it."""
        return {
            "data_source": self.source,
            "prompt": self.messages,
            "ground_truth": self.truth,
            "extra_info": self.info,
        }


class Columns(NamedTuple):
    """Where in a row what stands; None: found by its usual name."""

    prompt: str | None = None
    truth: str | None = None
    system: str | None = None  # a text of one's own before each prompt


def rows_of(files: list[Path], columns: Columns, most: int | None = None) -> Iterator[Row]:
    """The questions of parquet, JSON, JSONL or CSV files, one at a time; the first `most` of them.

    Raises Mistake for a row that can't be used, with its number.
    """
    number = 0
    for file in files:
        for i, raw in enumerate(read(file)):
            if most is not None and number >= most:
                return
            place = f"{file}, row {i} (from 0)"
            if isinstance(raw, Broken):
                raise Mistake(f"{place}: {raw.why}: {raw.text[:200]}")
            yield made(raw, number, columns, place, file)
            number += 1
    if not number:
        raise Mistake(f"{', '.join(map(str, files))}: no rows")


def made(raw: dict, number: int, columns: Columns, place: str, file: Path) -> Row:
    """A row as a question; `place` is what a message calls it."""
    try:
        json.dumps(raw, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        raise Mistake(
            f"{place}: its text is not UTF-8: save the file as UTF-8 (in Excel: CSV UTF-8), or"
            f" `python -m data_prep convert {file} --encoding cp1252` (or whatever it has) makes parquet of it"
        ) from None
    name = columns.prompt or next((n for n in PROMPTS if filled(raw.get(n))), None)
    if name is None or not filled(field(raw, name)):
        raise Mistake(
            f"{place}: no prompt. Its columns: {', '.join(raw)}. Name one: --prompt COLUMN"
        )
    messages, answered = messages_of(field(raw, name), place, name)
    if name == "instruction" and filled(raw.get("input")):  # Alpaca's way
        messages[-1] = messages[-1] | {"content": f"{messages[-1]['content']}\n\n{raw['input']}"}
    if columns.system:
        rest = [message for message in messages if message["role"] != "system"]
        messages = [{"role": "system", "content": columns.system}, *rest]
    info = info_of(raw | {"prompt": messages})
    truth = truth_of(raw, columns.truth, name, place)
    source = raw.get("data_source")
    return Row(
        number, messages, answered if truth is None else truth, info,
        source if isinstance(source, str) else "", short_columns(raw, info),
    )  # fmt: skip


def filled(value: object) -> bool:
    """Whether a cell holds something."""
    return (
        value is not None
        and value != ""
        and value != []
        and not (isinstance(value, float) and math.isnan(value))
    )


def field(raw: Mapping, name: str) -> object:
    """A column, or `extra_info.KEY`, `reward_model.KEY`."""
    value: object = raw
    for part in (name,) if name in raw else name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def messages_of(value: object, place: str, name: str) -> tuple[list[dict], object | None]:
    """The messages of a prompt; of a finished conversation its last answer apart."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}], None
    if not isinstance(value, list) or not all(
        isinstance(m, Mapping)
        and isinstance(m.get("role"), str)
        and isinstance(m.get("content"), str)
        for m in value
    ):
        raise Mistake(f"{place}: {name} is neither a text nor a list of"
                      ' {"role": ..., "content": ...}')  # fmt: skip
    messages = [{"role": m["role"], "content": m["content"]} for m in value]
    if len(messages) > 1 and messages[-1]["role"] == "assistant":
        return messages[:-1], messages[-1]["content"]
    return messages, None


def truth_of(raw: Mapping, name: str | None, prompt: str, place: str) -> object:
    """The ground truth; None if there is none."""
    if name:
        value = field(raw, name)
        if value is None:
            raise Mistake(f"{place}: no column {name}. Its columns: {', '.join(raw)}")
        return value
    nested = raw.get("reward_model")
    if isinstance(nested, Mapping) and nested.get("ground_truth") is not None:
        return nested["ground_truth"]
    return next((raw[n] for n in TRUTHS if n != prompt and filled(raw.get(n))), None)


def short_columns(raw: Mapping, info: Mapping) -> dict:
    """The values by which questions can be told apart: short texts and whole numbers, of the row and its extra_info."""
    kept: dict[str, object] = {}
    for name, value in [*raw.items(), *info.items()]:
        short = (
            len(value) <= SHORT
            if isinstance(value, str)
            else isinstance(value, numbers.Integral) and abs(int(value)) < 2**63
        )
        known = name in (*PROMPTS, *TRUTHS, *INFO_KEYS, "index", "split")
        if short and not known and len(kept) < MOST_COLUMNS:
            kept.setdefault(name, value)
    return kept
