"""Python as notebooks and later versions write it, in a form that this version can parse.

Only for code that does not parse as it is. Lines that are no Python but orders to the notebook (`!pip`,
`%matplotlib`, `%%time`, `df?`) become `pass`, prompts (`>>>`, `In [1]:`) go, and f-strings, which may hold any
quotes from Python 3.12 on (PEP 701), become ones of the same names.
"""

import ast
import re

ORDER = re.compile(r"^([ \t]*)(?:[!%?]|(?:pip3?|conda) install\b|[\w.]+\?{1,2}$).*$", re.M)
OUTPUT = re.compile(r"^([ \t]*\w[\w, ]*=[ \t]*)[!%].*$", re.M)  # files = !ls
CELL = re.compile(r"\s*%%(?!time\b|timeit\b|capture\b|prun\b)\w")  # of another language, or a file
PROMPT = re.compile(r"^[ \t]*(?:>>> ?|In \[\d*\]: ?|\.\.\.(?: |$))", re.M)
STRING = re.compile(r"(?i:\b([rbuf]{1,2})|)('''|\"\"\"|'|\")")
TOKEN = re.compile(r"#[^\n]*|" + STRING.pattern)
NESTED = 8  # formatted values in formatted values: more is an attack


def plain(code: str, depth: int = 0) -> str:
    """The code without what only a notebook or a later Python understands; the same where that is nothing."""
    if CELL.match(code):
        return ""
    code = PROMPT.sub("", code) if re.match(r"\s*(?:>>>|In \[)", code) else code
    code = OUTPUT.sub(r"\1None", ORDER.sub(r"\1pass", code))
    parts, at = [], 0
    while found := TOKEN.search(code, at):
        parts.append(code[at : found.start()])
        at = found.end()
        if not found[2]:
            parts.append(found[0])
            continue
        at, inside = _string(code, at, found[2], _is_formatted(found))
        names = {name: None for span in inside for name in _names(code[slice(*span)], depth)}
        text = "{(" + ", ".join(names) + ",)}" if names else ""
        parts.append(f'f"{text}"' if _is_formatted(found) else code[found.start() : at])
    return "".join([*parts, code[at:]])


def _is_formatted(found: re.Match) -> bool:
    return "f" in (found[1] or "").lower()


def _string(
    code: str, at: int, quote: str, formatted: bool, depth: int = 0
) -> tuple[int, list[tuple[int, int]]]:
    """(where a string that begins at `at` has ended, from where to where the values in its braces go)."""
    spans = []
    if depth > NESTED:
        return len(code), spans
    while at < len(code):
        if code.startswith(quote, at):
            return at + len(quote), spans
        if code[at] == "\n" and len(quote) == 1:
            break  # it never ends
        if formatted and code[at] == "{" and code[at + 1 : at + 2] != "{":
            start = at + 1
            at, end = _braces(code, start, depth)
            spans.append((start, end))
        else:
            at += 2 if code[at] == "\\" or code[at : at + 2] == "{{" else 1
    return at, spans


def _braces(code: str, at: int, depth: int) -> tuple[int, int]:
    """(where the braces of a formatted value have ended, where the value in them has)."""
    brackets, end = 0, None
    while at < len(code):
        found = STRING.match(code, at) if end is None else None
        if found:
            at, _ = _string(code, found.end(), found[2], _is_formatted(found), depth + 1)
            continue
        mark = code[at]
        if (
            brackets == 0
            and end is None
            and (mark in ":}" or code[at : at + 2] in ("!r", "!s", "!a"))
        ):
            end = at
        at += 1
        if mark == "}" and brackets == 0:
            break
        brackets += (mark in "([{") - (mark in ")]}")
    return at, at if end is None else end


def _names(expression: str, depth: int) -> list[str]:
    """What a value in a formatted string reads."""
    if depth > NESTED:
        return []
    text = plain(expression.strip().removesuffix("="), depth + 1)
    try:
        nodes = [*ast.walk(ast.parse(f"({text})", mode="eval"))]
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return []
    names = [node for node in nodes if isinstance(node, ast.Name)]
    bound = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    return [node.id for node in names if node.id not in bound]
