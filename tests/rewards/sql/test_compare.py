"""Equality of results against plain reference code, on random results and on built worst cases."""

import contextlib
import itertools
import marshal
import random
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards._sql.compare import Reference, Result, digest, distinct_rows, matches, reference_of
from rewards._sql.rows import soft_f1

VALUES = st.one_of(
    st.none(),
    st.integers(-2, 12),
    st.sampled_from([0.0, -0.0, 1.0, 10.0, 0.5, 1.5, 1e16, float("inf"), 2.0**53]),
    st.sampled_from([2**53 + 1, 2**53, 10**16, -1, -2]),
    st.sampled_from(["", "1", "1.0", "a", "None", "ä"]),
    st.sampled_from([b"", b"a", b"1"]),
)


@st.composite
def pairs(draw):
    """Two results, the second often a shuffle of the first."""
    width, height = draw(st.integers(1, 4)), draw(st.integers(0, 5))
    row = st.tuples(*[VALUES] * width)
    reference = draw(st.lists(row, min_size=height, max_size=height))
    if draw(st.booleans()):
        return reference, draw(st.lists(row, max_size=5))
    columns, rows = draw(st.permutations(range(width))), draw(st.permutations(reference))
    rows = [tuple(row[i] for i in columns) for row in rows]
    if rows and draw(st.booleans()):
        i, j = draw(st.integers(0, len(rows) - 1)), draw(st.integers(0, width - 1))
        changed = list(rows[i])
        changed[j] = draw(VALUES)
        rows[i] = tuple(changed)
    if draw(st.booleans()):  # ints as floats, as a CAST would
        rows = [tuple(float(v) if type(v) is int else v for v in row) for row in rows]
    return reference, rows


def result(rows):
    data = marshal.dumps(rows, 2)
    return Result(rows, len(data), digest(data))


def compared(reference_rows, rows, mode, ordered=False, seconds=10.0):
    packed = marshal.dumps(tuple(reference_of(result(reference_rows), mode, ordered, False)))
    reference = Reference._make(marshal.loads(packed))
    return matches(reference, result(rows), mode, time.monotonic() + seconds)


def spider_reference(reference, rows, ordered):
    """The public evaluator's definition, by trying every permutation."""
    if not reference and not rows:
        return True
    if len(reference) != len(rows) or len(reference[0]) != len(rows[0]):
        return False

    def unordered(row):
        return tuple(sorted(row, key=lambda value: str(value) + str(type(value))))

    first, second = list(map(unordered, reference)), list(map(unordered, rows))
    if first != second if ordered else set(first) != set(second):
        return False
    for order in itertools.permutations(range(len(rows[0]))):
        moved = [tuple(row[i] for i in order) for row in rows]
        if reference == moved if ordered else Counter(reference) == Counter(moved):
            return True
    return False


@settings(max_examples=600, deadline=None)
@given(pairs(), st.booleans())
def test_spider_is_the_reference(pair, ordered):
    assert compared(*pair, "spider", ordered) == spider_reference(*pair, ordered)


@settings(max_examples=300, deadline=None)
@given(pairs())
def test_bird_compares_sets(pair):
    assert compared(*pair, "bird") == (set(pair[0]) == set(pair[1]))


@settings(max_examples=300, deadline=None)
@given(pairs(), st.booleans())
def test_strict_without_near_values_compares_bags(pair, ordered):
    reference, rows = pair
    if any(value in (2**53, 2**53 + 1) for row in reference + rows for value in row if value):
        return  # within the tolerance of one another
    expected = reference == rows if ordered else Counter(reference) == Counter(rows)
    assert compared(reference, rows, "strict", ordered) == expected


@settings(max_examples=200, deadline=None)
@given(pairs(), st.randoms())
def test_what_each_mode_ignores(pair, chance):
    rows = pair[0]
    width = len(rows[0]) if rows else 0
    columns = chance.sample(range(width), width)
    shuffled = chance.sample(rows, len(rows))
    moved = [tuple(row[i] for i in columns) for row in shuffled]
    assert compared(rows, moved, "spider")
    assert compared(rows, shuffled, "strict")
    assert compared(rows, shuffled + rows, "bird")
    assert compared(rows, [tuple(row[i] for i in columns) for row in rows], "spider", ordered=True)


