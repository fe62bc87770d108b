"""`reward=math`: is the final answer equal to the reference answer, as mathematics: 1/2 = 0.5 = \\frac{12}{24}.

Equality is that of math-verify (https://github.com/huggingface/Math-Verify): numbers, fractions,
expressions, sets, intervals, matrices, equations, inequalities, words in \\text{}.
Numbers are compared here: exactly, or, where one is a decimal, to `decimals` places and, if small, to so many
digits: 0.333333 = 1/3, 1.6e-19 is not 2.5e-19. What math-verify can't read (p \\to q, k\\pi with k in Z, 11:00)
is equal to the same text alone. Also read are bases (1011_2 = 11), 0.\\overline{3}, 2 1/2, 5 million, 2², √7, i² = -1.
The answer is looked for after the last `</think>`, up to a `<think>` that never closes, in the first of `accept`
that is there:
  boxed   the \\boxed{...} or \\fbox{...} that opens last, if it closes; an empty one (or \\boxed{answer}) is a mention
  hashes  the rest of the line after the last `####`, as in GSM8K, but for a heading above more text
  number  the last number of the text, with its sign, unit of thousands, fraction, root; in a formula
          ($x = \\frac{3}{4}$) what follows its last equals sign
A reference is read in the same way, without `number`; one without any mark is the answer itself. Several
reference answers: any may match. With `units` those don't count (5 cm = 5 m = 5), but "million" and "or more" do.
50% equals 0.5 and, as it is a whole number, 50. An answer of two values is a set: 3 is not "3 or 4";
x=2, y=3 is the pair (2, 3). A letter of a choice, from A to J, is equal to "(A)", "A." and "A: its text".

Score: 1 or 0; `acc` is the same. `outcome`: right, wrong, no_answer, unparsable (also: longer than
`max_length`, nested deeper than 30), undecided (neither shown to be equal nor refuted in 5 s: 0), gold_error.
The last is a fault of the data: NaN, so that the sample is masked.
Degenerate: an answer in words without \\text{} and shorter than four letters is a product of letters, and so
is a single bare letter after a number (5 m). Large answers (10^{10^{10}}!) can take time and memory in C,
where nothing here can stop them: in a run `_limits/calls` does, and the answer is masked.
Not covered: units that matter, "approximately", a decimal comma (0,5), sums of units (10 dollars and 50 cents),
proofs; whether an answer has the form that was asked for (a base, a simplified fraction).
"""

from pydantic import Field

from rewards import _options
from rewards._final_answer import MARKS, Mark, extract, too_much
from rewards._math import OutOfTime, equal, in_time, is_text, parse, parse_reference
from rewards._references import after_thinking, reference_faults, references

TIME_S = 5.0  # for an answer, and for a reference


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
        for reference in _parsed_reference(text, o.units)
    ]
    if not right:
        return {"score": float("nan"), "acc": float("nan"), "outcome": "gold_error"}
    answer = extract(after_thinking(solution_str), o.accept)
    outcome = "no_answer" if answer is None else _outcome(answer, right, o)
    score = float(outcome == "right")
    return {"score": score, "acc": score, "outcome": outcome}


def _outcome(answer: str, right: list, o: Options) -> str:
    if too_much(answer, o.max_length):
        return "unparsable"
    try:
        with in_time(TIME_S):
            found = parse(answer, o.units)
            if found and equal(right, found, o.decimals, o.strict):
                return "right"
    except OutOfTime:
        return "undecided"
    return "unparsable" if is_text(found) and not is_text(right) else "wrong"


def _parsed_reference(text: str, units: bool) -> list:
    """Empty for one that is no mathematics, or takes too long."""
    try:
        with in_time(TIME_S):
            return parse_reference(_answer(text), units)
    except OutOfTime:
        return []


def row_faults(rows, **options) -> list[dict]:
    """References that don't parse: {"index", "outcome", "message"} in row order."""
    units = Options.of(options).units

    def fault(text: str) -> str | None:
        return None if _parsed_reference(text, units) else f"no mathematics: {text!r}"

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
