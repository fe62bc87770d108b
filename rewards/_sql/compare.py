"""Do two query results agree? Digests of a result, and three rules of equality.

A reference answer result is kept as a small `Reference`: digests that do not depend on what the mode ignores (row
order, column order, duplicates), so the reference answer runs once and its rows are never shipped. `strict`
(float tolerance) and soft F1 need the rows themselves and carry them.
Values compare as in Python, which is what the public evaluators do: 1 == 1.0, NULL equals NULL,
text is not a number, a blob is not text. A 128-bit digest of equal bytes stands for equality.

Source of the modes: `spider` taoyds/test-suite-sql-eval (arXiv 2010.02840), `bird` BIRD execution
accuracy (arXiv 2305.03111). Column permutations are found by column signatures and backtracking
under a deadline, never by trying all maps; TimeoutError when the deadline passes (it takes a table
built for the purpose).
"""

import marshal
import time
from collections import Counter, namedtuple
from collections.abc import Iterable
from hashlib import blake2b
from itertools import chain, repeat

from rewards._sql.rows import strict_match

# count, size: rows and bytes. key: of the result as it came. bag: the mode's own digest, of rows
# without order. signatures, prefixes: for the column search. typed, kinds: see Result. rows: only
# where the rule needs them. exact: the same of `Result.exact`, if that is there. wide: it ran only with
# the engine's own limits.
Reference = namedtuple(
    "Reference", "count size ordered key bag signatures prefixes typed kinds rows exact wide",
    defaults=(None, False),
)  # fmt: skip


TYPES = {kind: str(kind) for kind in (int, float, str, bytes, tuple, type(None))}


def digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()


def short(data: bytes) -> bytes:
    """The data, or its digest if that is shorter by much: most results are a few values."""
    return data if len(data) <= 256 else digest(data)


def dumps_each(values) -> list[bytes]:
    # marshal is the fastest canonical form; version 2 has no references: equal values, equal bytes.
    return list(map(marshal.dumps, values, repeat(2)))


def bag_of(parts: Iterable[bytes]) -> bytes:
    return digest(b"".join(sorted(parts)))


def _integral(value):
    return int(value) if type(value) is float and value.is_integer() else value


class lazy:
    """functools.cached_property without its lock, which costs more than most of what it keeps."""

    def __init__(self, function):
        self.function = function

    def __get__(self, instance, owner):
        value = instance.__dict__[self.function.__name__] = self.function(instance)
        return value


class Result:
    """The rows of a query, and lazily all that can be said of them without order or duplicates.

    size, key: bytes, and `short` form, of the rows as SQLite returned them, in order and typed.
    exact: where a server's decimals have more digits than a float, the rows with these as (text,).
    """

    def __init__(self, raw: list[tuple], size: int, key: bytes, exact: list[tuple] | None = None):
        self.raw = raw
        self.size = size
        self.key = key
        self.exact = Result(exact, size, key) if exact else None

    @lazy
    def has_floats(self) -> bool:
        return float in set(map(type, chain.from_iterable(self.raw)))

    @lazy
    def rows(self) -> list[tuple]:
        """The rows with 1.0 as 1, so that equal values have equal bytes."""
        return [tuple(map(_integral, row)) for row in self.raw] if self.has_floats else self.raw

    @lazy
    def kinds(self) -> tuple[bool, bool]:
        """Whether there are ints, and floats that an int may equal; -0.0, written so, is either."""
        if not self.has_floats:
            return True, False
        wholes = [v for row in self.raw for v in row if type(v) is float and v.is_integer()]
        minus_zero = "-0.0" in map(str, wholes)
        return minus_zero or int in set(map(type, chain.from_iterable(self.raw))), bool(wholes)

    @lazy
    def bag(self) -> bytes:
        return bag_of(dumps_each(self.rows))

    @lazy
    def set(self) -> bytes:
        return bag_of(set(dumps_each(self.rows)))

    @lazy
    def columns(self) -> list[bytes]:
        """One digest a column, its rows in order."""
        return [digest(marshal.dumps(column, 2)) for column in zip(*self.rows, strict=True)]

    @lazy
    def cells(self) -> list[list[bytes]]:
        return list(map(dumps_each, zip(*self.rows, strict=True)))

    @lazy
    def signatures(self) -> list[bytes]:
        """One digest a column, the same wherever column and rows stand.

        First of its values. Where unequal columns share one, rows and columns are told apart by one
        another, in turns, until that helps no more (colour refinement, Weisfeiler and Leman).
        """
        colours = list(map(bag_of, self.cells))
        while len(set(colours)) < len(colours) and len(set(colours)) < len(set(self.columns)):
            coloured = (
                sorted(map(bytes.__add__, colours, row)) for row in zip(*self.cells, strict=True)
            )
            rows = [digest(b"".join(row)) for row in coloured]
            bags = [bag_of(list(map(bytes.__add__, rows, column))) for column in self.cells]
            finer = list(map(digest, map(bytes.__add__, colours, bags)))
            if len(set(finer)) <= len(set(colours)):
                break
            colours = finer
        return colours

    def typed(self, ordered: bool) -> bytes:
        """What the Spider evaluator's quick reject sees: each row sorted by its values' text, type.

        There 10 sorts before 1, but 1.0 before 10.0, so it calls some results different whose only
        difference is int against float. Parity needs it; it decides only results that mix the two.
        """
        rows = (sorted(row, key=lambda value: str(value) + TYPES[type(value)]) for row in self.raw)
        parts = dumps_each(tuple(map(_integral, row)) for row in rows)
        return digest(b"".join(parts if ordered else sorted(set(parts))))


