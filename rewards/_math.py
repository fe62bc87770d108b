"""What an answer means, and what it is equal to, by math-verify and SymPy.

A text is first written as LaTeX that math-verify reads (`_notation`). What it can't read, but is well formed
(p \\to q, k\\pi with k in Z, a name in Chinese), is equal to the same text alone. Two numbers are compared here:
the library rounds to a number of decimals, and so takes all small numbers for one.
The library's time limits stay off, since they work in a main thread only and end with the first of several
comparisons; `in_time` is one limit for all. Its import takes half a second and isn't in a function,
so that the process that follows a stopped one has it from its parent.
"""

import contextlib
import dataclasses
import logging
import re
import signal
import threading
import time
from collections.abc import Iterator
from functools import lru_cache

import math_verify
import sympy
from sympy.concrete.summations import eval_sum_direct
from sympy.core.function import AppliedUndef

from rewards import _notation

TERMS = 5000  # of a sum that is added up
DIGITS = 30  # that numbers are computed to; then two that agree are subtracted
MOST_DIGITS = 1000  # to find a difference
CLOSE = 100  # a decimal is off by at most so many units of its relative precision
LOOSE = 0.05  # 3 \approx 4 says nothing
COMPUTED = sympy.Sum, sympy.Product, sympy.Integral, sympy.Limit
IMAGINARY = {"i": sympy.I}

HUNDREDTH = sympy.UnevaluatedExpr(sympy.Rational(1, 100))
DECIMAL = re.compile(r"-?\d+(?:\.\d+)?", re.ASCII)
LATEX = math_verify.LatexExtractionConfig(boxed_match_priority=-1)
NORMAL = dataclasses.replace(LATEX.normalization_config, units=False)
LATEX = [dataclasses.replace(LATEX, normalization_config=NORMAL)]
logging.getLogger("math_verify").setLevel(logging.ERROR)


class OutOfTime(BaseException):  # SymPy catches every Exception
    """See `in_time`."""


@contextlib.contextmanager
def in_time(seconds: float) -> Iterator[None]:
    """OutOfTime after so many seconds, in a main thread; another has no such signal, and no limit."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_):
        raise OutOfTime

    start = time.monotonic()
    before = signal.signal(signal.SIGALRM, stop)
    again = seconds / 4  # a callback may swallow one
    left, every = signal.setitimer(signal.ITIMER_REAL, seconds, again)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:  # somebody else's
            left = max(left - (time.monotonic() - start), 0.001)
            signal.setitimer(signal.ITIMER_REAL, left, every)


def parse(text: str, units: bool) -> list:
    """What the text means, as SymPy objects, and the text itself, to compare it with another.

    Empty if it means nothing: blank, badly formed, a false approximation. units: leave out those of a number.
    """
    latex, percent = _notation.latex(text, units)
    plain = _notation.plain(latex)
    if not plain or plain.lower() == "nan":
        return []
    if "\\approx" in latex:
        sides = [_read(side) for side in latex.split("\\approx")]
        values = [_value(side[0]) for side in sides if side]
        if None not in values and not all(_near(values[0], value, LOOSE) for value in values):
            return []
    found = _read(latex, percent)
    if not found and latex.count("=") == 1:  # a name that is no mathematics: \max = 5
        found = _read(latex.partition("=")[2], percent)
    if not found and not _notation.well_formed(latex):
        return []
    return [*found, plain + percent]


def _read(latex: str, percent: str = "") -> list:
    if DECIMAL.fullmatch(latex) and not percent:  # the most frequent, and a hundredth of the time
        return [sympy.Float(latex) if "." in latex else sympy.Integer(latex)]
    found = math_verify.parse(
        f"${latex}${percent}", LATEX, fallback_mode="no_fallback", parsing_timeout=None
    )
    return [each for each in found if each not in (sympy.zoo, sympy.nan)]  # 11:00


parse_reference = lru_cache(10_000)(parse)  # of answers none is kept: they may be huge


def is_text(found: list) -> bool:
    """Whether nothing but the text is known of an answer."""
    return all(isinstance(each, str) for each in found)


def equal(right: list, answer: list, decimals: int, strict: bool) -> bool:
    """Whether any of `answer` is equal to any of `right`. Texts first: they need no mathematics."""
    texts = {each for each in right if isinstance(each, str)}
    if any(isinstance(each, str) and each in texts for each in answer):
        return True
    with contextlib.suppress(Exception):  # of any kind, from a library that reads anything
        return any(
            _same(one, other, decimals, strict)
            for one in right
            for other in answer
            if not (isinstance(one, str) or isinstance(other, str))
        )
    return False


def _same(right, answer, decimals: int, strict: bool) -> bool:
    """Two SymPy objects, part by part down to numbers; what has no parts is the library's."""
    if right == answer:
        return True
    if isinstance(right, sympy.Rational) and isinstance(answer, sympy.Rational):
        return False
    if not _holds(answer):
        return False
    if isinstance(right, sympy.Eq) and isinstance(right.lhs, AppliedUndef):  # f(2) = 3
        right = right if isinstance(answer, sympy.Eq | sympy.And) else right.rhs
    if (one := _value(right)) is not None and (other := _value(answer)) is not None:
        return _equal_numbers(right, answer, one, other, decimals)
    if strict and (pairs := _pairs(right, answer)) is not None:
        return all(_same(one, other, decimals, strict) for one, other in pairs)
    if isinstance(right, sympy.FiniteSet) and isinstance(answer, sympy.FiniteSet):
        left = list(answer.args)
        for one in right.args:
            match = next((other for other in left if _same(one, other, decimals, strict)), None)
            if match is None:
                return False
            left.remove(match)
        return not left
    return math_verify.verify(
        right, answer, float_rounding=decimals, strict=strict, allow_set_relation_comp=True,
        timeout_seconds=None,
    )  # fmt: skip


