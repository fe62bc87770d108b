"""`reward=exact`: is the answer the reference answer, letter for letter after a normalisation of both; score 0 or 1.

Normalisation as in SQuAD (Rajpurkar et al., arXiv:1606.05250: lower case, no punctuation, no articles,
single spaces) after Unicode NFKC; each step is an option. Punctuation is that of every script.
The answer is looked for (`where`):
  whole     the whole response
  thinking  what follows the last `</think>`; without one, the whole response
  tags      in the last closed <answer>...</answer> after the thinking
  line      the last line after the thinking that isn't blank
Several reference answers: any may match. `acc` is the score. `outcome`: match, mismatch, no_answer, and gold_error,
which is the data's fault (no reference answer): NaN, masked.
Degenerate: a reference answer that normalisation leaves nothing of ("The", "?!") is compared with case and spaces
alone ignored; else any empty answer would match it.
Not covered: synonyms, other spellings, numbers written in another way (`reward=math`).
"""

import re
import unicodedata
from typing import Literal

from rewards import _options
from rewards._references import after_thinking, reference_faults, references

Place = Literal["whole", "thinking", "tags", "line"]
ARTICLES = re.compile(r"\b(?:a|an|the)\b", re.I)
PIECE = re.compile(r"\s+|\S{1,256}")  # a long run of combining marks takes quadratic time


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
    wanted = normalized(reference, *steps)
    if not wanted:  # with less of it, something is left
        steps = (True, False, False, True, steps[-1])
        wanted = normalized(reference, *steps)
    return normalized(answer, *steps) == wanted


def find(response, where: str) -> str:
    """The answer in a response; empty if there is none."""
    if where == "whole":
        return response if isinstance(response, str) else ""
    text = after_thinking(response)
    if where == "tags":
        before, closed, _ = text.rpartition("</answer>")
        return before.rpartition("<answer>")[2] if closed and "<answer>" in before else ""
    return text.rstrip().rpartition("\n")[2] if where == "line" else text


def normalized(text: str, case: bool, punctuation: bool, articles: bool, spaces: bool, nfkc: bool):
    """`text` with what is ignored taken out."""
    if nfkc:
        text = PIECE.sub(lambda piece: unicodedata.normalize("NFKC", piece[0]), text)
    if case:
        text = text.casefold()
    if punctuation:  # symbols, too: SQuAD takes out all of ASCII's
        text = "".join(c for c in text if unicodedata.category(c)[0] not in "PS")
    if articles:
        text = ARTICLES.sub(" ", text)
    return " ".join(text.split()) if spaces else text


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
