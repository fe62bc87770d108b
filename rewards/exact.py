"""`reward=exact`: is the answer the reference answer, letter for letter after a normalisation of both; score 0 or 1.

Normalisation as in SQuAD (Rajpurkar et al., arXiv:1606.05250: lower case, no punctuation, no articles,
single spaces) after Unicode NFKC; each step is an option. Punctuation is that of every script. Unlike SQuAD's,
it keeps the marks that say something else: operators (x<y, ~p, C++), a sign, point, colon or slash at a digit
(-5, 1.5, 1:10, 1/2), what ties single letters (A/C, x-y), C#, 5%, 5!, !p; and 2² is 2^2.
The answer is looked for (`where`):
  whole     the whole response
  thinking  what follows the last `</think>`, up to a `<think>` that never closes
  tags      in the last closed <answer>...</answer> after the thinking
  line      the last line after the thinking that has a letter or a digit (a fence has none)
Several reference answers: any may match. Where the reference is a letter of a choice, from A to J, so is
"A. its text" or "(A) its text". `acc` is the score. `outcome`: match, mismatch, no_answer, and gold_error,
which is the data's fault (no reference answer): NaN, masked.
Degenerate: a reference answer that normalisation leaves nothing of ("A", "?!") is compared with its articles, and if
need be with its punctuation; else any empty answer would match it.
Not covered: synonyms, other spellings, numbers written in another way (`reward=math`); brackets in a text, an
apostrophe, a currency's sign and emoji count nothing.
"""

import re
import unicodedata
from typing import Literal

from rewards import _options
from rewards._references import after_thinking, reference_faults, references

Place = Literal["whole", "thinking", "tags", "line"]
ARTICLES = re.compile(r"\b(?:a|an|the)\b", re.I)
PIECE = re.compile(r"\s+|\S{1,256}")  # a long run of combining marks takes quadratic time
SUPERSCRIPTS = {  # NFKC alone makes 22 of 2 to the power of 2
    code: f"^{unicodedata.normalize('NFKC', chr(code))}"
    for code in range(0x80, 0x2100)
    if unicodedata.decomposition(chr(code)).startswith("<super>")
    and unicodedata.normalize("NFKC", chr(code)).isdigit()
}
WORD = r"[^\W_]"
MEANS = re.compile(  # marks that say something else than the text without them
    rf"""[-.,:/*!\#%‰](?:                              # first, so that the engine skips to one
        (?<=\d,)(?=\d{{3}}(?!\d))(?P<thousands>)      # is dropped after all
      | (?<=\d[-.,:/])(?=\d)                          # 1.5, 1:10, 1/2
      | (?<!{WORD}.)(?<=[-.])(?=[$€£¥]?\d)             # -5, -$5, .5
      | (?<=\d[%‰!]) | (?<={WORD}\#)(?!{WORD})         # 5%, 5!, C#
      | (?<!{WORD}.)(?<=!)(?={WORD})                   # !p
      | (?<={WORD}/)(?={WORD})                         # A/C
      | (?<=(?<!{WORD}){WORD}-)(?!\w)                  # A-
      | (?<=(?<!{WORD}){WORD}[-*])(?={WORD}(?!{WORD})) # x-y, but twenty-one
    )""",
    re.VERBOSE,
)
CHOICE = re.compile(r"\W*([A-Ja-j])(?:[.:)]|\*\*)+\s+\S.*", re.DOTALL)
WORDY = re.compile(WORD)
DASHES = dict.fromkeys(map(ord, "‐‑‒–—−"), "-")
QUOTED = re.compile(r"^\s*>\s|^\s*<([^<>]*)>\s*$")  # a quote of Markdown; a text in brackets


