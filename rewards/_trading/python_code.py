"""Python in a response: found, and parsed. Nothing is ever executed.

Linear time: code is cut off at CODE_CHARS, and nesting deeper than DEPTH is not read.
"""

import ast
import re
import textwrap
import warnings
from dataclasses import dataclass

CODE_CHARS = 20_000
DEPTH = 100  # of the tree, and of brackets: more is an attack on the parser
PYTHON = {"python", "python3", "py", "py3", "ipython"}

_FENCE = re.compile(r"\s*(`{3,}|~{3,})\s*([\w+#.-]*)")
_STARTS = re.compile(r"(?:async\s+def|def|class|import|from|@)\s*\w|[\w.\[\]\"']+\s*=[^=]")
_GOES_ON = re.compile(
    r"\s|#|[\])}]|[\w.]+\(|(?:if|elif|else|for|while|try|except|finally|with|return)\b"
)
_DEFINES = re.compile(r"^(?:def|class) \w+.*:|^(?:import|from) \w", re.M)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_]+")


def split(response: str) -> tuple[list[tuple[str, str]], str]:
    """([(language, code)], prose). Code without any fence has the language `bare`."""
    blocks, prose, code, mark, language = [], [], [], "", ""
    for line in response.split("\n"):
        fence = _FENCE.match(line)
        if mark and fence and fence[1].startswith(mark) and not fence[2]:
            blocks.append((language, "\n".join(code)))
            mark, code = "", []
        elif fence and (not mark or fence[2].lower() in PYTHON):  # or the last one was never closed
            if mark:
                blocks.append((language, "\n".join(code)))
            mark, language, code = fence[1], fence[2].lower(), []
        else:
            (code if mark else prose).append(line)
    if mark:
        blocks.append((language, "\n".join(code)))
    found = [(name, textwrap.dedent(text)) for name, text in blocks if name in PYTHON or not name]
    if not found:
        bare, prose = _bare(prose)
        found = [("bare", bare)] if bare else []
    return found, "\n".join(prose)


def _bare(lines: list[str]) -> tuple[str, list[str]]:
    """(lines that look like code, the others): from the first that starts some, while it goes on."""
    code, prose, inside = [], [], False
    for line in textwrap.dedent("\n".join(lines)).split("\n"):
        if line.strip():
            inside = bool(_STARTS.match(line) or (inside and _GOES_ON.match(line)))
        (code if inside else prose).append(line)
    return "\n".join(code), prose


def shorten(code: str, limit: int) -> str:
    """The top-level statements that end within `limit` characters."""
    if len(code) <= limit:
        return code
    lines = code[:limit].split("\n")
    while len(lines) > 1 and (not lines[-1] or lines[-1][0] in " \t)]}#"):
        lines.pop()
    return "\n".join(lines[:-1])


def parse(code: str) -> ast.Module | None:
    """The tree; None if this is no Python, or too deep to be read."""
    depth = deepest = 0
    for character in code:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    if deepest > DEPTH:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of "\d" in the model's code
            tree = ast.parse(code)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    level, height = [tree], 0
    while level and height <= DEPTH:
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        height += 1
    return None if level else tree


def does_something(tree: ast.Module) -> bool:
    """Whether there is a statement in it that prose, or a list of names, would not be."""
    idle = (ast.Expr, ast.Pass, ast.Import, ast.ImportFrom)
    return any(
        not isinstance(s, idle) and not (isinstance(s, ast.AnnAssign) and s.value is None)
        for s in tree.body
    )


def words(name: str) -> str:
    """A name as lower-case words between underscores: `takeProfit_2` is `_take_profit_2_`."""
    return "_" + "_".join(_WORD.findall(name)).lower() + "_"


def called(call: ast.Call) -> str:
    """The name of what is called, without what it belongs to."""
    function = call.func
    return getattr(function, "attr", "") or getattr(function, "id", "")


def chain(call: ast.Call) -> str:
    """The names on the way to what is called: `df["close"].rolling(9).mean()` is `rolling_mean`."""
    names, node = [], call.func
    while isinstance(node, ast.Attribute | ast.Call | ast.Subscript):
        if isinstance(node, ast.Attribute):
            names.append(node.attr)
        node = node.func if isinstance(node, ast.Call) else node.value
    if isinstance(node, ast.Name):
        names.append(node.id)
    return "_".join(reversed(names))


def text_of(node: ast.AST) -> str | None:
    """The value of a text constant."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


@dataclass
class Code:
    """What of Python is in a response. `outcome`: parsed, syntax_error (in any part), no_code."""

    outcome: str
    tree: ast.Module
    text: str  # of the parts that parse
    fence: str  # of the first such part: its language, "" for none given, bare for no fence
    prose: str


def read(response: str) -> Code:
    """The Python of a response: all of its parts as one tree."""
    blocks, prose = split(response)
    body, texts, fences, broken, left = [], [], [], [], CODE_CHARS
    for language, text in blocks:
        text = shorten(text, left)
        tree = parse(text)
        if tree is None:
            broken.append(language)
        elif does_something(tree):
            body += tree.body
            texts.append(text)
            fences.append(language)
        elif language == "bare":
            prose += "\n" + text
        left -= len(text)
    if any(broken) or (broken and not texts):
        looks = "bare" not in broken or _DEFINES.search(blocks[0][1])
        outcome = "syntax_error" if looks else "no_code"
    else:
        outcome = "parsed" if texts else "no_code"
    if outcome == "no_code" and broken:
        prose = response
    tree = ast.Module(body, [])
    return Code(outcome, tree, "\n".join(texts), fences[0] if fences else "", prose)