@st.composite
def noisy(draw):
    """A result and its shuffle, every float moved by less than the tolerance."""
    width = draw(st.integers(1, 3))
    near = st.sampled_from([0.3, 0.1 + 0.2, 1 / 3, 1.0, 1.0 + 1e-9, 7.5, -2.25, None, "x"])
    rows = draw(st.lists(st.tuples(*[near] * width), min_size=1, max_size=8))
    moved = [
        tuple(v * (1 + draw(st.floats(-4e-7, 4e-7))) if type(v) is float else v for v in row)
        for row in draw(st.permutations(rows))
    ]
    return rows, moved


@settings(max_examples=300, deadline=None)
@given(noisy())
def test_strict_tolerates_noise(pair):
    assert compared(*pair, "strict")


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([float("nan"), 0.5, 1, None, "x"]), st.integers(0, 2))),
    st.data(),
)
def test_nan_equals_nan_in_any_order(rows, data):
    moved = [
        tuple(float("nan") if v != v else v for v in row)
        for row in data.draw(st.permutations(rows))
    ]
    for mode in ("strict", "spider", "bird"):
        assert compared(rows, moved, mode)
    assert compared(rows, [*rows], "strict", ordered=True)
    assert soft_f1(rows, moved) == 1.0
    i = data.draw(st.integers(0, max(0, len(rows) - 1)))
    changed = [(7.5, row[1]) if n == i else row for n, row in enumerate(moved)]
    assert not rows or not compared(rows, changed, "strict")


@settings(max_examples=200, deadline=None)
@given(noisy(), st.data())
def test_strict_tolerates_nothing_else(pair, data):
    rows, moved = pair
    i = data.draw(st.integers(0, len(moved) - 1))
    changed = [*moved[:i], (*moved[i][:-1], 1e6), *moved[i + 1 :]]
    assert not compared(rows, changed, "strict")


def test_strict_needs_a_pairing_not_a_sort():
    # Sorted, the rows pair wrongly: the first column is equal but for the last bit.
    reference = [(0.1 + 0.2, 5.0), (0.3, 7.0)]
    assert compared(reference, [(0.3, 5.0), (0.1 + 0.2, 7.0)], "strict")
    assert not compared(reference, [(0.3, 5.0), (0.1 + 0.2, 7.1)], "strict")
    # A chain: each row is near two reference answers, and only one pairing serves all.
    reference = [(1.0,), (1.0 + 8e-7,), (1.0 + 16e-7,)]
    rows = [(1.0 + 8e-7,), (1.0 + 16e-7,), (1.0 + 24e-7,)]
    assert compared(reference, rows, "strict")
    assert not compared(reference, [*rows[:2], (1.0 + 40e-7,)], "strict")