def distinct_rows(rows: list, more: Iterable[list], max_rows: int, max_bytes: int) -> Result | None:
    """The different ones of the rows and of the chunks that follow; None if they are too many."""
    found, size = {}, 0
    for chunk in chain([rows], more):
        new = dict.fromkeys(row for row in chunk if row not in found)
        if new:
            found.update(new)
            size += len(marshal.dumps(list(new), 2))
            if len(found) > max_rows or size > max_bytes:
                return None
    return Result(list(found), size, short(marshal.dumps(list(found), 2)))


def reference_of(result: Result, mode: str, ordered: bool, keep_rows: bool) -> Reference:
    rows = result.raw
    bag = signatures = prefixes = typed = None
    if mode == "bird":
        bag = result.set
    elif mode == "spider" and rows:
        typed = result.typed(ordered)
        if ordered:
            signatures = sorted(result.columns)
        else:
            bag, signatures = result.bag, result.signatures
            prefixes = _prefixes(result)
    kept = result.raw if keep_rows or mode == "strict" else None
    kinds = result.kinds if typed else None
    exact = None
    if result.exact and mode != "strict":  # which has a tolerance
        exact = tuple(reference_of(result.exact, mode, ordered, False))
    return Reference(
        len(rows), result.size, ordered, result.key, bag, signatures, prefixes, typed, kinds, kept,
        exact,
    )  # fmt: skip


def matches(reference: Reference, result: Result, mode: str, deadline: float) -> bool:
    """Whether the results agree; TimeoutError at the deadline.

    Decimals compare as floats with floats, as servers do, and digit by digit with one another.
    """
    equal = _matches(reference, result, mode, deadline)
    if equal and reference.exact and result.exact:
        return _matches(Reference._make(reference.exact), result.exact, mode, deadline)
    return equal


def _matches(reference: Reference, result: Result, mode: str, deadline: float) -> bool:
    if result.key == reference.key:  # the very same rows: the usual match, in every mode
        return True
    if mode == "bird":
        return result.set == reference.bag
    rows = result.raw
    if len(rows) != reference.count or not rows:
        return len(rows) == reference.count
    if mode == "strict":
        return strict_match(reference.rows, rows, reference.ordered, deadline)
    width = len(rows[0])
    if width != len(reference.signatures):
        return False
    if reference.ordered:
        equal = sorted(result.columns) == reference.signatures
    else:  # the cheapest test first that most wrong results fail
        equal = sorted(result.signatures) == sorted(reference.signatures)
        equal = equal and (result.bag == reference.bag or _permuted(reference, result, deadline))
    if not equal or width == 1:
        return equal
    (reference_ints, reference_floats), (ints, floats) = reference.kinds, result.kinds
    if (reference_ints and floats) or (ints and reference_floats):  # an int may stand for a float
        return result.typed(reference.ordered) == reference.typed
    return True


def _split(signatures: list[bytes]) -> tuple[list[int], list[int]]:
    """Columns that their signature alone identifies, and the others, each in order."""
    counts = Counter(signatures)
    unique = [i for i, signature in enumerate(signatures) if counts[signature] == 1]
    return unique, [i for i, signature in enumerate(signatures) if counts[signature] > 1]


def _prefixes(result: Result) -> list[bytes]:
    """The bag of the unique columns, then of those and the first ambiguous column, and so on."""
    unique, ambiguous = _split(result.signatures)
    keys = list(map(b"".join, zip(*(result.cells[i] for i in unique), strict=True))) or [b""] * len(
        result.rows
    )
    prefixes = [bag_of(keys)]
    for i in ambiguous:
        keys = list(map(bytes.__add__, keys, result.cells[i]))
        prefixes.append(bag_of(keys))
    return prefixes


def _permuted(reference: Reference, result: Result, deadline: float) -> bool:
    """Whether some order of the columns, of equal signatures, gives the reference answer's bag of rows.

    Columns with a signature of their own have one place. The others are placed one at a time, and
    each partial placing must give the reference answer's bag of partial rows, so a wrong one goes at once.
    """
    signatures, cells = result.signatures, result.cells
    unique, ambiguous = _split(reference.signatures)
    place = {signature: i for i, signature in enumerate(signatures)}
    fixed = [cells[place[reference.signatures[i]]] for i in unique]
    keys = list(map(b"".join, zip(*fixed, strict=True))) or [b""] * len(result.rows)
    if bag_of(keys) != reference.prefixes[0]:
        return False
    candidates: dict[bytes, list[int]] = {}
    for i, signature in enumerate(signatures):
        candidates.setdefault(signature, []).append(i)
    stack = [(0, keys, 0)]  # columns placed, partial rows, bit mask of the columns used
    while stack:
        depth, keys, used = stack.pop()
        if depth == len(ambiguous):
            return True
        tried = set()
        for i in candidates[reference.signatures[ambiguous[depth]]]:
            if used >> i & 1 or result.columns[i] in tried:  # equal columns are interchangeable
                continue
            if time.monotonic() > deadline:
                raise TimeoutError
            tried.add(result.columns[i])
            longer = list(map(bytes.__add__, keys, cells[i]))
            if bag_of(longer) == reference.prefixes[depth + 1]:
                stack.append((depth + 1, longer, used | 1 << i))
    return False
