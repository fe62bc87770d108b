"""SQL as text: finding it in a response, and what must be known about it before it runs.

Every pattern here takes linear time: responses are written by a model that is rewarded for what
comes out of this file, so any text at all must be expected.
"""

import re

SQL_BYTES = 20_000  # of a query; a longer one is not run

_CAPITALS = re.compile(r"[A-Z]+")
_FENCE = re.compile(r"```[ \t]*sql(?:ite)?(?!\w)")
_TAG = re.compile(r"<(?P<close>/?)(?P<name>answer|solution)>")
_STATEMENT = re.compile(r"\s*(?:select|with)\b", re.I)

# What a keyword can hide in. An unterminated comment is legal SQL and reaches to the end.
# The patterns are for lower-case text, and each alternative starts with a plain character, so that
# the engine skips from one candidate to the next (three times as fast as ignoring case).
_OPAQUE = r"""'[^']*'?|"[^"]*"?|`[^`]*`?|\[[^\]]*\]?|--[^\n]*|/\*(?s:.*?)(?:\*/|\Z)"""
_REPAIR = re.compile(
    rf"{_OPAQUE}|(?P<gap>< =|> =|! =)"
    r"|(?P<year>y(?<!\wy)ear\s*\(\s*curdate\s*\(\s*\)\s*\))"
    r"|i(?<!\wi)s\s+(?:not\s+)?distinct\s+from\b|(?P<distinct>d(?<!\wd)istinct\b)"
)
_DISTINCT = re.compile(  # DISTINCT ON (...), of PostgreSQL and DuckDB, says which rows: it stays
    rf"{_OPAQUE}|i(?<!\wi)s\s+(?:not\s+)?distinct\s+from\b|(?P<distinct>d(?<!\wd)istinct\b)(?!\s+on\b)"
)
_NEXT = re.compile(rf"{_OPAQUE}|(?P<next>;\s*[^\s;])")
_ORDER_BY = re.compile(rf"{_OPAQUE}|(?P<open>\()|(?P<close>\))|(?P<order>o(?<!\wo)rder\s+by\b)")
_FIRST_WORD = re.compile(r"(?:[\s;]|--[^\n]*|/\*.*?(?:\*/|\Z))*(\w*)", re.S)


def extract(response: str, bare_select: bool = False) -> tuple[str | None, bool]:
    """The SQL of a response (None when there is none), and whether the response is well formed.

    The text after the last `</think>` counts, up to a `<think>` that never closes. In it the last
    closed ```sql or ```sqlite fence, else the last closed <answer> or <solution>, else, with
    bare_select, the last statement that starts a line with SELECT or WITH.
    Well formed: at most one `</think>`, and exactly one fence (or one tag pair) after it.
    """
    lower = lower_case(response)
    thoughts = lower.count("</think>")
    start = lower.rfind("</think>") + len("</think>") if thoughts else 0
    end = lower.find("<think>", start)
    end = len(lower) if end < 0 else end
    found = _fences(response, lower, start, end) or _tags(response, lower, start, end)
    if not found and bare_select:
        found = _statements(response[start:end])
    sql = found[-1].strip() if found else None
    return sql or None, thoughts <= 1 and len(found) == 1


def _fences(text: str, lower: str, start: int, end: int) -> list[str]:
    found, opened = [], False
    at = lower.find("```", start, end)
    while at >= 0:
        after = at + 1  # ````sql, with four, opens a block too
        if opened:  # inside a block, any fence closes it
            found.append(text[start:at])
            opened, after = False, at + 3
        elif fence := _FENCE.match(lower, at, end):
            after = start = fence.end()
            opened = True
        at = lower.find("```", after, end)
    return found


def _tags(text: str, lower: str, start: int, end: int) -> list[str]:
    found, opened = [], {}
    for tag in _TAG.finditer(lower, start, end):
        if not tag["close"]:
            opened[tag["name"]] = tag.end()
        elif tag["name"] in opened:
            found.append(text[opened.pop(tag["name"]) : tag.start()])
    return found


def _statements(text: str) -> list[str]:
    found, lines = [], []
    for line in text.split("\n"):
        if lines or _STATEMENT.match(line):
            lines.append(line)
            if not line.strip() or line.rstrip().endswith(";"):
                found.append("\n".join(lines))
                lines = []
    return [*found, "\n".join(lines)] if lines else found


def first_word(sql: str) -> str:
    """The first keyword, lower case; empty when there is no statement, or it starts otherwise."""
    start = sql[:6].lower()
    return start if start == "select" else _FIRST_WORD.match(sql)[1].lower()


def spider_form(sql: str, keep_distinct: bool) -> str:
    """The text that the public Spider evaluator would run, literals and comments untouched.

    Its repairs: `> =`, `< =`, `! =` lose the space, YEAR(CURDATE()) is 2020, DISTINCT goes
    (unless kept). `IS DISTINCT FROM` stays: it is an operator, and broken SQL without the word.
    """
    lower = lower_case(sql)
    gaps = "> =" in lower or "< =" in lower or "! =" in lower or "curdate" in lower
    if not gaps and (keep_distinct or "distinct" not in lower):
        return sql
    parts, done = [], 0
    for match in _REPAIR.finditer(lower):
        kind = match.lastgroup
        if kind is None or (kind == "distinct" and keep_distinct):
            continue
        new = {"gap": match[0][0] + "=", "year": "2020", "distinct": ""}[kind]
        parts += (sql[done : match.start()], new)
        done = match.end()
    return "".join(parts) + sql[done:]


def without_distinct(sql: str, keep_distinct: bool) -> str:
    """What `spider_form` does to a query that is not SQLite's: DISTINCT goes, nothing else."""
    if keep_distinct or "distinct" not in (lower := lower_case(sql)):
        return sql
    found = [match for match in _DISTINCT.finditer(lower) if match["distinct"]]
    starts = [0, *(match.end() for match in found)]
    ends = [*(match.start() for match in found), len(sql)]
    return "".join(sql[start:end] for start, end in zip(starts, ends, strict=True))


def has_second_statement(sql: str) -> bool:
    """Whether something follows a semicolon; a guess, where a dialect quotes in its own way."""
    return any(match["next"] for match in _NEXT.finditer(sql))


def has_top_level_order_by(sql: str) -> bool:
    """Whether ORDER BY sorts the result itself, not a subquery, a CTE or a window."""
    depth = 0
    for match in _ORDER_BY.finditer(lower_case(sql)):
        if match.lastgroup == "order" and depth == 0:
            return True
        depth += (match.lastgroup == "open") - (match.lastgroup == "close")
    return False


def lower_case(text: str) -> str:
    """Lower case, each character in its place."""
    lower = text.lower()
    if len(lower) != len(text):  # a letter like U+0130 is two in lower case
        lower = _CAPITALS.sub(lambda match: match[0].lower(), text)
    return lower
