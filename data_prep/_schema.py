"""What a row must be: RL rows, SFT rows, preference pairs and process labels.

`KINDS` holds the columns of each kind and `check` finds what is wrong with a row, each problem as
"field: what is wrong". A message is {role, content}, both texts.

rl          data_source, prompt (messages, the last one not the assistant's), ability,
            reward_model {style, ground_truth}, extra_info {index, split, ...}
sft         messages (the last one the assistant's)
preference  prompt, chosen, rejected (messages; chosen and rejected end with the assistant's)
process     prompt, steps (texts), labels (one a step, each from 0 to 1)
"""

from collections.abc import Iterable, Iterator, Mapping

import pyarrow as pa

ROLES = ("system", "user", "assistant", "tool")
MESSAGES = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))
REWARD_MODEL = pa.struct({"style": pa.string(), "ground_truth": pa.string()})
EXTRA_INFO = {"index": pa.int64(), "split": pa.string()}
KINDS = {
    "rl": {
        "data_source": pa.string(),
        "prompt": MESSAGES,
        "ability": pa.string(),
        "reward_model": REWARD_MODEL,
        "extra_info": pa.struct(EXTRA_INFO),
    },
    "sft": {"messages": MESSAGES},
    "preference": {"prompt": MESSAGES, "chosen": MESSAGES, "rejected": MESSAGES},
    "process": {
        "prompt": MESSAGES,
        "steps": pa.list_(pa.string()),
        "labels": pa.list_(pa.float64()),
    },
}


def arrow(kind: str, extra: Mapping[str, pa.DataType] | None = None) -> pa.Schema:
    """The parquet schema of `kind`; `extra` are the further fields of an RL row's extra_info."""
    columns = dict(KINDS[kind])
    if extra:
        columns["extra_info"] = pa.struct({**EXTRA_INFO, **extra})
    return pa.schema(columns)


def kind_of(columns: Iterable[str]) -> str | None:
    """The kind whose columns are all there; None if there is none."""
    return next((kind for kind, needed in KINDS.items() if set(needed) <= set(columns)), None)


def preference_row(prompt: list, better: str, worse: str) -> dict:
    """A pair of two answers to the messages of a prompt."""
    chosen, rejected = ([{"role": "assistant", "content": text}] for text in (better, worse))
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def check(kind: str, row: object) -> list[str]:
    """The problems of a row of `kind`; empty if it is good."""
    if not isinstance(row, Mapping):
        return [f"row: {_is(row)}, not a mapping"]
    missing = [f"{field}: missing" for field in KINDS[kind] if row.get(field) is None]
    return missing or list(CHECKS[kind](row))


def _is(value: object) -> str:
    return "missing" if value is None else f"is of type {type(value).__name__}"


def _text(field: str, value: object, empty: bool = False) -> Iterator[str]:
    """Problems of a text; `empty` allows the empty one."""
    if not isinstance(value, str):
        yield f"{field}: {_is(value)}, not a text"
    elif not empty and not value.strip():
        yield f"{field}: empty"
    elif not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            yield f"{field}: not valid UTF-8"


def _messages(field: str, value: object, last: tuple[str, ...]) -> Iterator[str]:
    """Problems of a list of messages whose last role must be one of `last`."""
    if not isinstance(value, list) or not value:
        yield f"{field}: {'empty' if value == [] else _is(value) + ', not a list of messages'}"
        return
    for i, message in enumerate(value):
        at = f"{field}[{i}]"
        if not isinstance(message, Mapping):
            yield f"{at}: {_is(message)}, not a message {{role, content}}"
            continue
        role, content = message.get("role"), message.get("content")
        for more in message:
            if more not in ("role", "content") and message[more] is not None:
                yield f"{at}.{more}: a message is {{role, content}}, this would be lost"
        if role not in ROLES:
            yield f"{at}.role: {role!r} is none of {', '.join(ROLES)}"
        elif role == "system" and i > 0:
            yield f"{at}.role: a system message that is not the first"
        elif i == len(value) - 1 and role not in last:
            yield f"{at}.role: the last message is of {role}, not of {' or '.join(last)}"
        # Only a system message may say nothing: some templates put their own text for it.
        yield from _text(f"{at}.content", content, empty=role == "system")


def _rl(row: Mapping) -> Iterator[str]:
    yield from _text("data_source", row["data_source"])
    yield from _messages("prompt", row["prompt"], ("user", "tool"))
    yield from _text("ability", row["ability"])
    model, info = row["reward_model"], row["extra_info"]
    if isinstance(model, Mapping):
        yield from _text("reward_model.style", model.get("style"))
        # A reward that needs no reference answer (a format, a judge) has an empty one.
        yield from _text("reward_model.ground_truth", model.get("ground_truth"), empty=True)
    else:
        yield f"reward_model: {_is(model)}, not {{style, ground_truth}}"
    if isinstance(info, Mapping):
        index = info.get("index")
        if not isinstance(index, int) or isinstance(index, bool) or index < 0:
            yield f"extra_info.index: {index!r} is not a number from 0"
        yield from _text("extra_info.split", info.get("split"))
        for name, value in info.items():
            if isinstance(value, str) and name != "split":
                yield from _text(f"extra_info.{name}", value, empty=True)
    else:
        yield f"extra_info: {_is(info)}, not {{index, split, ...}}"


def _sft(row: Mapping) -> Iterator[str]:
    yield from _messages("messages", row["messages"], ("assistant",))
    if isinstance(row["messages"], list) and len(row["messages"]) == 1:
        yield "messages: an answer without a question"


def _preference(row: Mapping) -> Iterator[str]:
    yield from _messages("prompt", row["prompt"], ("user", "tool"))
    yield from _messages("chosen", row["chosen"], ("assistant",))
    yield from _messages("rejected", row["rejected"], ("assistant",))
    if row["chosen"] == row["rejected"]:
        yield "rejected: the same as chosen"


def _process(row: Mapping) -> Iterator[str]:
    yield from _messages("prompt", row["prompt"], ("user", "tool"))
    steps, labels = row["steps"], row["labels"]
    if not isinstance(steps, list) or not steps:
        yield f"steps: {'empty' if steps == [] else _is(steps) + ', not a list of texts'}"
        return
    for i, step in enumerate(steps):
        yield from _text(f"steps[{i}]", step)
    if not isinstance(labels, list) or len(labels) != len(steps):
        yield f"labels: not a list of {len(steps)} numbers, one a step"
        return
    for i, label in enumerate(labels):
        if not isinstance(label, int | float) or not 0 <= label <= 1:
            yield f"labels[{i}]: {label!r} is not a number from 0 to 1"


CHECKS = {"rl": _rl, "sft": _sft, "preference": _preference, "process": _process}
