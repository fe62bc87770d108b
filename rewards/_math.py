"""Finding an answer in a text, and by math-verify what it means and what it is equal to.

The library's time limits stay off, and its warnings of that: they work in a main thread only. So do
its units: it takes the variable of 2c for one. Its import takes half a second and isn't in a function,
so that the process that follows a stopped one has it from its parent.
"""

import dataclasses
import logging
import re
import unicodedata
from functools import lru_cache
from itertools import accumulate
from typing import Literal, get_args

import math_verify

Mark = Literal["boxed", "hashes", "number"]
MARKS: tuple[Mark, ...] = get_args(Mark)
DEEPEST = 30  # brackets in brackets
BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
NUMBER = re.compile(r"(?:(?<![\w)])-)?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?:/\d+)?(?:\s?\\?%)?")

GAP = r"(?:\\[,;!: ]|~|\s)"
GROUPED = re.compile(rf"(?<=\d){GAP}(?=\d{{3}}(?!\d))")  # 1 234, 1\,234
POWER = re.compile(r"(-?[\d.]+)[eE]([+-]?\d+)")
PERCENT = re.compile(rf"{GAP}*(?:\\?%|(?:\\text\{{ *)?(?:percent|pct)\}}?)$", re.I)
UNIT = re.compile(  # 5 \text{ cm}^2
    rf"(?<=[\d}}]){GAP}*\\(?:text|mathrm|mbox|textrm)\{{[^{{}}]*\}}(?:\^\d|\^\{{\d\}})?$"
)
NOUN = re.compile(  # 18 dollars; but "3 million" and "2 sin x" mean something else
    r"(?<=\d) (?!and|log|exp|sin|cos|tan|pi|hundred|thousand|million|billion|trillion)"
    r"[a-z]{2,}(?: [a-z]+)*$", re.I
)  # fmt: skip
WORDS = re.compile(r"(?=.*[a-z]{4})[a-z]+(?: [a-z]+)*", re.I)
LATEX = math_verify.LatexExtractionConfig(boxed_match_priority=-1)
NORMAL = dataclasses.replace(LATEX.normalization_config, units=False)
LATEX = [dataclasses.replace(LATEX, normalization_config=NORMAL)]
logging.getLogger("math_verify").setLevel(logging.ERROR)


def extract(text: str, accept=MARKS) -> str | None:
    """The answer in a text, as it stands there; in linear time."""
    for mark in accept:
        if mark == "boxed":
            found = _boxed(text)
        elif mark == "hashes":
            found = text.rpartition("####")[2].split("\n", 1)[0] if "####" in text else ""
        else:
            found = ""
            for match in NUMBER.finditer(text):
                found = match[0]
        if found.strip():
            return found.strip()
    return None


def _boxed(text: str) -> str:
    """The content of the box that opens last, if it closes."""
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    box = BOX.match(text, start) if start >= 0 else None
    depth = 1
    for brace in BRACE.finditer(text, box.end()) if box else ():
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if not depth:
            return text[box.end() : brace.start()]
    return ""


def too_much(answer: str, max_length: int) -> bool:
    """Longer or nested deeper than any answer: a parser would take seconds."""
    steps = ({"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(c, 0) for c in answer)
    return len(answer) > max_length or max(accumulate(steps)) > DEEPEST


def _tidy(text: str, units: bool) -> str:
    """As LaTeX between dollars, with what math-verify doesn't read by itself spelt out."""
    text = unicodedata.normalize("NFKC", text).replace("\u2044", "/")  # the bar of ½
    text = text.replace("\\$", "").replace("$", "").replace("°", "^\\circ ")
    text = " ".join(text.split()).rstrip(".")
    bare = PERCENT.sub("", text)
    percent, text = "\\%" * (bare != text), GROUPED.sub("", bare).replace("~", " ")
    if units:
        text = NOUN.sub("", UNIT.sub("", text))
    if match := POWER.fullmatch(text):
        text = f"{match[1]} \\times 10^{{{match[2]}}}"
    elif WORDS.fullmatch(text):
        text = f"\\text{{{text}}}"
    return f"${text}${percent}" if text else ""


def parse(text: str, units: bool) -> list:
    """What the text means, as SymPy objects; empty if nothing. units: leave out those of a number."""
    return math_verify.parse(
        _tidy(text, units), LATEX, fallback_mode="no_fallback", parsing_timeout=None
    )


parse_reference = lru_cache(10_000)(parse)  # of answers none is kept: they may be huge


def equal(right: list, answer: list, decimals: int, strict: bool) -> bool:
    """Whether any of `answer` is equal to any of `right`, as math-verify sees it."""
    return math_verify.verify(
        right, answer, float_rounding=decimals, strict=strict, timeout_seconds=None
    )