class Options(_options.Options):
    where: Place = "thinking"
    ignore_case: bool = True
    ignore_punctuation: bool = True
    ignore_articles: bool = True  # of English
    ignore_spaces: bool = True  # how many there are, and of what kind
    nfkc: bool = True  # full-width and half-width, ligatures and letters are the same


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **options) -> dict:
    """Score one response. ground_truth: the answer, or several. ValueError for a bad option."""
    o = Options.of(options)
    steps = (o.ignore_case, o.ignore_punctuation, o.ignore_articles, o.ignore_spaces, o.nfkc)
    right = references(ground_truth)
    if not right:
        return {"score": float("nan"), "acc": float("nan"), "outcome": "gold_error"}
    answer = find(solution_str, o.where)
    if not answer.strip():
        return {"score": 0.0, "acc": 0.0, "outcome": "no_answer"}
    same = any(_equal(answer, reference, steps) for reference in right)
    return {"score": float(same), "acc": float(same), "outcome": "match" if same else "mismatch"}


def _equal(answer: str, reference: str, steps: tuple) -> bool:
    case, punctuation, articles, spaces, nfkc = steps
    # With less of it, something is left.
    for steps in (
        (case, punctuation, articles, spaces, nfkc),
        (case, punctuation, False, spaces, nfkc),
        (True, False, False, True, nfkc),
    ):
        if wanted := normalized(reference, *steps):
            break
    if punctuation and len(wanted) == 1 and (choice := CHOICE.fullmatch(answer)):
        answer = choice[1]
    return normalized(answer, *steps) == wanted


def find(response, where: str) -> str:
    """The answer in a response; empty if there is none."""
    if where == "whole":
        return response if isinstance(response, str) else ""
    text = after_thinking(response)
    if where == "tags":
        before, closed, _ = text.rpartition("</answer>")
        return before.rpartition("<answer>")[2] if closed and "<answer>" in before else ""
    if where == "line":
        lines = text.rstrip().split("\n")
        return next((line for line in reversed(lines) if WORDY.search(line)), lines[-1])
    return text


def normalized(text: str, case: bool, punctuation: bool, articles: bool, spaces: bool, nfkc: bool):
    """`text` with what is ignored taken out."""
    if nfkc:
        text = text.translate(SUPERSCRIPTS)
        text = PIECE.sub(lambda piece: unicodedata.normalize("NFKC", piece[0]), text)
        text = text.replace("\u2044", "/")  # the bar of ½
    if case:
        text = text.casefold()
    if punctuation:
        text = _without_punctuation(text)
    if articles:
        text = ARTICLES.sub(" ", text)
    return " ".join(text.split()) if spaces else text


def _without_punctuation(text: str) -> str:
    """Without the marks that only stand around what is said."""
    text = QUOTED.sub(r"\1", text).translate(DASHES)
    parts, done = [], 0
    for mark in MEANS.finditer(text):
        if mark["thousands"] is None:
            parts += (text[done : mark.start()].translate(SAYS), mark[0])
            done = mark.end()
    return "".join(parts) + text[done:].translate(SAYS)


class _Says(dict):
    """A table for str.translate that is made as it is used: letters, digits, blanks and mathematical
    symbols stay; punctuation and other symbols go."""

    def __missing__(self, code: int) -> int | None:
        category = unicodedata.category(chr(code))
        stays = category[0] not in "PS" or category == "Sm" or code == ord("^")
        self[code] = code if stays else None
        return self[code]


SAYS = _Says()


def row_faults(rows, **options) -> list[dict]:
    """Rows without a reference answer: {"index", "outcome", "message"} in row order."""
    Options.of(options)
    return reference_faults(rows, lambda reference: None)


def bars(**options) -> dict:
    Options.of(options)
    return {"range": (0.0, 1.0), "reference": 1.0, "empty": 0.0}


def reference_answer(ground_truth, extra_info=None, *, where="thinking", **others) -> str | None:
    """The first reference answer, where it is looked for."""
    found = references(ground_truth)[:1]
    return f"<answer>{found[0]}</answer>" if found and where == "tags" else next(iter(found), None)
