"""SQL as its engine's lexer cuts it: where words, names, literals and comments begin and end.

What is said of a query's text is said of these tokens, so that a word in a literal, a comment or a
quoted name is never taken for the statement's own. A text that the engine would not read to its end
ends in a token `broken`. Linear time on any text.

Sources: the manuals' chapters on lexical structure, and the lexers themselves (SQLite's tokenize.c,
PostgreSQL's scan.l, from which DuckDB's descends, MySQL's sql_lex.cc).
"""

import re
from collections import namedtuple
from collections.abc import Iterator
from functools import lru_cache

# kind: word, name (quoted), text (a literal), comment, symbol (one character, or a number), broken.
# text: as it stands, but a word in lower case, and a name so too, without its quotes.
# start, end: characters of the SQL.
Token = namedtuple("Token", "kind text start end")
Lexer = namedtuple("Lexer", "pattern nested")  # nested: a comment may hold comments

_WIDE = "\x80-\U0010ffff"  # all of it may stand in a word: no engine asks Unicode what is a letter
_BLANK = r"[ \t\n\r\f\v]"
_WORD = rf"[A-Za-z_{_WIDE}][\w${_WIDE}]*"
_NUMBER = r"\d[\d.]*(?:[eE][+-]?\d+)?"
_PLAIN, _DOUBLE, _TICKS = (rf"{q}[^{q}]*(?:{q}{q}[^{q}]*)*{q}" for q in "'\"`")
_ESCAPED, _ESCAPED_DOUBLE = (rf"{q}[^{q}\\]*(?:(?:{q}{q}|\\.)[^{q}\\]*)*{q}" for q in "'\"")
# A literal that goes on in the next line goes on by the rules of its first part.
_LONG_ESCAPED = rf"{_ESCAPED}(?:(?:{_BLANK}|--[^\n\r]*[\n\r])*{_ESCAPED})*"
_DOLLARS = rf"\$(?P<tag>(?:[A-Za-z_{_WIDE}][\w{_WIDE}]*)?)\$(?:.*?\$(?P=tag)\$|.*)"


def _lexer(text, name, comment, word=_WORD, space=_BLANK, broken="['\"`]", nested=False) -> Lexer:
    kinds = {"space": f"{space}+", "comment": comment, "text": text, "name": name,
             "broken": f"(?:{broken}).*", "word": word, "symbol": f"{_NUMBER}|."}  # fmt: skip
    pattern = "|".join(f"(?P<{kind}>{regexp})" for kind, regexp in kinds.items() if regexp)
    return Lexer(re.compile(pattern, re.S), nested)


@lru_cache
def lexer(engine: str = "", backslashes: bool | None = None, names: bool = False) -> Lexer:
    """Of an engine by its URL's scheme, empty for SQLite.

    backslashes: whether they escape in a plain literal, where the server is not as it usually is.
    names: of MySQL, whether double quotes make names (ANSI_QUOTES).
    """
    if engine in ("mysql", "mariadb"):
        text, double = (_PLAIN, _DOUBLE) if backslashes is False else (_ESCAPED, _ESCAPED_DOUBLE)
        if not names:
            text, double = f"{text}|{double}", None
        return _lexer(
            text,
            f"{_TICKS}|{double}" if double else _TICKS,
            r"--(?=[\x00-\x20\x7f]|\Z)[^\n]*|\#[^\n]*|/\*.*?\*/",
            word=rf"[\w${_WIDE}]+",  # may start with a digit
            broken="['\"`]|/\\*",
        )
    if engine in ("postgresql", "postgres", "duckdb"):
        plain = _LONG_ESCAPED if backslashes else _PLAIN
        return _lexer(
            rf"[eE]{_LONG_ESCAPED}|[uU]&{_PLAIN}|{plain}|{_DOLLARS}",
            _DOUBLE,
            r"--[^\n\r]*|/\*",
            broken='[\'"]|[uU]&"',  # such a name could spell any other
            nested=True,
        )
    return _lexer(
        _PLAIN,
        rf"{_DOUBLE}|{_TICKS}|\[[^\]]*\]",
        r"--[^\n]*|/\*.*?(?:\*/|\Z)",
        space=r"[ \t\n\r\f\ufeff]",
        broken="['\"`\\[]",
    )


_INNER = re.compile(r"/\*|\*/")


def tokens(sql: str, rules: Lexer) -> Iterator[Token]:
    """All of them but white space, in order."""
    at = 0
    while at < len(sql):
        match = rules.pattern.match(sql, at)
        kind, text, end = match.lastgroup, match[0], match.end()
        if kind == "comment" and rules.nested and text == "/*":
            depth = 1
            for mark in _INNER.finditer(sql, end):
                depth += 1 if mark[0] == "/*" else -1
                end = mark.end()
                if not depth:
                    break
            if depth:
                kind, end = "broken", len(sql)
            text = sql[at:end]
        if kind == "word":
            text = text.lower()
        elif kind == "name":
            text = text[1:-1].replace(text[-1] * 2, text[-1]).lower()
        if kind != "space":
            yield Token(kind, text, at, end)
        at = end


def code(sql: str, rules: Lexer) -> list[Token]:
    """All but comments."""
    return [token for token in tokens(sql, rules) if token.kind != "comment"]


def closings(code: list[Token]) -> dict[int, int]:
    """The index of the bracket that closes each opening one; len(code) where none does."""
    found, opened = {}, []
    for index, token in enumerate(code):
        if token.kind == "symbol" and token.text == "(":
            found[index] = len(code)
            opened.append(index)
        elif token.kind == "symbol" and token.text == ")" and opened:
            found[opened.pop()] = index
    return found


def words(code: list[Token], kind: str = "word") -> list[str]:
    """The text of each word (or other kind), empty for what is none."""
    return [token.text if token.kind == kind else "" for token in code]
