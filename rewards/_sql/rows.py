"""The comparisons that need the rows themselves: `strict` (float tolerance) and BIRD's soft F1."""

import time
from bisect import bisect_left, bisect_right
from itertools import chain
from math import isclose, isfinite, nan

REL_TOL = 1e-6
RANKS: dict[type, int] = {str: 2, bytes: 3}  # NULL is 0, a number 1


def strict_match(
    references: list[tuple], rows: list[tuple], ordered: bool, deadline: float
) -> bool:
    """Columns in order, floats within REL_TOL, a bag of rows unless ordered; equally many rows.

    TimeoutError when the deadline passes (near-ties by the thousand).
    """
    if len(rows[0]) != len(references[0]):
        return False
    if ordered:
        return all(map(_close_rows, references, rows))
    # A column is soft where a float occurs on either side; the rest must be equal.
    columns = range(len(rows[0]))
    soft = [i for i in columns if any(type(row[i]) is float for row in chain(references, rows))]
    reference_groups, groups = _groups(references, soft), _groups(rows, soft)
    if reference_groups.keys() != groups.keys():
        return False
    return all(_pairable(group, groups[key], deadline) for key, group in reference_groups.items())


def _groups(rows: list[tuple], soft: list[int]) -> dict[tuple, list[tuple]]:
    """Soft parts of the rows by their hard part (a soft column's NULL or text is hard)."""
    groups: dict[tuple, list[tuple]] = {}
    for row in rows:
        hard, numbers = list(row), []
        for i in soft:
            if row[i] != row[i]:
                hard[i] = nan  # this one object, which is equal to itself
            elif type(row[i]) in (int, float):
                numbers.append(row[i])
                hard[i] = float
        groups.setdefault(tuple(hard), []).append(tuple(numbers))
    return groups


def _pairable(references: list[tuple], rows: list[tuple], deadline: float) -> bool:
    """Whether the rows can be paired one to one, each pair close: bipartite matching."""
    if len(references) != len(rows):
        return False
    references, rows = sorted(references), sorted(rows)
    if all(map(_close_rows, references, rows)):
        return True  # all but near-ties that sort differently end here
    spread = max(range(len(references[0])), key=lambda i: len({row[i] for row in references}))
    rows.sort(key=lambda row: row[spread])
    values = [row[spread] for row in rows]
    owner: dict[int, int] = {}

    def near(g: int) -> range:
        value = references[g][spread]
        slack = 2 * REL_TOL * abs(value) if isfinite(value) else 0.0
        return range(bisect_left(values, value - slack), bisect_right(values, value + slack))

    for start in range(len(references)):
        seen: set[int] = set()
        path = [(start, iter(near(start)))]  # an augmenting path, kept as a stack: no recursion
        steps: list[int] = []
        while path:
            if time.monotonic() > deadline:
                raise TimeoutError
            g, choices = path[-1]
            r = next(
                (r for r in choices if r not in seen and _close_rows(references[g], rows[r])), None
            )
            if r is None:
                path.pop()
                if steps:
                    steps.pop()
                continue
            seen.add(r)
            steps.append(r)
            if r not in owner:
                for (g, _), r in zip(path, steps, strict=True):
                    owner[r] = g
                break
            path.append((owner[r], iter(near(owner[r]))))
        else:
            return False
    return True


def _close_rows(a: tuple, b: tuple) -> bool:
    return a == b or all(map(_close, a, b))


def _close(a, b) -> bool:
    if a == b or (a != a and b != b):  # or both NaN
        return True
    kinds = {type(a), type(b)}
    return float in kinds and kinds <= {int, float} and isclose(a, b, rel_tol=REL_TOL)


def _rank(value) -> tuple:
    if value is None:
        return (0, 0)
    if value != value:
        return (4, 0)
    return (RANKS.get(type(value), 1), value)


def soft_f1(reference_rows: list[tuple], rows: list[tuple]) -> float:
    """BIRD's soft F1 without its dependence on row order, in [0, 1].

    Distinct rows. Equal rows are a pair; then each row gets a reference answer row that shares its rarest
    value. A pair counts the share of values that both hold, a row without a partner counts whole.
    """
    references, mine = _set(reference_rows), _set(rows)
    if not references and not mine:
        return 1.0
    hits: float = len(references & mine)
    pairs = _pairs(_sorted(references - mine), _sorted(mine - references))
    extra = len(mine) - hits - len(pairs)
    missing = len(references) - hits - len(pairs)
    for reference, row in pairs:
        width, reference_values, values = len(reference), set(reference), set(row)
        hits += sum(value in reference_values for value in row) / width
        extra += sum(value not in reference_values for value in row) / width
        missing += sum(value not in values for value in reference) / width
    return 2 * hits / (2 * hits + extra + missing) if hits else 0.0


def _set(rows: list[tuple]) -> set[tuple]:
    if any(value != value for row in rows for value in row):  # NaN: in one object it equals itself
        return {tuple(value if value == value else nan for value in row) for row in rows}
    return set(rows)


def _sorted(rows: set) -> list[tuple]:
    return sorted(rows, key=lambda row: sorted(map(_rank, row)))


def _pairs(references: list[tuple], rows: list[tuple]) -> list[tuple[tuple, tuple]]:
    """(reference answer, row) pairs that share a value, in time linear in the number of values."""
    holders: dict = {}
    for i, reference in reversed(list(enumerate(references))):
        for value in set(reference):
            holders.setdefault(value, []).append(i)
    common = {value: len(holding) for value, holding in holders.items()}
    free = [True] * len(references)
    pairs = []
    for row in rows:
        shared = sorted(holders.keys() & set(row), key=lambda value: (common[value], _rank(value)))
        for value in shared:
            holding = holders[value]
            while holding and not free[holding[-1]]:
                holding.pop()
            if holding:
                free[holding[-1]] = False
                pairs.append((references[holding.pop()], row))
                break
    return pairs