@pytest.mark.parametrize("columns", [9, 12, 60, 400])
@pytest.mark.parametrize("height", [2, 40])
def test_equal_signatures_are_no_trap(columns, height):
    """Columns with the same values in other rows: n^n maps for the public evaluator."""
    chance = random.Random(columns)
    half = [0] * (height // 2) + [1] * (height // 2)
    table = [chance.sample(half, height) for _ in range(columns)]
    reference = list(zip(*table, strict=True))
    mixed = list(zip(*chance.sample(table, columns), strict=True))
    chance.shuffle(mixed)
    assert compared(reference, mixed, "spider")
    table[0] = [1 - value for value in table[1]]
    other = list(zip(*table, strict=True))
    assert compared(reference, other, "spider") == (Counter(reference) == Counter(other))


def test_a_hopeless_search_meets_the_deadline():
    """One long cycle against two short ones, edges by vertices: all columns look alike."""

    def cycles(count, length):
        edges = []
        for c in range(count):
            for i in range(length):
                ends = {c * length + i, c * length + (i + 1) % length}
                edges.append(tuple(int(v in ends) for v in range(count * length)))
        order = random.Random(0).sample(range(count * length), count * length)
        return [tuple(row[v] for v in order) for row in edges]

    start = time.monotonic()
    with contextlib.suppress(TimeoutError):
        assert not compared(cycles(2, 20), cycles(1, 40), "spider", seconds=0.5)
    assert time.monotonic() - start < 3
    assert compared(cycles(2, 5), cycles(2, 5)[::-1], "spider")
    assert not compared(cycles(2, 3), cycles(1, 6), "spider")


EXACT = ["0.1234567890123456789", "0.1234567890123456788", "12345678901234567890.5"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(EXACT), st.integers(0, 2)), min_size=1), st.data())
def test_decimals_beyond_a_float(rows, data):
    """Digit by digit with one another, as floats with floats."""

    def decimals(rows):
        floats = [(float(text), i) for text, i in rows]
        exact = [((text,), i) for text, i in rows]
        return Result(floats, 1, marshal.dumps(exact, 2), exact)

    def agree(left, right, mode):
        packed = marshal.dumps(tuple(reference_of(left, mode, False, False)))
        return matches(Reference._make(marshal.loads(packed)), right, mode, time.monotonic() + 10)

    moved = data.draw(st.permutations(rows))
    other = [(EXACT[1] if text == EXACT[0] else EXACT[0], i) for text, i in moved]
    same = {"spider": Counter(other) == Counter(rows), "bird": set(other) == set(rows)}
    for mode in ("spider", "bird", "strict"):
        assert agree(decimals(rows), decimals(moved), mode)
        assert agree(decimals(rows), result([(float(text), i) for text, i in moved]), mode)
        if {text for text, _ in rows} <= set(EXACT[:2]):
            assert agree(decimals(rows), decimals(other), mode) == same.get(mode, True)


@given(st.lists(st.tuples(VALUES), max_size=20), st.integers(1, 5), st.integers(0, 30))
def test_only_different_rows_count(rows, size, most):
    chunks = [rows[i : i + size] for i in range(0, len(rows), size)]
    found = distinct_rows([], chunks, most, 10_000)
    assert (found is None) == (len(set(rows)) > most)
    assert found is None or compared(rows, found.raw, "bird")
    assert distinct_rows([], chunks, 30, 3) is None or not rows


def test_near_ties_by_the_thousand_meet_the_deadline():
    reference = [(1.0 + i * 1e-10, float(i % 2)) for i in range(4000)]
    rows = [(1.0 + i * 1e-10, float((i + 1) % 2)) for i in range(3999)] + [(1.0, 5.0)]
    start = time.monotonic()
    with contextlib.suppress(TimeoutError):
        assert not compared(reference, rows, "strict", seconds=0.5)
    assert time.monotonic() - start < 3


@pytest.mark.parametrize(
    ("reference", "rows", "share"),
    [
        ([], [], 1.0),
        ([], [(1,)], 0.0),
        ([(1,)], [], 0.0),
        ([(1, "a")], [(1, "a")], 1.0),
        ([(1, "a")], [("a", 1)], 1.0),
        ([(1, "a")], [(1, "b")], 0.5),
        ([(1,), (2,)], [(2,)], 2 / 3),
        ([(1,), (1,)], [(1,)], 1.0),
        ([(1, None)], [(1.0, None)], 1.0),
        ([(1, "a"), (2, "b")], [(2, "x"), (1, "y")], 0.5),
    ],
)
def test_soft_f1(reference, rows, share):
    assert soft_f1(reference, rows) == pytest.approx(share)


@settings(max_examples=200, deadline=None)
@given(pairs(), st.randoms())
def test_soft_f1_is_a_share_and_knows_no_order(pair, chance):
    reference, rows = pair
    share = soft_f1(reference, rows)
    assert 0.0 <= share <= 1.0
    shuffled = soft_f1(chance.sample(reference, len(reference)), chance.sample(rows, len(rows)))
    assert shuffled == pytest.approx(share)
    assert soft_f1(reference, reference) == 1.0
