"""Finding the final answer in a text, in linear time: in a box, after hashes, the last number."""

import re
from collections import deque
from itertools import accumulate
from typing import Literal, get_args

from rewards import _notation

Mark = Literal["boxed", "hashes", "number"]
MARKS: tuple[Mark, ...] = get_args(Mark)
DEEPEST = 30  # brackets in brackets

BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:(\{)|(?=[-+]?(?:\d|\\[a-zA-Z])))")
BARE = re.compile(r"[-+]?(?:\\(?!\)|\])|[^\s$\\])+")  # \boxed\frac12, up to a blank or a dollar
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
SAYS_NOTHING = re.compile(
    r"(?:[\s._…?$~`*#{}]|\\(?:[lc]?dots|quad|text|phantom|[,;!: ])"
    r"|(?:the |your |final |your final )?answer(?: here)?)*",
    re.I,
)
HEADING = re.compile(r"[^\w\\$]*[a-z]{2}", re.I)  # "#### Step 1", "#### Conclusion"

BLANK = r"[ \u00a0\u2009\u202f]"
BRACES = r"\{(?:[^{}]|\{[^{}]*\})*\}"
GROUPS = rf"\d{{1,3}}(?:(?:,|\{{,\}}|\\,|{BLANK})\d{{3}})+(?!\d)"
PLAIN = rf"(?:(?:{GROUPS}|\d+)(?:\.\d+)?|\.\d+)"
FRACTION = rf"\\[dt]?frac\s*(?:{BRACES}|\d)\s*(?:{BRACES}|\d)"
FACTOR = rf"(?:{FRACTION}|\\sqrt\s*(?:\[\d+\])?(?:{BRACES}|\d)|√\(?\d+\)?|\\pi\b|π)"
MINUS = r"(?<![\w)])[-−–－﹣]"  # not that of 3-4
TEN = r"\s?(?:\\times|×|\\cdot)\s?10\^?(?:\{[-−]?\d+\}|\d|[⁻⁰¹²³⁴-⁹]+)"
LARGE = r"\s?\\?%|\s(?:percent|pct|hundred|thousand|million|billion|trillion)\b|\s?[百千万萬亿億]"
NUMBER = re.compile(  # of prose, with what belongs to it
    rf"(?:{MINUS}(?:\\?[$€£¥]\s?)?|(?<![\w)])\\?[$€£¥]-)?"
    rf"(?:\d+{BLANK}\d+/\d+|\d+:\d+|{PLAIN}(?:[eE][-+]?\d+\b)?(?:/\d+)?|{FACTOR})"
    rf"(?:{FACTOR}|/\d+|(?<=[\d}}])\^(?:\{{-?\d+\}}|\d+)|{TEN})*(?:{LARGE})?"
)
FORMULA = re.compile(  # in dollars, as pandoc knows them from prices
    r"\$\$([^$]+)\$\$|(?<![\\$])\$(?![\s$])([^$\n]*[^\s$\\])\$(?!\d)"
    r"|\\\(((?:(?!\\[()])[^\n])+)\\\)|\\\[((?:(?!\\[\[\]]).)+)\\\]",
    re.DOTALL,
)


def extract(text: str, accept=MARKS) -> str | None:
    """The answer in a text, as it stands there; in linear time."""
    found = {"boxed": _boxed, "hashes": _hashed, "number": _last_number}
    return next((answer for mark in accept if (answer := found[mark](text).strip())), None)


def _boxed(text: str) -> str:
    """What stands in the last box that says something; empty if one that opens later never closes."""
    boxes = list(BOX.finditer(text))
    ends = _closing(text) if boxes else {}
    for box in reversed(boxes):
        if not box[1]:
            content = BARE.match(text, box.end())[0].rstrip(".,;")
        elif (end := ends.get(box.end() - 1)) is None:
            return ""
        else:
            content = text[box.end() : end]
        if not SAYS_NOTHING.fullmatch(content):
            return content
    return ""


def _closing(text: str) -> dict[int, int]:
    """Where each brace that opens is closed."""
    open_at, ends = [], {}
    for brace in BRACE.finditer(text):
        if brace[0] == "{":
            open_at.append(brace.start())
        elif brace[0] == "}" and open_at:
            ends[open_at.pop()] = brace.start()
    return ends


def _hashed(text: str) -> str:
    """The rest of the line after the last `####` that is no heading: words, with more text below."""
    below = False
    for part in reversed(text.split("####")[1:]):
        line, _, rest = part.partition("\n")
        below = below or bool(rest.strip())
        line = _notation.without_label(line.strip())
        if line and not (below and HEADING.match(line)):
            return line
        below = True
    return ""


def _last_number(text: str) -> str:
    """The last number, or the last side of the formula that it stands in."""
    found, formula = _last(NUMBER, text), _last(FORMULA, text)
    if not found:
        return ""
    if formula and formula.start() <= found.start() < formula.end():
        percent = re.match(r"\s?\\?%", text[formula.end() : formula.end() + 3])
        inside = next(part for part in formula.groups() if part)
        return inside.rpartition("=")[2] + (percent[0] if percent else "")
    return found[0]


def _last(pattern: re.Pattern, text: str) -> re.Match | None:
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)


def too_much(answer: str, max_length: int) -> bool:
    """Longer or nested deeper than any answer: a parser would take seconds."""
    steps = ({"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(c, 0) for c in answer)
    return len(answer) > max_length or max(accumulate(steps)) > DEEPEST
