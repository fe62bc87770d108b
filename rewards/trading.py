"""`reward=trading`: a trading strategy as Python code with reasoning, judged by rules; [-1, 1].

The dimensions, weights, penalties and bonuses are those of a published reward that counts keywords;
here code is parsed and followed from name to name (`_trading/flow`), and never executed. A name that
is only mentioned (in a comment, a text, a bare expression, a value that nobody uses) is no logic.
  code_quality        0.30  fence, functions, documentation, names, nothing unused (`_trading/quality`)
  reasoning_quality   0.25  structure, what is explained, response to the prompt (`_trading/prose`)
  completeness        0.20  entry, exit, risk, indicators, backtest, each 0 to 1 (`_trading/strategy`)
  technical_accuracy  0.15  terms, formulas, faults: undefined names, look-ahead, an impossible threshold,
                            an exit that is the entry, an indicator that is claimed and not computed,
                            a condition that is never true; look-ahead is followed in time (`_trading/when`)
  innovation          0.10  indicators combined, a stop or a size that follows one
Bonuses, each times its strength 0 to 1: risk management (of a strategy with entry and exit),
documentation. Penalties: no Python that parses, or a broken part (syntax_error); entry or exit
missing (incomplete). With text only, a score is below 0. As bonuses and dimensions could reach 1.35,
what is above 0.4 is squeezed so that the best possible is 1. All but penalties is times `fit`: from 1 down
to 0.6 where nothing that the prompt names is in the answer.
band: excellent from 0.7, good from 0.4, fair from 0.1, poor. outcome: parsed, syntax_error, no_code.

The prompt is extra_info["messages"], else name, description and relevant_symbols there. Read are the
first 40,000 characters after the thinking (cut off there, code does not parse): fenced Python,
without fences what looks like code. Lines for a notebook (`!pip`, `%matplotlib`) are none.
Not covered: whether a strategy earns anything or fits its prompt's market, whether a formula is the
indicator it is named after, other languages. One sound strategy learnt by heart scores well for
every prompt; for quality let a language model judge as well (README.md shows all of the command):
    reward=composite 'lab.reward.parts={trading: 0.5, judge: 0.5}'
"""

from pydantic import Field

from rewards import _options, _text
from rewards._references import after_thinking, references
from rewards._trading import code as python
from rewards._trading import prose, quality
from rewards._trading.flow import Flow
from rewards._trading.strategy import Strategy

ANSWER_CHARS = 40_000
KNEE = 0.4
OFF_TOPIC = 0.6  # what is left of all of it where nothing of the prompt is in the answer
BANDS = {"excellent": 0.7, "good": 0.4, "fair": 0.1}
FAULTS = {"exit is entry": 0.5, "looks ahead": 0.4}  # any other costs 0.3


class Options(_options.Options):
    """A weight or a bonus is that of the part of its name."""

    code_quality_weight: float = Field(0.30, ge=0, le=1)
    reasoning_quality_weight: float = Field(0.25, ge=0, le=1)
    completeness_weight: float = Field(0.20, ge=0, le=1)
    technical_accuracy_weight: float = Field(0.15, ge=0, le=1)
    innovation_weight: float = Field(0.10, ge=0, le=1)
    risk_management_bonus: float = Field(0.15, ge=0, le=1)
    documentation_bonus: float = Field(0.20, ge=0, le=1)
    syntax_error_penalty: float = Field(-0.50, ge=-2, le=0)
    incomplete_penalty: float = Field(-0.30, ge=-2, le=0)

    def shares(self) -> dict[str, float]:
        """What each part can add to a score."""
        added = ((name, share) for name, share in self if not name.endswith("_penalty"))
        return {name.rpartition("_")[0]: share for name, share in added}


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **options) -> dict:
    """Score one answer. extra_info: {"messages": the prompt}. ValueError for a bad option."""
    o = Options.of(options)
    code = python.read(after_thinking(solution_str).partition("<think>")[0][:ANSWER_CHARS])
    flow = Flow(code.tree)
    found = Strategy(code.tree, flow)
    parts = dimensions(code, flow, found, prose.asked(extra_info))
    syntax_error, incomplete = code.outcome != "parsed", not (found.entry and found.exit)
    score = sum(share * parts[name] for name, share in o.shares().items()) * parts["fit"]
    score += o.syntax_error_penalty * syntax_error + o.incomplete_penalty * incomplete
    full = sum(o.shares().values())
    if score > KNEE and full > 1:  # more is still better, and all of it is 1
        score = KNEE + (score - KNEE) * (1 - KNEE) / (full - KNEE)
    score = float(max(-1.0, min(1.0, score)))
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


def elements(found: Strategy) -> dict[str, float]:
    """What completeness is the mean of."""
    return {
        "entry": found.entry,
        "exit": found.exit,
        "risk": found.risk,
        "indicators": min(1.0, 0.4 + 0.3 * len(found.indicators)) if found.indicators else 0.0,
        "backtest": _text.saturate(len(found.backtest), 2),
    }


def dimensions(code: python.Code, flow: Flow, found: Strategy, prompt: str) -> dict[str, float]:
    """The dimensions and the strengths of the bonuses, each from 0 to 1."""
    text = prose.read(code.prose, prompt)
    if flow.steps and len(text.names - found.indicators) > len(text.names) / 2:
        found.faults.add("claimed, not computed")
    reasoning = text.quality()
    response = prose.response_to(prompt, text, found.indicators, found.words)
    if response is not None:  # good prose about something else is worth little
        reasoning = 0.3 * response + 0.7 * reasoning * (0.3 + 0.7 * response)
    documented = quality.documentation(code, flow)
    whole = quality.substance(flow) * (found.entry + found.exit) / 2
    terms = _text.saturate(len(found.indicators | found.backtest), 4)
    formulas = _text.saturate(len(found.formulas), 4)
    correct = max(0.0, 1.0 - sum(FAULTS.get(fault, 0.3) for fault in found.faults))
    combined = _text.saturate(max(0, len(found.combined) - 1), 3)
    return {
        "code_quality": quality.quality(code, flow, documented),
        "reasoning_quality": reasoning,
        "completeness": sum(elements(found).values()) / 5,
        "technical_accuracy": whole * (0.3 * terms + 0.3 * formulas + 0.4 * correct),
        "innovation": whole * (0.7 * combined + 0.3 * found.adaptive),
        "risk_management": found.risk * min(found.entry, found.exit),
        "documentation": whole * documented,
        "fit": 1.0 if response is None else OFF_TOPIC + (1 - OFF_TOPIC) * min(1.0, 2 * response),
    }


def bars(**options) -> dict:
    """The range, what a reference scores at least, and what an empty or random answer at most."""
    o = Options.of(options)
    empty = o.syntax_error_penalty + o.incomplete_penalty + 0.2 * o.reasoning_quality_weight
    reference = min(0.7, 0.5 * sum(o.shares().values()))
    return {"range": (-1.0, 1.0), "reference": reference, "empty": max(-1.0, empty)}


def reference_answer(ground_truth, extra_info=None) -> str | None:
    """The reference, where the row has one."""
    return next(iter(references(ground_truth)), None)
