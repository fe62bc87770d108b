"""SQL as text: finding it in a response, and what must be known about it before it runs.

Every pattern here takes linear time: responses are written by a model that is rewarded for what
comes out of this file, so any text at all must be expected.
"""

import re
from collections.abc import Iterator

from rewards._sql.lex import closings, code, lexer, words

SQL_BYTES = 20_000  # of a query; a longer one is not run

_CAPITALS = re.compile(r"[A-Z]+")
_TICKS, _RUNS = re.compile("```+"), re.compile("```+|~~~+")
_BLANKS = re.compile(r"[ \t]*[^ \t\n]")  # and then something
# The first word of the info string, up to what may follow it: `sql {.numberLines}`, `sql:a.sql`.
_SQL = re.compile(r"[ \t]*sql(?:ite3?)?(?!\w|[.+#-]\w)")
# On the line of the opening fence, the statement itself: else it is more of the info string.
_BEGINS = re.compile(
    r"[\s;]*(?:\(|--|/\*|(?:select|with|values|table|explain|insert|update|delete|replace|create|drop"
    r"|alter|pragma|attach|vacuum|begin|analyze|reindex|show|describe|set|truncate|merge)\b(?!\s*[=:]))"
)
_TAG = re.compile(r"<(?P<close>/?)(?P<name>answer|solution)>")
_CODE = re.compile(r"\s*(`{1,9})(?P<code>[^`].*)\1\s*", re.S)  # code within a line
_STATEMENT = re.compile(r"\s*(?:select|with)\b", re.I)
_BARE_TRIED = 8  # of the statements outside of fences and tags, the last ones

# What a keyword can hide in. An unterminated comment is legal SQL and reaches to the end.
# The patterns are for lower-case text, and each alternative starts with a plain character, so that
# the engine skips from one candidate to the next (three times as fast as ignoring case).
_OPAQUE = r"""'[^']*'?|"[^"]*"?|`[^`]*`?|\[[^\]]*\]?|--[^\n]*|/\*(?s:.*?)(?:\*/|\Z)"""
_REPAIR = re.compile(
    rf"{_OPAQUE}|(?P<gap>< =|> =|! =)"
    r"|(?P<year>y(?<!\wy)ear\s*\(\s*curdate\s*\(\s*\)\s*\))"
    r"|i(?<!\wi)s\s+(?:not\s+)?distinct\s+from\b|(?P<distinct>d(?<!\wd)istinct\b)"
)
# U+FEFF is white space to SQLite.
_FIRST_WORD = re.compile(r"(?:[\s;\ufeff]|--[^\n]*|/\*.*?(?:\*/|\Z))*(\w*)", re.S)
_SETS = {"union", "intersect", "except", "minus"}


def extract(response: str, bare_select: bool = False) -> tuple[str | None, bool]:
    """The SQL of a response (None when there is none), and whether the response is well formed.

    The text after the last `</think>` counts, up to a `<think>` that never closes. In it the last
    closed ```sql, ```sqlite or ```sqlite3 fence, else the last closed <answer> or <solution> (in it
    what is between the last fences without a language, or between backticks, if any), else, with
    bare_select, the last statement that starts a line with SELECT or WITH.
    Fences are CommonMark's, so that what stands in a block of another language is none. Beyond it, a
    block of SQL may start within a line, and on the line of its fence; and it ends at any fence
    outside of a literal, with text before it or after it.
    Well formed: at most one `</think>`, and exactly one fence (or one tag pair) after it.
    """
    spans, thoughts = find(response, bare_select)
    if not spans:
        return None, False
    start, end = spans[-1]
    return response[start:end].strip() or None, thoughts <= 1 and len(spans) == 1


def find(response: str, bare_select: bool = False) -> tuple[list[tuple[int, int]], int]:
    """(start, end) of each fence of SQL, or else tag pair, or else statement; how many `</think>`."""
    lower = lower_case(response)
    thoughts = lower.count("</think>")
    start = lower.rfind("</think>") + len("</think>") if thoughts else 0
    end = lower.find("<think>", start)
    end = len(lower) if end < 0 else end
    spans = [block[1:] for block in _blocks(lower, start, end) if block[0] == "sql"]
    if not spans and (spans := _tags(lower, start, end)):
        unnamed = [block[1:] for block in _blocks(lower, *spans[-1]) if not block[0]]
        inline = _CODE.fullmatch(lower, *spans[-1])
        spans[-1:] = unnamed[-1:] or [inline.span("code") if inline else spans[-1]]
    if not spans and bare_select:
        spans = _statements(response, start, end)
    return spans, thoughts


def _blocks(lower: str, start: int, end: int) -> Iterator[tuple[str, int, int]]:
    """(language, start, end) of each fenced block that is closed; every name of SQL is "sql"."""
    if "\r" in lower:
        lower = lower.replace("\r", "\n")
    runs = _RUNS if "~~~" in lower else _TICKS
    at, line_end = start, -1
    while fence := runs.search(lower, at, end):
        opens, after = fence.span()
        mark, length = lower[opens], after - opens
        if after > line_end:
            line_end = lower.find("\n", after, end)
            line_end = end if line_end < 0 else line_end
        if name := _SQL.match(lower, after, line_end):
            begin = name.end()
            if begin == line_end or not _BEGINS.match(lower, begin, line_end):
                inline = lower.find(mark * 3, begin, line_end)
                if inline >= 0:
                    at = inline + length  # a mention of it
                    continue
                begin = min(line_end + 1, end)
            close = _sql_end(lower, begin, end, mark, length)
            if close is None:
                return
            yield "sql", begin, close[0]
            at = close[1]
        # No fence: code within a line.
        elif not _starts_line(lower, start, at, opens) or (mark == "`" in lower[after:line_end]):
            at = after
        else:
            label, begin, at = lower[after:line_end].strip(), min(line_end + 1, end), line_end
            while fence := runs.search(lower, at, end):
                closes = fence.start()
                if (lower[closes] == mark and fence.end() - closes >= length
                        and _starts_line(lower, start, at, closes)
                        and not _BLANKS.match(lower, fence.end(), end)):  # fmt: skip
                    yield label, begin, max(begin, lower.rfind("\n", at, closes))
                    at = fence.end()
                    break
                at = fence.end()
            else:
                return