def _pairs(right, answer) -> list[tuple] | None:
    """The parts that must be equal, where both have parts in an order; None where they don't."""
    named = [_assignments(right), _assignments(answer)]
    if named[0] and named[1]:
        if named[0].keys() != named[1].keys():
            return [(sympy.S.true, sympy.S.false)]
        return [(value, named[1][name]) for name, value in named[0].items()]
    sides = [
        [names[name] for name in sorted(names)] if names else _ordered(side, any(named))
        for names, side in zip(named, (right, answer), strict=True)
    ]
    if None in sides or len(sides[0]) != len(sides[1]):
        return [(sympy.S.true, sympy.S.false)] if any(named) and None not in sides else None
    if isinstance(right, sympy.MatrixBase) and right.shape != answer.shape:
        return None
    kinds = {_kind(right), _kind(answer)}
    return list(zip(*sides, strict=True)) if any(named) or len(kinds) == 1 else None


def _kind(side) -> object:
    if isinstance(side, sympy.Interval):
        return bool(side.left_open), bool(side.right_open)
    return sympy.MatrixBase if isinstance(side, sympy.MatrixBase) else sympy.Tuple


def _assignments(side) -> dict[str, object]:
    """x=2, y=3 as {"x": 2, "y": 3}; empty for anything else."""
    parts = side.args if isinstance(side, sympy.FiniteSet | sympy.And) else ()
    if not all(isinstance(part, sympy.Eq) and part.lhs.is_Symbol for part in parts):
        return {}
    names = {part.lhs.name: part.rhs for part in parts}
    return names if len(names) == len(parts) > 1 else {}


def _ordered(side, lists: bool) -> list | None:
    """The parts of a tuple, of a matrix, of an interval (which (1, 2) may be); of a list without brackets if asked."""
    if isinstance(side, sympy.Tuple):
        return list(side.args)
    if isinstance(side, sympy.MatrixBase):
        return list(side)
    if isinstance(side, sympy.Interval):
        return [side.start, side.end]
    return list(getattr(side, "_unsorted_args", ())) or None if lists else None


def _holds(answer) -> bool:
    """False for an equation between numbers that is wrong, 4 = 5; true for all else."""
    parts = answer.args if isinstance(answer, sympy.And) else [answer]
    for part in parts:
        if isinstance(part, sympy.Eq):
            sides = _value(part.lhs), _value(part.rhs)
            if None not in sides and not _near(*sides, LOOSE):
                return False
    return True


def _value(side):
    """The number that an expression is, to 30 digits; None where it is none or can't be computed so."""
    if not isinstance(side, sympy.Expr) or isinstance(side, sympy.MatrixExpr):
        return None
    if any(symbol.name not in IMAGINARY for symbol in side.free_symbols):
        return None
    try:
        value = _prepared(side).evalf(DIGITS)
    except Exception:  # of any kind, from a library that reads anything
        return None
    parts = value.as_real_imag()
    return value if all(part.is_Float or part.is_Integer for part in parts) else None


def _prepared(side):
    """With i as the imaginary unit, percents as numbers, and short sums added up, which SymPy won't."""
    side = side.replace(sympy.UnevaluatedExpr, lambda inner: inner)
    side = side.subs({symbol: IMAGINARY[symbol.name] for symbol in side.free_symbols})
    return side.replace(lambda part: isinstance(part, sympy.Sum), _added_up)


def _added_up(series):
    function, *limits = series.args
    name, *bounds = limits[0]
    whole = len(limits) == 1 and all(bound.is_Integer for bound in bounds)
    if whole and bounds[1] - bounds[0] < TERMS:
        return eval_sum_direct(function, (name, *bounds))
    return series


def _near(one, other, part: float) -> bool:
    """Whether two numbers differ by at most so large a part of the larger."""
    return bool(abs(one - other) <= part * max(abs(one), abs(other)))


def _equal_numbers(right, answer, one, other, decimals: int) -> bool:
    """Exactly; with a decimal among them, as far as `decimals` go, and small ones as far in relation."""
    if _percents(right, answer):
        return True
    if right.has(sympy.Float) or answer.has(sympy.Float):
        exact = sympy.Float(10, DIGITS) ** -decimals
        if one == other:
            return True
        return bool(abs(one - other) <= exact / 2 * (1 + sympy.Float(1e-9))) and _near(
            one, other, exact * CLOSE
        )
    if not _near(one, other, sympy.Float(10, DIGITS) ** (3 - DIGITS)):
        return False
    if right.has(*COMPUTED) or answer.has(*COMPUTED):  # more digits take minutes
        return True
    difference = (_prepared(right) - _prepared(answer)).evalf(15, maxn=MOST_DIGITS)
    return bool(abs(difference) <= abs(one) * sympy.Float(10) ** (100 - MOST_DIGITS))


def _percents(right, answer) -> bool:
    """Whether of 50% and 50 one is a percentage and its whole number is the other."""
    sides = [
        (side.args[0], True)
        if isinstance(side, sympy.Mul) and side.args[-1] == HUNDREDTH and len(side.args) == 2
        else (side, False)
        for side in (right, answer)
    ]
    (one, is_percent), (other, is_other) = sides
    return is_percent != is_other and one.is_Integer and one == other
