"""`reward=math`: is the final answer equal to the reference answer, as mathematics: 1/2 = 0.5 = \\frac{12}{24}.

Equality is that of math-verify (https://github.com/huggingface/Math-Verify): numbers, fractions,
expressions, sets, intervals, matrices, equations, inequalities, words in \\text{}.
The answer is looked for after the last `</think>`, in the first of `accept` that is there:
  boxed   the \\boxed{...} or \\fbox{...} that opens last, if it closes
  hashes  the rest of the line after the last `####`, as in GSM8K
  number  the last number of the text
A reference is read in the same way, without `number`; one without any mark is the answer itself. Several
reference answers: any may match. With `units` those don't count (5 cm = 5 m = 5). 50% equals 0.5 and, as it is a
whole number, 50. An answer of two values is a set: 3 is not "3 or 4".

Score: 1 or 0; `acc` is the same. `outcome`: right, wrong, no_answer, unparsable (also: longer than
`max_length`, nested deeper than 30), gold_error. The last is a fault of the data: NaN, so that the sample is masked.
Degenerate: an answer in words without \\text{} and shorter than four letters is a product of letters.
Some answers (10^{10^{10}}) can take any time and memory, and this function has no limits of its own:
in a run it has those of `_limits/calls`, and an answer that is stopped there is masked.
Not covered: units that matter, repeating decimals, "approximately", proofs.
"""

from pydantic import Field

from rewards import _options
from rewards._math import MARKS, Mark, equal, extract, parse, parse_reference, too_much
from rewards._references import after_thinking, reference_faults, references


class Options(_options.Options):
    # which marks of the answer, the first that is there counts
    accept: list[Mark] = Field(list(MARKS), min_length=1)
    decimals: int = Field(6, ge=0, le=15)  # that are compared: 0.333333 = 1/3, 0.33 is not
    strict: bool = True  # the names of variables count, and (1, 2) is not {1, 2}
    units: bool = True  # a unit or a noun after a number doesn't count
    max_length: int = Field(500, ge=1, le=2000)  # characters of an answer; a longer one is none


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **options) -> dict:
    """Score one response. ground_truth: the answer, or several.

    ValueError for a bad option; nothing else, whatever the response says.
    """
    o = Options.of(options)
    right = [
        reference
        for text in references(ground_truth)
        for reference in parse_reference(_answer(text), o.units)
    ]
    if not right:
        return {"score": float("nan"), "acc": float("nan"), "outcome": "gold_error"}
    answer = extract(after_thinking(solution_str), o.accept)
    if answer is None:
        outcome = "no_answer"
    elif too_much(answer, o.max_length) or not (found := parse(answer, o.units)):
        outcome = "unparsable"
    else:
        outcome = "right" if equal(right, found, o.decimals, o.strict) else "wrong"
    score = float(outcome == "right")
    return {"score": score, "acc": score, "outcome": outcome}


def row_faults(rows, **options) -> list[dict]:
    """References that don't parse: {"index", "outcome", "message"} in row order."""
    units = Options.of(options).units

    def fault(text: str) -> str | None:
        return None if parse_reference(_answer(text), units) else f"no mathematics: {text!r}"

    return reference_faults(rows, fault)


def bars(**options) -> dict:
    Options.of(options)
    return {"range": (0.0, 1.0), "reference": 1.0, "empty": 0.0}


def reference_answer(ground_truth, extra_info=None) -> str | None:
    """The first reference answer, with both marks."""
    found = [_answer(text) for text in references(ground_truth)]
    return f"\\boxed{{{found[0]}}}\n#### {found[0]}" if found else None


def _answer(reference: str) -> str:
    return extract(reference, MARKS[:2]) or reference
