"""What Python code does as a trading strategy: entry, exit, risk, indicators, backtest, faults.

An entry is a comparison of market data that decides over something called an entry (`buy = rsi < 30`,
`if rsi < 30: self.buy()`) or over the sign of something called a signal (`np.where(rsi < 30, 1, 0)`);
so for an exit. An indicator is computed from data, or what a call with data gives. All of it must be
live (see `flow`): what nothing depends on does not count.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, lru_cache
from typing import Any

from rewards import _text
from rewards._trading.code import called, name_of, names, words
from rewards._trading.flow import Flow, Step
from rewards._trading.when import Times

UPWARD, DOWNWARD = (ast.Gt, ast.GtE), (ast.Lt, ast.LtE)
ORDERINGS = (*UPWARD, *DOWNWARD, ast.Eq, ast.NotEq)
NOT_MARKET = {"len", "isinstance", "type"}
SIDES = ("entry", "exit")
SIDE_CHARS = 24  # of a text that names a side of the market

# kind → family → names. In `single` each family is a kind of its own.
FAMILIES = {
    kind: {f: re.compile(f"_(?:{'|'.join(listed.split())})s?_") for f, listed in known.items()}
    for kind, known in _text.load("trading.yaml").items()
    if kind in ("single", "risk", "indicators", "backtest")
}


@lru_cache(10_000)
def _families(kind: str, name: str) -> frozenset[str]:
    name = words(name)
    return frozenset(f for f, pattern in FAMILIES[kind].items() if pattern.search(name))


def families(kind: str, listed: Iterable[str]) -> set[str]:
    """The families of a kind that some names belong to."""
    return set().union(*(_families(kind, name) for name in listed))


class Strategy:
    """What is there of a strategy; entry, exit and risk from 0 to 1."""

    def __init__(self, tree: ast.Module, flow: Flow):
        self.faults = {"undefined names"} if flow.undefined else set()
        self.words: set[str] = set()  # of names and short texts
        self.formulas: set = set()  # different computations with data
        self._data, self._steps = flow.data, [step for step in flow.steps if step.live]
        self._senseless: set[int] = set()  # comparisons with itself, or that are never true
        self._as_text, self._compares = cache(ast.dump), cache(self._any_comparison)
        compared = (s.writes for s in self._steps if any(map(self._compares, s.tests)))
        # names that hold the outcome of a comparison
        self._conditions = flow.closure(set().union(*compared), forward=True)
        self._sides: dict[str, set] = {side: set() for side in SIDES}  # their conditions, as text
        self._deciding: set[str] = set()  # names in them
        self._named, self._computed, self._sized = set(), set(), set()  # sized: by a formula
        self._void: set[str] = set()  # sides whose only condition can't tell one time from another
        self._ruling: set[Step] = set()  # those that enter, leave, or say how much
        for step in self._steps:
            for label, values in bindings(step):
                self._side(step, label, values)
                self._value(label, values)
        for test in {id(test): test for step in self._steps for test in step.tests}.values():
            for node in ast.walk(test):
                self._expression(node)
        self.indicators = families("indicators", self._computed)
        self.backtest = families("backtest", self._computed)
        # a limit or a size follows an indicator
        rules = (step for step in self._steps if families("risk", self._sized & step.writes))
        self.adaptive = any(families("indicators", step.reads) for step in rules)
        used, mentioned = families("risk", self._sized), families("risk", self._named)
        self.risk = min(1.0, 0.75 * len(used)) if used else 0.4 * bool(mentioned)
        needed = flow.closure(self._deciding, forward=False)
        self.combined = families("indicators", needed) & self.indicators
        market = families("indicators", needed) or "market" in families("single", needed)
        sides = {side for side in SIDES if market and self._sides[side]} - self._void
        self.entry, self.exit = (float(side in sides) for side in SIDES)
        self.faults |= {"senseless condition"} if self._senseless else set()
        held = {step for step in self._steps if signals(step.label)}
        ruling = {step for step in self._steps if families("risk", step.writes)}
        if Times(tree, flow, self._ruling | held | ruling, held).ahead:
            self.faults.add("looks ahead")
        if self._sides["entry"] and self._sides["entry"] == self._sides["exit"]:
            self.faults.add("exit is entry")

    def _value(self, label: str, values: list[ast.expr]) -> None:
        """Take down what a value is called, and how it comes about."""
        inside = [node for value in values for node in ast.walk(value) if self._computes(node)]
        self._named.add(label)
        self._computed |= {label} if inside else set()
        self._sized |= {label} if any(isinstance(node, ast.BinOp) for node in inside) else set()

    def _expression(self, node: ast.AST) -> None:
        """Take down what is computed, and how."""
        text = name_of(node) or getattr(node, "value", "")
        self.words.update(words(text[:SIDE_CHARS]).split("_") if isinstance(text, str) else ())
        if not self._computes(node):
            return
        parts: Sequence[ast.AST] = [node]
        if isinstance(node, ast.Call):
            parts = [*node.args, *node.keywords]
        elif isinstance(node, ast.Compare):
            parts = node.comparators
        numbers = [o for part in parts for o in outcomes_of(part) if isinstance(o, int | float)]
        if isinstance(node, ast.Call):  # `self.I(talib.SMA, ...)` calls its first argument
            functions = (arg for arg in node.args if isinstance(arg, ast.Attribute))
            self._computed |= {name_of(node), *map(name_of, functions)}
            return
        if not all(families("risk", [name]) for name in names(node)):  # beside other data
            self._sized |= names(node)
        if isinstance(node, ast.BinOp):
            self.formulas.add((type(node.op), names(node)))
            return
        outside = [number for number in numbers if not 0 <= number <= 100]
        if outside and "bounded" in families("single", names(node)):
            self.faults.add("threshold out of range")

    def _computes(self, node: ast.AST) -> bool:
        """Whether it is a formula, a comparison or a call with data."""
        kinds = ast.BinOp | ast.Compare | ast.Call
        return isinstance(node, kinds) and bool(names(node) & self._data)

    def _any_comparison(self, value: ast.expr) -> bool:
        waiting: list[ast.AST] = [value]
        while waiting:
            node = waiting.pop()
            if self._never(node):
                self._senseless.add(id(node))
                continue
            if self._computes(node) and self._comparison(node):
                return True
            waiting += ast.iter_child_nodes(node)
        return False

    def _never(self, node: ast.AST) -> bool:
        """Whether it asks for what excludes each other: `(rsi < 30) & (rsi > 70)`."""
        least: dict[tuple, float] = {}
        most: dict[tuple, float] = {}
        for part in all_of(node) if all_of(node) != [node] else ():
            if not isinstance(part, ast.Compare) or len(part.ops) > 1:
                continue
            sides, op = [part.left, part.comparators[0]], type(part.ops[0])
            numbers = [next(outcomes_of(side), None) for side in sides if is_number(side)]
            named = [self._as_text(side) for side in sides if not is_number(side)]
            upward = op in (ast.Gt, ast.GtE)
            if op not in (*UPWARD, *DOWNWARD) or len(numbers) > 1:
                continue
            if is_number(sides[0]) or named != sorted(named):
                upward = not upward
            bounds, key = (least if upward else most), tuple(sorted(named))
            number = numbers[0] if numbers else 0
            bounds[key] = (max if upward else min)(number, bounds.get(key, number))
        return any(least[key] >= most.get(key, float("inf")) for key in least)

    def _comparison(self, node: ast.AST) -> bool:
        """Whether it compares data with something else: no text, no length, no type."""
        if isinstance(node, ast.Call):
            return "crossing" in families("single", [called(node)])
        if not isinstance(node, ast.Compare):
            return False
        sides = [node.left, *node.comparators]
        if len({self._as_text(unscaled(side)) for side in sides}) < len(sides):
            self._senseless.add(id(node))
            return False
        fixed = (side.value for side in sides if isinstance(side, ast.Constant))
        ordered = all(isinstance(op, ORDERINGS) for op in node.ops) and not NOT_MARKET & names(node)
        return ordered and all(isinstance(value, int | float) for value in fixed)

    def _side(self, step: Step, label: str, values: list[ast.expr]) -> None:
        """Take down whether a value enters or leaves the market on a condition."""
        either = (*values, *step.guards)
        kinds = families("single", [label])
        kinds = set() if "no_signal" in kinds else kinds
        compared = any(map(self._compares, either))
        if self._senseless and not compared:
            inside = (id(node) for value in values for node in ast.walk(value))
            self._void |= kinds & set(SIDES) if self._senseless.intersection(inside) else set()
        tests = [t for t in either if self._compares(t) or names(t) & self._conditions]
        if not tests:
            return
        outcomes = [outcome for value in values for outcome in outcomes_of(value)]
        texts = [o for o in outcomes if isinstance(o, str) and len(o) <= SIDE_CHARS]
        sides = (kinds | families("single", texts)) & set(SIDES)
        if "signal" in kinds:
            numbers = [o for o in outcomes if type(o) in (int, float) and abs(o) <= 2]
            least, most = min(numbers, default=0), max(numbers, default=1)
            sides |= {"entry"} if most > 0 else set()
            sides |= {"exit"} if least < 0 or (least == 0 and "held" in kinds) else set()
        self._ruling |= {step} if sides else set()
        for side in sides:  # one expression may give both
            self._sides[side].add((*map(self._as_text, tests), side if len(sides) > 1 else ""))
        self._deciding.update(*(map(names, tests) if sides else ()))


def signals(label: str) -> bool:
    """Whether something of this name is a signal or a position."""
    kinds = families("single", [label])
    return bool(kinds & {"entry", "exit", "signal"}) and "no_signal" not in kinds


def bindings(step: Step) -> Iterator[tuple[str, list[ast.expr]]]:
    """(name, values) of a step itself, of the entries of dicts and the keyword arguments in it."""
    yield step.label, step.values
    for node in (node for value in step.values for node in ast.walk(value)):
        if isinstance(node, ast.keyword) and node.arg:
            yield node.arg, [node.value]
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(key.value, str):
                    yield key.value, [value]


def all_of(node: ast.AST) -> list[ast.AST]:
    """What must all be true for it to be: the parts of `a & b and c`."""
    parts: Sequence[ast.AST] = ()
    if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
        parts = node.values
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd):
        parts = node.left, node.right
    return [one for part in parts for one in all_of(part)] or [node]


def is_number(node: ast.AST) -> bool:
    """Whether it is a number as it stands."""
    node = node.operand if isinstance(node, ast.UnaryOp) else node
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


def unscaled(node: ast.AST) -> ast.AST:
    """What it is but for numbers: x of `x.shift(0) * 1.01 + 1`."""
    while isinstance(node, ast.BinOp | ast.Call):
        if isinstance(node, ast.BinOp) and is_number(node.right):
            node = node.left
        elif isinstance(node, ast.BinOp) and is_number(node.left):
            if not isinstance(node.op, ast.Add | ast.Mult):  # 1 - x is another
                return node
            node = node.right
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and is_now(node):
            node = node.func.value
        else:
            return node
    return node


def is_now(call: ast.Call) -> bool:
    """Whether it is `.shift(0)`."""
    given = [*call.args, *(word.value for word in call.keywords)]
    return called(call) == "shift" and [getattr(arg, "value", None) for arg in given] == [0]


def outcomes_of(node: ast.AST) -> Iterator[Any]:
    """The constants that an expression may come out as: not those that it compares, or indexes."""
    if isinstance(node, ast.Constant):
        yield node.value
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield from (-o for o in outcomes_of(node.operand) if isinstance(o, int | float))
    elif not isinstance(node, ast.Compare | ast.Subscript | ast.Attribute):
        for child in ast.iter_child_nodes(node):
            yield from outcomes_of(child)
