"""What the judge of reward=judge reads and says: a template filled with a row's texts, a verdict.

`{{name}}` in a template is replaced in one pass, so a text that holds `{{reference}}` stays as it
is; single braces, and double ones around anything but a name, are ordinary text. `{{id}}` is a word
made of the row's texts (a hash) that none of them holds: nobody who writes one of them can know it.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

FIELD = re.compile(r"\{\{\s*([\w-]+)\s*\}\}")
REPLY_CHARACTERS = 16_000  # of a reply's end: a verdict is short, and stands last
OBJECT = re.compile(r'\{\s*"')
DECODER = json.JSONDecoder()


class NoVerdict(ValueError):
    """The judge's reply holds no score that counts; the message says why."""


def names_in(template: str) -> set[str]:
    """The fields that a template uses."""
    return set(FIELD.findall(template))


def plain(value: object) -> str:
    """A field's value as text that can be sent: JSON for what is no text, no lone surrogates."""
    if not isinstance(value, str):
        value = "" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def conversation(messages: Any) -> str:
    """A prompt as text: of one message its content, of several each with its role."""
    if isinstance(messages, str):
        return messages

    def said(content: object) -> str:
        if isinstance(content, Sequence) and not isinstance(content, str):
            content = "\n".join(p.get("text", "") for p in content if isinstance(p, Mapping))
        return plain(content)

    if len(messages) == 1:
        return said(messages[0]["content"])
    return "\n\n".join(f"{m['role']}:\n{said(m['content'])}" for m in messages)


def fields_of(
    names: set[str], response: str, reference: object, info: Mapping, scale: tuple[float, float]
) -> dict[str, str]:
    """The row's text for each name, and its id. ValueError for a name that the row doesn't have."""
    known = {**info, "response": response, "reference": reference}
    known |= {"low": f"{scale[0]:g}", "high": f"{scale[1]:g}"}
    prompt = info.get("messages", info.get("prompt"))
    if prompt is not None:
        known["prompt"] = conversation(prompt)
    if missing := sorted(names - {"id"} - known.keys()):
        there = ", ".join(sorted(known))
        raise ValueError(f"template: {{{{{missing[0]}}}}} is not in the row. There is: {there}")
    texts = {name: plain(known[name]) for name in sorted(names - {"id"})}
    word = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
    return texts | {"id": word[:12]}


def fill(template: str, texts: Mapping[str, str]) -> str:
    """The template with every {{name}} replaced."""
    return FIELD.sub(lambda found: texts[found[1]], template)


def verdict(reply: str, word: str | None, low: float, high: float) -> float:
    """The score in a reply, scaled to [0, 1].

    It stands in the last JSON object that has a "score" and, where the template shows {{id}} and so
    asks for it (`word`), that id: a score that the judge quotes from the answer can't have it.
    Raises NoVerdict, also for a score that is no number or lies outside of the scale.
    """
    found = [
        told
        for told in objects(reply[-REPLY_CHARACTERS:])
        if "score" in told and (word is None or told.get("id") == word)
    ]
    if not found:
        wanted = '"score"' if word is None else '"score" and the right "id"'
        raise NoVerdict(f"the reply has no JSON object with {wanted}")
    score = found[-1]["score"]
    if isinstance(score, bool) or not isinstance(score, int | float) or not low <= score <= high:
        raise NoVerdict(f"the score is no number from {low:g} to {high:g}")
    return (score - low) / (high - low)


def objects(text: str) -> list[dict]:
    """The JSON objects in a text, those inside of others left out."""
    found, end = [], 0
    while begun := OBJECT.search(text, end):
        try:
            value, end = DECODER.raw_decode(text, begun.start())
            found.append(value)
        except (ValueError, RecursionError):
            end = begun.end()
    return found
