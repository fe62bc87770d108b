"""A query that is a chain of CTEs, as steps: where each stands, what it is worth.

sqlglot says which CTEs there are and which names each part reads; its tokens say where they stand.
Its own SQL is never run: a step's prefix is the response's text, cut at the CTE's closing bracket.
What sqlglot cannot read, or not in reasonable time, is no chain: that gives no steps and has no
other effect.
Not seen: a name in single quotes, which SQLite takes for a table's where nothing else fits.
"""

from collections import namedtuple
from functools import lru_cache

from sqlglot import exp
from sqlglot.dialects import SQLite
from sqlglot.tokens import TokenType

from rewards._sql.text import find, first_word

PARSER_MOVES = 30_000  # a tenth of a second; a query of the longest that runs takes 10,000
RAN = ("match", "mismatch")
# SQLite understood the query: it ran, or failed as it ran or for a name that is not there.
UNDERSTOOD = (*RAN, "schema_error", "runtime_error", "result_too_large", "memory", "timeout",
              "killed")  # fmt: skip

# start, end: characters of the SQL, from the CTE's name to after its closing bracket. name: as it is
# written. reached: whether the final SELECT reads it, maybe through other steps.
Step = namedtuple("Step", "start end name reached")


def locate(response: str, sql: str) -> int:
    """Where the SQL that `extract` took from the response stands in it."""
    spans, _ = find(response)
    spans = spans or find(response, bare_select=True)[0]
    return response.index(sql, spans[-1][0])


def parses(sql: str) -> bool:
    """Whether sqlglot takes all of the text for one query, in bounded time."""
    try:
        trees = _BoundedParser(dialect="sqlite").parse(SQLite().tokenize(sql), sql)
    except Exception:  # its own errors, RecursionError, and what else hostile text finds
        return False
    return len(trees) == 1 and isinstance(trees[0], exp.Query)


@lru_cache(maxsize=256)  # a group's answers are often the same
def split(sql: str) -> tuple[Step, ...]:
    """The steps of a chain, in order; none for any other text. Bounded time."""
    if first_word(sql) != "with":
        return ()
    try:
        tokens = SQLite().tokenize(sql)
        places = _places(tokens)
        trees = _BoundedParser(dialect="sqlite").parse(tokens, sql)
    except Exception:  # its own errors, RecursionError, and what else hostile text finds
        return ()
    tree = trees[0] if len(trees) == 1 else None
    chain = tree.args.get("with_") if isinstance(tree, exp.Query) else None
    if chain is None:
        return ()
    names = [step.alias.lower() for step in chain.expressions]
    if names != [name.text.lower() for name, _ in places] or len(set(names)) < len(names):
        return ()
    reads = {name: _reads(step.this) for name, step in zip(names, chain.expressions, strict=True)}
    chain.pop()
    reached, waiting = set(), [_reads(tree)]
    while waiting:
        new = waiting.pop() & reads.keys() - reached
        reached |= new
        waiting += (reads[name] for name in new)
    return tuple(
        Step(name.start, end, sql[name.start : name.end + 1], key in reached)
        for key, (name, end) in zip(names, places, strict=True)
    )


def prefix(sql: str, step: Step) -> str:
    """The query that shows a step's result."""
    return f"{sql[: step.end]}\nSELECT * FROM {step.name} LIMIT 50"


async def worth(sql: str, steps, pool, task, empty_step: float) -> list[float]:
    """What each step is worth, from 0 to 1; `rewards.sql_process` says how."""
    values, left_ms = [0.0] * len(steps), task.options.timeout_s * 1e3
    for number, step in enumerate(steps):
        if not step.reached:
            continue
        answer, _ = await task.run(pool, prefix(sql, step))
        if isinstance(answer, str):  # it had to be killed
            break
        outcome, rows, exec_ms, table_read, _ = answer
        if outcome in RAN and table_read:
            values[number] = 1.0 if rows else float(empty_step)
        left_ms -= exec_ms
        if left_ms < 0:
            break
    return values


def _places(tokens: list) -> list[tuple]:
    """(the token of the name, the character after the closing bracket) of each top-level CTE."""
    kinds = [token.token_type for token in tokens] + [None]
    found, at = [], 2 if kinds[1] == TokenType.RECURSIVE else 1
    while True:
        name, at = tokens[at], at + 1
        if kinds[at] == TokenType.L_PAREN:  # its columns
            at = _closing(kinds, at) + 1
        at = _closing(kinds, kinds.index(TokenType.L_PAREN, at))
        found.append((name, tokens[at].end + 1))
        if kinds[at + 1] != TokenType.COMMA:
            return found
        at += 2


def _closing(kinds: list, at: int) -> int:
    """The index of the bracket that closes the one at `at`."""
    depth = 1
    while depth:
        at += 1
        depth += (kinds[at] == TokenType.L_PAREN) - (kinds[at] == TokenType.R_PAREN)
    return at


def _reads(query: exp.Expression) -> set[str]:
    """The names of tables that the query reads, those of its own inner CTEs apart."""
    names = set()
    waiting = [(query, frozenset())]
    while waiting:
        node, hidden = waiting.pop()
        if inner := node.args.get("with_"):
            hidden |= {step.alias.lower() for step in inner.expressions}
        name = None
        if isinstance(node, exp.Table) and not node.args.get("db"):  # main.x is never a CTE
            name = node.name.lower()
        elif isinstance(node, exp.In) and isinstance(node.args.get("field"), exp.Column):
            name = "" if node.args["field"].table else node.args["field"].name.lower()  # x IN name
        if name and name not in hidden:
            names.add(name)
        waiting += ((child, hidden) for child in node.iter_expressions())
    return names


class _BoundedParser(SQLite.Parser):
    """Ends in time: sqlglot tries two readings at some words, and so 2^n for n nested ones."""

    moves_left = PARSER_MOVES

    def _advance(self, times=1):
        self.moves_left -= 1
        if self.moves_left < 0:
            raise TimeoutError
        super()._advance(times)
