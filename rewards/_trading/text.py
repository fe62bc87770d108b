"""What the prose of an answer says about a trading strategy, and what its prompt asked for.

A sentence counts if it is prose, neither a copy of the prompt nor of an earlier sentence, and gives
at most one piece of evidence (an aspect, an indicator's name) for every CONTEXT units of its length.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from rewards import _text

WORDS = _text.load("trading.yaml")
ASPECTS = {name: _text.pattern([regexp]) for name, regexp in WORDS["aspects"].items()}
NAMES = {name: _text.pattern([regexp]) for name, regexp in WORDS["names"].items()}
REASONS = _text.pattern([WORDS["reasons"]])
TASK_WORDS = set(WORDS["task_words"].split())
BREAK = re.compile(r"\n[ \t]*(?:\n|[-*#\d])")  # a blank line, an item of a list, a heading
READ = 20_000  # characters
COPIED, REPEATED, CONTEXT = 0.7, 0.6, 5


@dataclass
class Said:
    """`kept`: share of the prose that counts."""

    sentences: int = 0
    aspects: set = field(default_factory=set)
    names: set = field(default_factory=set)  # of indicators
    reasons: set = field(default_factory=set)
    parts: int = 0  # paragraphs, items, headings
    kept: float = 0.0
    words: set = field(default_factory=set)

    def structure(self) -> float:
        """0 to 1: several sentences, reasons, and a form."""
        form = _text.saturate(self.sentences, 5), _text.saturate(len(self.reasons), 3)
        return self.kept * (0.5 * form[0] + 0.25 * form[1] + 0.25 * _text.saturate(self.parts, 3))

    def explanation(self) -> float:
        """0 to 1: entry, exit, risk, the market that it is for, what can go wrong; indicators."""
        aspects = _text.saturate(len(self.aspects), len(ASPECTS))
        return 0.8 * aspects + 0.2 * _text.saturate(len(self.names), 2)


def asked(info: object) -> str:
    """What the prompt asks for: the last user message, else the fields of the dataset."""
    if not isinstance(info, Mapping):
        return ""
    messages = info.get("messages")
    for message in reversed(
        [] if messages is None or isinstance(messages, str) else list(messages)
    ):
        if isinstance(message, Mapping) and message.get("role") == "user":
            return _text.fold(message.get("content"))[:READ]
    fields = (info.get(name) for name in ("name", "description", "relevant_symbols"))
    return _text.fold("\n".join(text for text in fields if isinstance(text, str)))[:READ]


def named(text: str) -> set[str]:
    """The indicators that a folded text names."""
    return {name for name, pattern in NAMES.items() if pattern.search(text)}


def read(prose: str, prompt: str) -> Said:
    """The evidence in some prose. `prompt` is folded."""
    said, folded = Said(), _text.fold(prose[:READ])
    copied, seen = _text.Seen(*map(_text.tokens, _text.sentences(prompt))), _text.Seen()
    total, kept = 0, 0
    for sentence in _text.sentences(folded):
        words = _text.tokens(sentence)
        size = _text.units(words)
        total += size
        grams = _text.grams(words)
        rambles = len(set(grams)) < (1 - REPEATED) * len(grams)
        if rambles or copied.share(words) >= COPIED or seen.share(words) >= REPEATED:
            continue
        seen.add(words)
        if not _text.is_prose(words, 2 * CONTEXT):
            continue
        kept += size
        said.sentences += 1
        said.words |= set(words)
        said.reasons |= set(REASONS.findall(sentence))
        evidence = [(said.aspects, name) for name, p in ASPECTS.items() if p.search(sentence)]
        evidence += [(said.names, name) for name in sorted(named(sentence))]
        for where, name in evidence[: size // CONTEXT]:
            where.add(name)
    said.parts = min(1 + len(BREAK.findall(folded)), said.sentences)
    said.kept = kept / total if total else 0.0
    return said


def response_to(prompt: str, said: Said, computed: set[str], in_code: set[str]) -> float | None:
    """0 to 1: how much of what was asked for is there; None if the prompt names nothing.

    Indicators count where the code computes them, other words where prose or names in code have them.
    """
    parts = []
    if indicators := named(prompt):
        parts.append((0.6, len(indicators & computed) / len(indicators)))
    words = {w for w in _text.tokens(prompt) if len(w) > 1 and not w.isdigit()}
    words -= _text.FUNCTION_WORDS | TASK_WORDS
    if words:
        share = len(words & (said.words | in_code)) / len(words)
        parts.append((0.4, _text.saturate(share, 0.5)))  # in one's own words will do
    return sum(w * p for w, p in parts) / sum(w for w, _ in parts) if parts else None
