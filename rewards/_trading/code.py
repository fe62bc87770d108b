"""Python in a response: found, and parsed. Nothing is ever executed."""

import ast
import io
import re
import textwrap
import tokenize
import warnings
from dataclasses import dataclass
from itertools import accumulate

from rewards._trading import notebook

DEPTH = 100  # of the tree, and of brackets: more is an attack on the parser
PYTHON = re.compile(r"(?:i?py(?:thon)?\d?)?")  # of a fence; none given will do
IDLE = (
    ast.Expr,
    ast.Pass,
    ast.Import,
    ast.ImportFrom,
)  # prose, or a list of names, is that as well

# A fence ends at one of its kind, before the next one that says python, or with the text.
_FENCE = re.compile(
    r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+#.-]*)[^\n]*(.*?)"
    r"(?:^[ \t]*\1[`~]*[ \t]*$|(?=^[ \t]*(?:`{3,}|~{3,})[ \t]*i?py)|\Z)",
    re.M | re.S,
)
_STARTS = re.compile(r"(?:async\s+def|def|class|import|from|@)\s*\w|[\w.\[\]\"']+\s*=[^=]")
_GOES_ON = re.compile(
    r"\s|#|[\])}]|[\w.]+\(|(?:if|elif|else|for|while|try|except|finally|with|return)\b"
)
_DEFINES = re.compile(r"^(?:def|class) \w+.*:|^(?:import|from) \w", re.M)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_]+")


@dataclass
class Code:
    """What of Python is in a response. `outcome`: parsed, syntax_error (in any part), no_code."""

    outcome: str
    tree: ast.Module  # all parts that parse
    comments: set[str]
    fence: str  # of the first part: its language, "" for none given, bare for no fence
    prose: str


def read(response: str) -> Code:
    """The Python of a response: all of its parts as one tree."""
    blocks, prose = split(response)
    body, fences, broken, comments = [], [], [], set()
    for language, text in blocks:
        tree, notes = parse(text)
        if tree is None and (plain := notebook.plain(text)) != text:
            tree, notes = parse(plain)
        if tree is None:
            broken.append(language)
        elif not all(isinstance(s, IDLE) or getattr(s, "value", s) is None for s in tree.body):
            body += tree.body
            fences.append(language)
            comments |= notes
        elif language == "bare":
            prose += "\n" + text
    outcome = "parsed" if fences else "no_code"
    if any(broken) or (broken and not fences):  # a fence without a language may hold some output
        looks = "bare" not in broken or _DEFINES.search(blocks[0][1])
        outcome, prose = ("syntax_error", prose) if looks else ("no_code", response)
    return Code(outcome, ast.Module(body, []), comments, (fences or [""])[0], prose)


def split(response: str) -> tuple[list[tuple[str, str]], str]:
    """([(language, code)], prose). Code without any fence has the language `bare`."""
    blocks = [(fence[2].lower(), textwrap.dedent(fence[3])) for fence in _FENCE.finditer(response)]
    blocks = [block for block in blocks if PYTHON.fullmatch(block[0])]
    prose = _FENCE.sub("", response)
    if blocks:
        return blocks, prose
    code, other, inside = [], [], False  # from a line that starts some code, while it goes on
    for line in textwrap.dedent(prose).split("\n"):
        if line.strip():
            inside = bool(_STARTS.match(line) or (inside and _GOES_ON.match(line)))
        (code if inside else other).append(line)
    return [("bare", "\n".join(code))] if code else [], "\n".join(other)


def parse(code: str) -> tuple[ast.Module | None, set[str]]:
    """The tree and the comments; None for the tree if this is not Python, or too deep to be read."""
    brackets = ((mark in "([{") - (mark in ")]}") for mark in code)
    if max(accumulate(brackets), default=0) > DEPTH:
        return None, set()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of "\d" in the model's code
            tree = ast.parse(code)
            tokens = tokenize.generate_tokens(io.StringIO(code).readline)
            comments = {token.string for token in tokens if token.type == tokenize.COMMENT}
    except (SyntaxError, ValueError, MemoryError, RecursionError, tokenize.TokenError):
        return None, set()
    level: list[ast.AST] = [tree]
    for _ in range(DEPTH + 1):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    return None if level else tree, comments


def words(name: str) -> str:
    """A name as lower-case words between underscores: `takeProfit_2` is `_take_profit_2_`."""
    return "_" + "_".join(_WORD.findall(name)).lower() + "_"


def name_of(node: ast.AST) -> str:
    """The name of a variable, an attribute, a column, or a call; else empty.

    x of `x`, `self.x`, `df["x"]`, `df.loc[rows, "x"]`; df_rolling_mean of `df["x"].rolling(9).mean()`.
    """
    if isinstance(node, ast.Call):
        found, part = [], node.func
        while isinstance(part, ast.Attribute | ast.Call | ast.Subscript):
            found += [part.attr] if isinstance(part, ast.Attribute) else []
            part = part.func if isinstance(part, ast.Call) else part.value
        found += [part.id] if isinstance(part, ast.Name) else []
        return "_".join(reversed(found))
    index = getattr(node, "slice", None)
    index = index.elts[-1] if isinstance(index, ast.Tuple) and index.elts else index
    name = getattr(node, "id", "") or getattr(node, "attr", "") or getattr(index, "value", "")
    return name if isinstance(name, str) else ""


def called(call: ast.Call) -> str:
    """The name of what is called, without what it belongs to."""
    return getattr(call.func, "attr", "") or getattr(call.func, "id", "")


def names(node: ast.AST) -> frozenset[str]:
    """All names in some code; kept with the node."""
    kept = vars(node)
    if "names" not in kept:
        kept["names"] = frozenset(filter(None, map(name_of, ast.walk(node))))
    return kept["names"]
