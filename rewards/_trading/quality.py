"""How well Python code is written: functions, documentation, names, and nothing that is unused."""

import ast
import re

from rewards import _text
from rewards._trading.code import Code
from rewards._trading.flow import Flow, Function

FENCES = {"bare": 0.0, "": 0.7}  # any other: a fence that says python
NAME = re.compile(r"_*[a-z][a-z0-9]*(_[a-z0-9]+)*_*|[A-Z][A-Z0-9_]*|_?([A-Z][a-z0-9]+)+")
SHORT = set(_text.load("trading.yaml")["short_names"].split())
DEFINED = Function | ast.ClassDef
FULL_STEPS = 6  # a value's steps through the code: fewer are a snippet


def substance(flow: Flow) -> float:
    """0 to 1: whether there is enough live code to judge."""
    return _text.saturate(sum(step.live for step in flow.steps), FULL_STEPS)


def quality(code: Code, flow: Flow, documented: float) -> float:
    """0 to 1: fence 0.15, functions 0.25, documentation 0.2, names 0.2, nothing unused 0.2."""
    live = [step for step in flow.steps if step.live]
    working = {step.function for step in live if step.reads & flow.data}
    functions = sum(bool(node.args.args) for node in working if node)
    structure = min(1.0, 0.7 + 0.15 * (functions - 1)) if functions else 0.0
    parts = 0.15 * FENCES.get(code.fence, 1.0) + 0.25 * structure + 0.2 * documented
    parts += 0.2 * naming(code.tree) + 0.2 * len(live) / max(1, len(flow.steps))
    return substance(flow) * parts


def naming(tree: ast.Module) -> float:
    """The share of names that are spelt as PEP 8 has it and say something."""
    nodes = list(ast.walk(tree))
    named = {node.name for node in nodes if isinstance(node, DEFINED)}
    named |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    named |= {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    good = filter(NAME.fullmatch, named)
    points = sum(1.0 if len(name) > 2 or name in SHORT else 0.5 for name in good)
    return points / max(1, len(named))


def documentation(code: Code, flow: Flow) -> float:
    """0 to 1: docstrings of prose 0.6, comments of two words or more 0.4. Repeated ones count once."""
    defined = [node for node in ast.walk(code.tree) if isinstance(node, DEFINED)]
    seen, documented = _text.Seen(), 0
    for node in defined:
        words = _text.tokens(_text.fold(ast.get_docstring(node)))
        documented += _text.is_prose(words, 8) and seen.share(words) < 0.6
        seen.add(words)
    comments = {c for c in code.comments if _text.units(_text.tokens(_text.fold(c))) >= 4}
    # one comment for every four steps is plenty
    commented = _text.saturate(len(comments), max(1, len(flow.steps) / 4))
    return 0.6 * _text.saturate(documented, max(1, len(defined))) + 0.4 * commented
