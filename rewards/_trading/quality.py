"""How well Python code is written: functions, documentation, names, nothing idle."""

import ast
import io
import re
import tokenize

from rewards import _text
from rewards._trading.python_code import Code
from rewards._trading.python_flow import Flow

FENCES = {"bare": 0.0, "": 0.7}  # any other: a fence that says python
SNAKE, CAMEL = (
    re.compile(r"_*[a-z][a-z0-9]*(_[a-z0-9]+)*_*"),
    re.compile(r"_?([A-Z][a-z0-9]+)+|[A-Z]{2,5}"),
)
CONSTANT = re.compile(r"[A-Z][A-Z0-9_]*")
SHORT = set(_text.load("trading.yaml")["short_names"].split())
DEFINED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
FULL_STEPS = 6  # a value's steps through the code: fewer are a snippet


def substance(flow: Flow) -> float:
    """0 to 1: whether there is enough live code to judge."""
    return _text.saturate(sum(s.live and s.kind != "quiet" for s in flow.steps), FULL_STEPS)


def quality(code: Code, flow: Flow, documented: float) -> float:
    """0 to 1: fence 0.15, functions 0.25, documentation 0.2, names 0.2, nothing idle 0.2."""
    working = {s.function for s in flow.steps if s.live and s.reached}
    functions = sum(bool(node.args.args) for key, node in flow.functions.items() if key in working)
    structure = min(1.0, 0.7 + 0.15 * (functions - 1)) if functions else 0.0
    clean = 1 - _text.saturate(flow.idle, max(1, flow.seen))
    clean -= 0.3 * any(_careless(node) for node in ast.walk(code.tree))
    parts = 0.15 * FENCES.get(code.fence, 1.0) + 0.25 * structure + 0.2 * documented
    return substance(flow) * (parts + 0.2 * naming(code.tree) + 0.2 * max(0.0, clean))


def _careless(node: ast.AST) -> bool:
    """A bare except, or code from text."""
    if isinstance(node, ast.ExceptHandler):
        return node.type is None
    return isinstance(node, ast.Name) and node.id in ("eval", "exec")


def naming(tree: ast.Module) -> float:
    """The share of names that are spelt as PEP 8 has it and say something."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, DEFINED):
            names.add((node.name, isinstance(node, ast.ClassDef)))
        elif isinstance(node, ast.arg):
            names.add((node.arg, False))
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add((node.id, False))
    good = 0.0
    for name, is_class in names:
        spelt = CAMEL if is_class else SNAKE
        if spelt.fullmatch(name) or (not is_class and CONSTANT.fullmatch(name)):
            good += 1.0 if len(name) > 2 or name in SHORT else 0.5
    # more than a few one-letter names say nothing, whatever they are used for
    letters = sum(len(name) == 1 for name, _ in names)
    good -= 0.5 * max(0, letters - 4)
    return max(0.0, good) / len(names) if names else 0.0


def documentation(code: Code, flow: Flow) -> float:
    """0 to 1: docstrings of prose 0.6, comments beside code 0.4. Repeated ones count once."""
    defined = [node for node in ast.walk(code.tree) if isinstance(node, DEFINED)]
    seen, documented = _text.Seen(), 0
    for node in defined:
        words = _text.tokens(_text.fold(ast.get_docstring(node)))
        documented += _text.is_prose(words, 8) and seen.share(words) < 0.6
        seen.add(words)
    # one comment for every six statements is plenty
    comments = _text.saturate(len(_comments(code.text)), max(1, flow.seen / 6))
    return 0.6 * _text.saturate(documented, max(1, len(defined))) + 0.4 * comments


def _comments(text: str) -> set[str]:
    """Comments that say something; a block of comment lines is one."""
    found, last = set(), -1
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                alone = not token.line[: token.start[1]].strip()
                words = _text.tokens(_text.fold(token.string))
                if _text.units(words) >= 4 and not (alone and last == token.start[0] - 1):
                    found.add(" ".join(words))
                last = token.start[0] if alone else -1
    except (
        tokenize.TokenError,
        SyntaxError,
    ):  # parts of code one after the other need not be a file
        pass
    return found
