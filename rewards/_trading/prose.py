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
class Prose:
    """What the sentences that count have in them."""

    sentences: int = 0
    aspects: set = field(default_factory=set)
    names: set = field(default_factory=set)  # of indicators
    reasons: set = field(default_factory=set)
    words: set = field(default_factory=set)
    parts: int = 0  # paragraphs, items, headings
    kept: float = 0.0  # share of the prose that counts

    def quality(self) -> float:
        """0 to 1: sentences, reasons and a form 0.4; what is explained, and indicators named 0.6."""
        length, reasons = _text.saturate(self.sentences, 5), _text.saturate(len(self.reasons), 3)
        structure = 0.5 * length + 0.25 * reasons + 0.25 * _text.saturate(self.parts, 3)
        aspects, named = len(self.aspects) / len(ASPECTS), _text.saturate(len(self.names), 2)
        return 0.4 * self.kept * structure + 0.48 * aspects + 0.12 * named


def asked(info: object) -> str:
    """What the prompt asks for: the last user message, else the fields of the dataset."""
    if not isinstance(info, Mapping):
        return ""
    messages = info.get("messages")
    listed = [] if messages is None or isinstance(messages, str) else list(messages)
    for message in reversed(listed):
        if isinstance(message, Mapping) and message.get("role") == "user":
            return _text.fold(message.get("content"))[:READ]
    fields = (info.get(name) for name in ("name", "description", "relevant_symbols"))
    return _text.fold("\n".join(text for text in fields if isinstance(text, str)))[:READ]


def read(text: str, prompt: str) -> Prose:
    """The evidence in some prose. `prompt` is folded."""
    prose, folded, total, kept = Prose(), _text.fold(text[:READ]), 0, 0
    copied, seen = _text.Seen(*map(_text.tokens, _text.sentences(prompt))), _text.Seen()
    for sentence in _text.sentences(folded):
        words = _text.tokens(sentence)
        size, grams = _text.units(words), _text.grams(words)
        total += size
        rambles = len(set(grams)) < (1 - REPEATED) * len(grams)
        if rambles or copied.share(words) >= COPIED or seen.share(words) >= REPEATED:
            continue
        seen.add(words)
        if not _text.is_prose(words, 2 * CONTEXT):
            continue
        kept += size
        prose.sentences += 1
        prose.words |= set(words)
        prose.reasons |= set(REASONS.findall(sentence))
        evidence = [(prose.aspects, name) for name, p in ASPECTS.items() if p.search(sentence)]
        evidence += [(prose.names, name) for name, p in NAMES.items() if p.search(sentence)]
        for where, name in evidence[: size // CONTEXT]:
            where.add(name)
    prose.parts = min(1 + len(BREAK.findall(folded)), prose.sentences)
    prose.kept = kept / max(1, total)
    return prose


def response_to(prompt: str, prose: Prose, computed: set[str], in_code: set[str]) -> float | None:
    """0 to 1: how much of what was asked for is there; None if the prompt names nothing.

    Indicators count where the code computes them, other words where prose or names in code have them.
    """
    parts = []
    if indicators := {name for name, pattern in NAMES.items() if pattern.search(prompt)}:
        parts.append((0.6, len(indicators & computed) / len(indicators)))
    words = {w for w in _text.tokens(prompt) if len(w) > 1 and not w.isdigit()}
    words -= _text.FUNCTION_WORDS | TASK_WORDS
    if words:
        share = len(words & (prose.words | in_code)) / len(words)
        parts.append((0.4, _text.saturate(share, 0.5)))  # in one's own words will do
    return sum(w * p for w, p in parts) / sum(w for w, _ in parts) if parts else None
