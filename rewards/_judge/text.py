"""What the judge of reward=judge reads and says: a template filled with a row's texts, a verdict.

`{{name}}` in a template is replaced in one pass, so a text that holds `{{reference}}` stays as it
is; single braces, and double ones around anything but a name, are ordinary text. `{{id}}` is a word
made of the row's texts (a hash) that none of them holds: nobody who writes one of them can know it.
"""

import hashlib
import json
import numbers
import re
from collections.abc import Iterable, Mapping
from typing import Any

import json_repair

from rewards._references import THOUGHT, references

FIELD = re.compile(r"\{\{\s*([\w-]+)\s*\}\}")
OBJECT = re.compile(r'\{\s*"')
BRACE = re.compile(r"[{}]")
VERDICT_CHARACTERS = 4000  # of one that has to be repaired
BRACES = 200  # in it: the time that repairing takes grows fast with them
SCORE_KEY = re.compile(r"""(?:["'“”]|[{,]\s*)score\s*["'“”]?\s*:""", re.I)
NUMBER = re.compile(
    r"[\s*_`]*(?P<number>[-+]?\d{1,15}(?:\.\d{0,15})?)[\s*_`]*(?:(?:/|(?:out )?of)\s*(?P<of>\d{1,15})[\s*_`]*)?"
)


class NoVerdict(ValueError):
    """The judge's reply holds no score that counts; the message says why."""


def names_in(template: str) -> set[str]:
    """The fields that a template uses."""
    return set(FIELD.findall(template))


def plain(value: object) -> str:
    """A field's value as text that can be sent: JSON for what is no text, no lone surrogates.

    A number is written as a reference answer is (4.0 as 4); NaN is a value that is missing.
    """
    if hasattr(value, "tolist"):  # numpy's
        value = value.tolist()
    if isinstance(value, numbers.Number) and not isinstance(value, bool):
        value = "".join(references(value))
    if not isinstance(value, str):
        value = "" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def conversation(messages: Any) -> str:
    """A prompt as text: of one message its content, of several each with its role."""
    if isinstance(messages, str):
        return messages

    def said(message: Mapping) -> str:
        content = message.get("content")
        if isinstance(content, Iterable) and not isinstance(content, str | Mapping):
            parts = [part.get("text") or "" for part in content if isinstance(part, Mapping)]
            content = "\n".join(parts)
        return plain(message.get("tool_calls") if content is None else content)

    if len(messages) == 1:
        return said(messages[0])
    return "\n\n".join(f"{m.get('role', 'user')}:\n{said(m)}" for m in messages)


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

    It stands in the last JSON object after the thinking that has a "score" and, where the template shows
    {{id}} and so asks for it (`word`), that id, there or around it: a score that the judge quotes from the
    answer can't have it. JSON that is not well formed (quotes, escapes, commas) is repaired. Without an id,
    a reply that is a number is one.
    Raises NoVerdict, also for a score that is no number or lies outside of the scale.
    """
    said = reply[end_of_thinking(reply) :]
    found = [told for value in objects(said) for told in scores_in(value, word)]
    if not found:
        found = [told for value in repaired(said, word) for told in scores_in(value, word)]
    if not found and word is None and number_in(said, high) is not None:
        found = [said]
    if not found:
        wanted = '"score"' if word is None else '"score" and the right "id"'
        raise NoVerdict(f"the reply has no JSON object with {wanted}")
    score = number_in(found[-1], high)
    if score is None or not low <= score <= high:
        raise NoVerdict(f"the score is no number from {low:g} to {high:g}")
    return (score - low) / (high - low)


def end_of_thinking(reply: str) -> int:
    """Where the last `</think>` ends; 0 without one."""
    return max((closed.end() for closed in THOUGHT.finditer(reply)), default=0)


def number_in(score: object, high: float) -> float | None:
    """A number, or a text that is one (`7`, `**7**`, and `7/10` where `high` is 10); None for anything else."""
    if isinstance(score, str) and (told := NUMBER.fullmatch(score)):
        of = told["of"]
        return float(told["number"]) if of is None or float(of) == high else None
    return score if isinstance(score, int | float) and not isinstance(score, bool) else None


def scores_in(value: object, word: str | None, known: bool = False) -> list:
    """What is said as a "score" in an object, or in objects inside of it where it says none itself.

    known: an object around it had the id; then several inside say nothing, as one may be quoted.
    """
    if isinstance(value, list):
        return [score for part in value for score in scores_in(part, word, known)]
    if not isinstance(value, dict):
        return []
    named = {str(key).strip().casefold(): part for key, part in value.items()}
    known = known or word is None or word in str(named.get("id")).casefold()
    if known and "score" in named:
        return [named["score"]]
    inside = [score for part in value.values() for score in scores_in(part, word, known)]
    return inside if len(inside) == 1 or not known else []


def _pairs(pairs: list) -> dict:
    """An object; one that names a score twice says none: a text in it may have been quoted badly."""
    named = [str(key).strip().casefold() for key, _ in pairs]
    return {} if named.count("score") > 1 else dict(pairs)


DECODER = json.JSONDecoder(object_pairs_hook=_pairs, strict=False)


def objects(text: str) -> list[dict]:
    """The well-formed JSON objects in a text, those inside of others left out; each try goes on where one failed."""
    found, at = [], 0
    while begun := OBJECT.search(text, at):
        try:
            value, at = DECODER.raw_decode(text, begun.start())
            found.append(value)
        except json.JSONDecodeError as error:
            at = max(error.pos, begun.end())
        except (ValueError, RecursionError):
            break
    return found


def repaired(text: str, word: str | None) -> list[dict]:
    """The object that should be the verdict and is not well formed: the last pair of braces around the id.

    One that names a score twice is left out. A text that never closes its braces was cut off.
    """
    spans, opened = [], []  # pairs of braces that stand in no other, unless that is too long
    for brace in BRACE.finditer(text):
        if brace[0] == "{":
            opened.append(brace.start())
        elif opened:
            start, end = opened.pop(), brace.end()
            if end - start <= VERDICT_CHARACTERS:
                while spans and spans[-1][0] > start:
                    spans.pop()
                spans.append((start, end))
    wanted = word or "score"
    for start, end in reversed(spans):
        piece = text[start:end]
        if wanted in piece.casefold():
            if len(SCORE_KEY.findall(piece)) > 1 or piece.count("{") > BRACES:
                return []
            try:
                value = json_repair.loads(piece)
            except (ValueError, RecursionError):
                return []
            return [value] if isinstance(value, dict) else []
    return []