def _starts_line(lower: str, start: int, at: int, place: int) -> bool:
    """Whether only blanks stand before the place, in its line; nothing before `at` has to be looked at."""
    while place > at and lower[place - 1] in " \t":
        place -= 1
    return place == start or (place >= at and lower[place - 1] == "\n")


def _sql_end(lower: str, begin: int, end: int, mark: str, length: int) -> tuple[int, int] | None:
    """Where a block of SQL ends, and where its closing fence does: one that stands in no literal."""
    place = begin
    while (at := lower.find(mark * length, place, end)) >= 0:
        line = max(place, lower.rfind("\n", place, at))
        quote = lower.find("'", at, end) if lower.count("'", line, at) % 2 else -1
        if quote < 0 or "\n" in lower[at:quote]:
            break
        place = quote + 1
    else:
        return None
    # A backtick that closes a name touches the fence: SELECT a FROM `t````
    if mark == "`" == lower[at + length : at + length + 1] and lower.count("`", begin, at) % 2:
        at += 1
    return at, at + length


def _tags(lower: str, start: int, end: int) -> list[tuple[int, int]]:
    found, opened = [], {}
    for tag in _TAG.finditer(lower, start, end):
        if not tag["close"]:
            opened[tag["name"]] = tag.end()
        elif tag["name"] in opened:
            found.append((opened.pop(tag["name"]), tag.start()))
    return found


def _statements(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Those that start a line, each to a semicolon, a blank line or a fence; the last one parses.

    Where none does, all of them: what is no SQL says so when it runs.
    """
    found, begin, at = [], -1, start
    for line in text[start:end].split("\n"):
        if begin < 0 and _STATEMENT.match(line):
            begin = at
        if begin >= 0:
            fence = line.find("```")
            if fence >= 0 or not line.strip() or line.rstrip().endswith(";"):
                found.append((begin, at + (len(line) if fence < 0 else fence)))
                begin = -1
        at += len(line) + 1
    if begin >= 0:
        found.append((begin, end))
    if len(found) > 1:
        from rewards._sql.steps import parses  # sqlglot, which nobody else here needs

        for number in range(len(found), max(0, len(found) - _BARE_TRIED), -1):
            if parses(text[slice(*found[number - 1])]):
                return found[:number]
    return found


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


def without_distinct(sql: str, keep_distinct: bool, engine: str = "postgresql") -> str:
    """What `spider_form` does to a query that is not SQLite's: DISTINCT goes, nothing else."""
    if keep_distinct or "distinct" not in sql.lower():
        return sql
    found = code(sql, lexer(engine))
    said = [*words(found), ""]
    parts, done = [], 0
    for number, token in enumerate(found):
        if said[number] != "distinct":
            continue
        # IS DISTINCT FROM is an operator; DISTINCT ON (...), of PostgreSQL and DuckDB, says which rows.
        operator = number and said[number - 1] in ("is", "not") and said[number + 1] == "from"
        if not operator and said[number + 1] != "on":
            parts.append(sql[done : token.start])
            done = token.end
    return "".join(parts) + sql[done:]


def has_second_statement(sql: str, engine: str = "postgresql") -> bool:
    """Whether something follows a semicolon."""
    signs = words(code(sql, lexer(engine)), "symbol")
    return ";" in signs and set(signs[signs.index(";") :]) != {";"}


def has_top_level_order_by(sql: str, engine: str = "") -> bool:
    """Whether the query's last step is ORDER BY: not one of a subquery, a CTE or a window.

    Brackets around the whole query, or all of it but WITH, LIMIT and the like, are none of these.
    """
    found = code(sql, lexer(engine))
    said, signs, close = words(found), words(found, "symbol"), closings(found)
    at, end = 0, len(found)
    while True:
        while at < end and signs[at] == ";":
            at += 1
        if at < end and said[at] == "with":
            at = after_ctes(said, signs, close, at)
        inner = range(at + 1, min(close[at], end)) if at in close else range(0)
        depth, sets = 0, False
        for number in range(inner.stop + 1 if inner else at, end):
            depth += (signs[number] == "(") - (signs[number] == ")")
            if depth == 0 and said[number] == "order" and said[number + 1 : number + 2] == ["by"]:
                return True
            sets = sets or (depth == 0 and said[number] in _SETS)
        if not inner or sets:
            return False
        at, end = inner.start, inner.stop


def after_ctes(said: list[str], signs: list[str], close: dict[int, int], at: int) -> int:
    """The index after the WITH clause that starts at `at`."""
    end = len(said)
    while at < end:
        at = next((i for i in range(at, end) if said[i] == "as"), end)
        at = next((close[i] + 1 for i in range(at, end) if i in close), end)
        if at >= end or signs[at] != ",":
            break
    return min(at, end)


def lower_case(text: str) -> str:
    """Lower case, each character in its place."""
    lower = text.lower()
    if len(lower) != len(text):  # a letter like U+0130 is two in lower case
        lower = _CAPITALS.sub(lambda match: match[0].lower(), text)
    return lower
