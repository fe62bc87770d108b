"""`reward=trading`: a trading strategy as Python code with reasoning, judged by rules; [-1, 1].

The dimensions, weights, penalties and bonuses are those of a published reward that counts keywords;
here code is parsed and followed from name to name (`_trading/python_flow`), and never executed. A name that
is only mentioned (in a comment, a text, a bare expression, a value that nobody uses) is no logic.
  code_quality        0.30  fence, functions, documentation, names, nothing idle (`_trading/quality`)
  reasoning_quality   0.25  structure, what is explained, response to the prompt (`_trading/text`)
  completeness        0.20  entry, exit, risk, indicators, backtest, each 0 to 1 (`_trading/code`)
  technical_accuracy  0.15  terms, formulas, faults: undefined names, look-ahead, an impossible threshold,
                            an exit that is the entry, an indicator that is claimed and not computed
  innovation          0.10  indicators combined, one of one's own, limits that follow the data
All of it adds up as published; but as bonuses and dimensions could reach 1.35, what is above 0.4 is
squeezed so that the best possible is 1: otherwise code without a word of reasoning would be perfect.
Bonuses, each times its strength 0 to 1: risk management (of a strategy with entry and exit),
documentation. Penalties: no Python that parses, or a broken part (syntax_error); entry or exit
missing (incomplete). Both hold without any code: with text only, a score is below 0.
band: excellent from 0.7, good from 0.4, fair from 0.1, poor. outcome: parsed, syntax_error, no_code.

The prompt is extra_info["messages"], else name, description and relevant_symbols there; without any,
the response to it is left out. Read: the answer after the thinking, its fenced Python (all blocks),
without fences what looks like code; of code and of prose the first 20,000 characters.
Degenerate: rules can be learnt by heart; one sound strategy for every prompt scores well.
Not covered: whether a strategy earns anything, whether a formula is the indicator it is named after,
languages other than Python. Word lists: `trading.yaml`.
"""

from rewards._options import check_number, options_of, refuse_unknown
from rewards._references import after_thinking, references
from rewards._trading import text
from rewards._trading.code import Reading
from rewards._trading.parts import elements, parts_of
from rewards._trading.python_code import read
from rewards._trading.python_flow import Flow

ANSWER_CHARS = 100_000
KNEE = 0.4
BANDS = {"excellent": 0.7, "good": 0.4, "fair": 0.1}


def compute_score(
    data_source,
    solution_str,
    ground_truth,
    extra_info=None,
    *,
    code_quality_weight=0.30,
    reasoning_quality_weight=0.25,
    completeness_weight=0.20,
    technical_accuracy_weight=0.15,
    innovation_weight=0.10,
    risk_management_bonus=0.15,
    documentation_bonus=0.20,
    syntax_error_penalty=-0.50,
    incomplete_penalty=-0.30,
    **unknown,
) -> dict:
    """Score one answer. extra_info: {"messages": the prompt}. ValueError for a bad option."""
    weights = {
        "code_quality": code_quality_weight,
        "reasoning_quality": reasoning_quality_weight,
        "completeness": completeness_weight,
        "technical_accuracy": technical_accuracy_weight,
        "innovation": innovation_weight,
        "risk_management": risk_management_bonus,
        "documentation": documentation_bonus,
    }
    refuse_unknown(unknown, compute_score)
    for name, weight in weights.items():
        check_number(f"the weight or bonus of {name}", weight, 0, 1)
    check_number("syntax_error_penalty", syntax_error_penalty, -2, 0)
    check_number("incomplete_penalty", incomplete_penalty, -2, 0)

    code = read(after_thinking(solution_str).partition("<think>")[0][:ANSWER_CHARS])
    flow = Flow(code.tree)
    found = Reading(flow).read()
    parts = parts_of(code, flow, found, text.asked(extra_info))
    syntax_error, incomplete = code.outcome != "parsed", not (found.entry and found.exit)
    score = sum(weight * parts[name] for name, weight in weights.items())
    score += syntax_error_penalty * syntax_error + incomplete_penalty * incomplete
    score = float(max(-1.0, min(1.0, squeezed(score, sum(weights.values())))))
    return {
        "score": score,
        "band": next((band for band, least in BANDS.items() if score >= least), "poor"),
        "outcome": code.outcome,
        **parts,
        **elements(found),
        "syntax_error": float(syntax_error),
        "incomplete": float(incomplete),
        "faults": float(len(found.faults)),
    }


def squeezed(score: float, full: float) -> float:
    """The part above KNEE, which could reach `full`, made to end at 1, so that more is still better."""
    if score <= KNEE or full <= 1:
        return score
    return KNEE + (score - KNEE) * (1 - KNEE) / (full - KNEE)


def bars(**options) -> dict:
    """The range, what a reference scores at least, and what an empty or random answer at most."""
    given = options_of(compute_score) | options
    compute_score("", "", "", **options)  # refuses bad ones
    full = sum(given[name] for name in given if name.endswith(("_weight", "_bonus")))
    penalties = given["syntax_error_penalty"] + given["incomplete_penalty"]
    empty = penalties + 0.2 * given["reasoning_quality_weight"]
    return {"range": (-1.0, 1.0), "reference": min(0.7, 0.5 * full), "empty": max(-1.0, empty)}


def reference_answer(ground_truth, extra_info=None) -> str | None:
    """The reference, where the row has one."""
    return next(iter(references(ground_truth)), None)
