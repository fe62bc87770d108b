"""The dimensions of `reward=trading`, each from 0 to 1, from what was found in code and prose."""

from rewards import _text
from rewards._trading import text
from rewards._trading.code import Strategy
from rewards._trading.python_code import Code
from rewards._trading.python_flow import Flow
from rewards._trading.quality import documentation, quality, substance

FAULTS = {"exit is entry": 0.5, "looks ahead": 0.4}  # any other costs 0.3


def elements(found: Strategy) -> dict[str, float]:
    """What completeness is the mean of."""
    return {
        "entry": found.entry,
        "exit": found.exit,
        "risk": found.risk,
        "indicators": min(1.0, 0.4 + 0.3 * len(found.indicators)) if found.indicators else 0.0,
        "backtest": _text.saturate(len(found.backtest), 2),
    }


def parts_of(code: Code, flow: Flow, found: Strategy, prompt: str) -> dict[str, float]:
    """The dimensions and the strengths of the bonuses, each from 0 to 1."""
    said = text.read(code.prose, prompt)
    claims = said.names - found.indicators
    if flow.steps and len(claims) > len(said.names) / 2:
        found.faults.add("claimed, not computed")
    reasoning = 0.4 * said.structure() + 0.6 * said.explanation()
    response = text.response_to(prompt, said, found.indicators, found.words)
    if response is not None:  # good prose about something else is worth little
        reasoning = 0.3 * response + 0.7 * reasoning * (0.3 + 0.7 * response)
    documented = documentation(code, flow)
    whole = substance(flow) * (found.entry + found.exit) / 2
    terms = _text.saturate(len(found.indicators | found.backtest), 4)
    correct = max(0.0, 1.0 - sum(FAULTS.get(fault, 0.3) for fault in found.faults))
    formulas = _text.saturate(found.formulas, 4)
    combined = _text.saturate(max(0, found.combined - 1), 2)
    return {
        "code_quality": quality(code, flow, documented),
        "reasoning_quality": reasoning,
        "completeness": sum(elements(found).values()) / 5,
        "technical_accuracy": whole * (0.3 * terms + 0.3 * formulas + 0.4 * correct),
        "innovation": whole * (0.5 * combined + 0.25 * found.custom + 0.25 * found.adaptive),
        "risk_management": found.risk * min(found.entry, found.exit),
        "documentation": whole * documented,
    }
