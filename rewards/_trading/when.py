"""From when the data is that a value of some Python code is made of. Nothing is ever executed.

An abstract interpretation: each value stands for its bar, now, and is followed from name to name, through
functions and columns. What is done with it moves it in time: `shift(-1)` by a bar into the future, `[::-1]`
turns the order of time, so that a window looks the other way, a mean over all that meets the series itself
knows its end. What each method does to time is in `trading.yaml`, under `time`; any other does nothing.
Approximate on purpose: of two branches the later counts, what is read before it is written is now, an
unknown number is 1, and tables are in the order of time when they come.
"""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import reduce
from math import inf

from rewards import _text
from rewards._trading.code import called, name_of
from rewards._trading.flow import Flow, Function, Step

WORDS = _text.load("trading.yaml")["time"]
KINDS = {name: kind for kind, listed in WORDS["methods"].items() for name in listed.split()}
FROM_LATER = {kind: set(listed.split()) for kind, listed in WORDS["from_later"].items()}
COUNTERS, ORDER = set(WORDS["counters"].split()), set(WORDS["order"].split())
FROZEN: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Value:
    """Of a value: `latest`, how many bars from now its latest data is; `since`, when the change that it is starts.

    roots: tables whose rows it has; pool: tables that it is one number of. turned: its time runs backwards.
    window: groups or windows of rows, not yet a number of each. early: labelled by the start of its time.
    plain: prices as they come. held: a signal or a position.
    """

    latest: float = -inf
    since: float | None = None
    roots: frozenset[str] = FROZEN
    pool: frozenset[str] = FROZEN
    turned: bool = False
    window: bool = False
    early: bool = False
    plain: bool = False
    held: bool = False

    def moved(self, bars: float) -> "Value":
        """The same, `bars` later: as of the past."""
        bars = -bars if self.turned else bars
        since = None if self.since is None else self.since - bars
        return replace(self, latest=self.latest - bars, since=since, early=self.early and bars <= 0)


def _both(a: Value, b: Value) -> Value:
    meets = a.pool & b.roots or b.pool & a.roots  # a series, and one number of all of it
    since = [value.since for value in (a, b) if value.since is not None]
    return Value(
        inf if meets else max(a.latest, b.latest),
        max(since, default=None),
        a.roots | b.roots,
        a.pool | b.pool,
        a.turned or b.turned,
        a.window or b.window,
        a.early or b.early,
        False,
        a.held or b.held,
    )


def joined(values: Iterable[Value]) -> Value:
    """What is made of several values."""
    return reduce(_both, values, Value())


class Times:
    """`ahead`: whether a step of `deciding`, or the profit of one of `held`, knows the future."""

    def __init__(self, tree: ast.Module, flow: Flow, deciding: set[Step], held: set[Step]):
        self.ahead = False
        self._modules, self._counters, self._functions = FROZEN, set(COUNTERS), set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                self._modules |= {(n.asname or n.name).split(".")[0] for n in node.names}
            elif isinstance(node, ast.For | ast.comprehension | ast.AugAssign):
                self._counters |= {n.id for n in ast.walk(node.target) if isinstance(n, ast.Name)}
            elif isinstance(node, Function):
                self._functions.add(node.name)
        self._names: dict = {}  # (function, name) → Value
        self._shared: dict[str, Value] = {}  # columns, attributes, what functions return
        self._numbers: dict[str, float] = {}
        for last in (False, True):  # a second time for what is defined below its use
            self._known: dict[int, Value] = {}
            self._last = last
            for step in flow.steps:
                self._step(step, step in deciding, step in held)

    def _step(self, step: Step, deciding: bool, held: bool) -> None:
        self._function, self._decides = step.function, deciding
        values = [self._of(value) for value in step.values]
        guards = joined(map(self._of, step.guards))
        # out[i + 1] = ... is of the next bar
        bars = max((self._offset(index) or 0 for index in step.values[1:]), default=0)
        latest = max(*(value.latest for value in values), guards.latest) - bars
        self.ahead |= self._last and deciding and latest > 0
        if step.local and guards.latest <= 0 < latest < inf and step.guards:
            latest = 0  # the price that an order is filled at
        value = replace(values[0], latest=latest, held=held or values[0].held)
        call = step.values[0]
        if isinstance(call, ast.Call) and step.effect and not keyword(call, "inplace"):
            given = joined(map(self._of, call.args))  # rows.append(x)
            fits = KINDS.get(called(call)) == "fits"
            value = joined([*map(self._name, step.writes), *([] if fits else [given])])
        for name in step.writes:
            self._names[step.function, name] = value
            if not step.local:
                self._shared[name] = value
            if (number := self._number(call)) is not None and step.local:
                self._numbers[name] = number

    def _name(self, name: str) -> Value:
        for function in (self._function, None):
            if (function, name) in self._names:
                return self._names[function, name]
        return Value(0, roots=frozenset([name]), plain=True)

    def _of(self, node: ast.AST) -> Value:
        known = self._known.get(id(node))
        if known is None:
            known = self._known[id(node)] = self._evaluate(node)
        return known

    def _evaluate(self, node: ast.AST) -> Value:
        if isinstance(node, ast.Name):
            return self._name(node.id)
        if isinstance(node, ast.Attribute):
            return self._part(node.attr, self._of(node.value))
        if isinstance(node, ast.Subscript):
            return self._subscript(node)
        if isinstance(node, ast.Call):
            value = self._call(node)
            for word in node.keywords:  # `df.assign(x=...)`
                self._shared[word.arg or ""] = self._of(word.value)
            return value
        if isinstance(node, ast.BinOp):
            return self._formula(type(node.op), self._of(node.left), self._of(node.right))
        if isinstance(node, ast.UnaryOp):
            return self._of(node.operand)
        if isinstance(node, ast.Dict):
            for key, column in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(key.value, str):
                    self._shared[key.value] = self._of(column)
        value = joined(map(self._of, ast.iter_child_nodes(node)))
        if isinstance(node, ast.ListComp | ast.GeneratorExp) and value.latest < inf:
            return value if self._decides else replace(value, latest=min(0, value.latest))
        return value

    def _part(self, name: str, whole: Value) -> Value:
        """A column or an attribute: as it was written, in the order of its table."""
        if name not in self._shared:
            return whole
        return replace(self._shared[name], turned=self._shared[name].turned or whole.turned)

    def _subscript(self, node: ast.Subscript) -> Value:
        whole, index = self._of(node.value), node.slice
        if isinstance(index, ast.Tuple) and index.elts:  # .loc[rows, column]
            if column := name_of(node):
                whole = self._part(column, whole)
            index = index.elts[0]
        if isinstance(index, ast.Constant) and isinstance(index.value, str):
            return self._part(index.value, whole)
        one = replace(whole, roots=FROZEN)
        if isinstance(index, ast.Slice):
            if (self._number(index.step) or 1) < 0:
                return replace(whole, turned=not whole.turned)
            upper, lower = self._offset(index.upper), self._offset(index.lower)
            if upper is not None:
                return one.moved(1 - upper)
            if lower is not None and index.upper is None:
                return replace(one, latest=inf)
            cut = self._number(index.upper) or 0
            return one.moved(-cut) if cut < 0 else one  # x[:-1] stands beside x[1:]
        bars = self._offset(index)
        if isinstance(index, ast.Constant) and self._is_line(node.value):
            bars = self._number(index)
        if bars is not None:
            return one.moved(-bars) if bars else one
        return one if self._number(index) is not None else joined([whole, self._of(index)])

    def _is_line(self, node: ast.AST) -> bool:
        """Whether it is one of backtrader's lines, where [1] is the next bar."""
        while isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
            node = node.value
        if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)):
            return False
        in_bar = getattr(self._function, "name", "") == "next"
        return in_bar and node.value.id == "self" and node.attr != "datas"

    def _offset(self, index: ast.AST | None) -> float | None:
        """1 for `i + 1` where i counts bars; None if nothing counts."""
        if isinstance(index, ast.Name):
            return 0 if index.id in self._counters else None
        if not isinstance(index, ast.BinOp) or not isinstance(index.op, ast.Add | ast.Sub):
            return None
        start, more = self._offset(index.left), self._number(index.right)
        if start is None or more is None:
            return None
        return start + (more if isinstance(index.op, ast.Add) else -more)

    def _number(self, node: ast.AST | None) -> float | None:
        """The number that it is; 1 for a name of some other."""
        if isinstance(node, ast.Constant):
            number = node.value
            return number if isinstance(number, int | float) and number is not True else None
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            number = self._number(node.operand)
            return None if number is None else -number
        if isinstance(node, ast.Name | ast.Attribute):
            return self._numbers.get(name_of(node), 1)
        return None

    def _call(self, node: ast.Call) -> Value:
        name, args, whole = called(node), [*node.args], None
        parts = [
            arg.value if isinstance(arg, ast.keyword) else arg for arg in (*args, *node.keywords)
        ]
        given = [self._of(part) for part in parts]
        owner = getattr(node.func, "value", None)
        mine = owner is None or getattr(owner, "id", "") == "self"
        if name in self._functions and mine:
            return self._returned(name, given)
        if isinstance(node.func, ast.Attribute) and not self._is_module(node.func.value):
            whole = self._of(node.func.value)
        elif args:  # np.roll(x, 1)
            whole, args = self._of(args[0]), args[1:]
        if name == "col" and node.args:  # of polars
            column = getattr(node.args[0], "value", "")
            return self._part(str(column), Value(0, roots=frozenset(["col"]), plain=True))
        if name == "alias" and node.args:
            self._shared[str(getattr(node.args[0], "value", ""))] = whole or Value()
        kind = KINDS.get(name, "")
        if whole is None:
            return Value(inf if kind == "looks_ahead" else 0)
        return self._method(node, kind, whole, args, given)

    def _method(self, node: ast.Call, kind: str, whole: Value, args: list, given: list) -> Value:
        """What a method, or a function of `whole`, makes of it and of what it is given."""
        future = replace(joined([whole, *given]), latest=inf, since=None)
        if self._from_later(node) or kind == "looks_ahead":
            return future
        if kind in ("shifts", "changes"):
            number = keyword(node, "periods", "n", "shift") or (args[0] if args else None)
            bars = self._number(number)
            bars = 1 if bars is None else bars
            if kind == "shifts":
                return whole.moved(bars)
            earlier = whole.moved(bars)
            latest = max(whole.latest, earlier.latest)
            since = earlier.latest if bars > 0 else None  # backwards, it is no return
            return replace(whole, latest=latest, since=since, plain=False)
        if kind == "fills_back":
            return replace(whole, latest=whole.latest if whole.turned else inf)
        if kind in ("windows", "fills"):
            if whole.turned:
                return future
            latest = max(whole.latest, joined(given).latest)  # a window may be made to look forward
            window = kind == "windows"
            return replace(whole, latest=latest, since=None, plain=False, held=False, window=window)
        if kind == "bins":
            by_end = getattr(keyword(node, "label"), "value", "") == "right"
            rule = str(getattr(args[0], "value", "")) if args else ""
            by_end = by_end or rule.lstrip("0123456789B")[:1] in tuple("WMQYA")
            return replace(whole, window=True, early=not by_end)
        if kind == "groups":
            return replace(
                whole, window=True, roots=FROZEN if mentions_order(node) else whole.roots
            )
        if kind == "spreads" and any(value.early for value in (whole, *given)):
            return future
        if kind == "tables":
            return whole
        if kind == "fits":
            return Value()
        if kind in ("turns", "sorts"):
            return replace(whole, turned=self._turned(node, kind, whole.turned))
        if kind == "per_group" and whole.window:
            summed = args and KINDS.get(str(getattr(args[0], "value", ""))) == "reduces"
            if not whole.roots:  # assets side by side
                return replace(whole, window=False)
            return future if summed else replace(joined([whole, *given]), window=False)
        if kind in ("reduces", "ranks") and keyword(node, "axis") is None:
            if whole.window:
                return replace(whole, window=False)
            if kind == "ranks" and whole.roots:
                return future
            if not args or isinstance(node.func, ast.Attribute):  # max(a, b) is none
                pool = joined([whole, *given]).roots
                return Value(whole.latest, pool=pool | whole.pool)
        if kind == "times" and given:
            return self._formula(ast.Mult, whole, joined(given))
        if kind == "chooses":
            self._profit(*([whole, joined(given)] if whole.held else [joined(given), whole]))
        value = joined([whole, *given])
        return replace(value, latest=value.latest if value.latest > -inf else 0, plain=whole.plain)

    def _from_later(self, node: ast.Call) -> bool:
        """Whether it says that a later row is taken, or one from both sides."""
        if getattr(keyword(node, "center"), "value", False):
            return True
        where = "joins" if "asof" in called(node) else "fills"
        said = keyword(node, "method", "fill_method", "strategy", "direction")
        return getattr(said, "value", None) in FROM_LATER[where]

    def _turned(self, node: ast.Call, kind: str, before: bool) -> bool:
        if kind == "turns":
            return not before
        by = keyword(node, "by") or (node.args[0] if node.args else None)
        if called(node) != "sort_index" and isinstance(by, ast.Constant) and by.value not in ORDER:
            return before  # a ranking
        down = keyword(node, "descending", "reverse")
        up = keyword(node, "ascending")
        return bool(getattr(down, "value", False)) or getattr(up, "value", True) in (False, 0)

    def _returned(self, name: str, given: list[Value]) -> Value:
        """What a function of this code gives: its own, later by what it is given."""
        made, value = self._shared.get(name, Value(0)), joined(given)
        if made.pool:
            made = replace(made, pool=value.roots or made.pool)
        later = max(made.latest + max(0, value.latest), value.latest) if given else made.latest
        return replace(made, latest=later, roots=value.roots, turned=made.turned or value.turned)

    def _formula(self, op: type, left: Value, right: Value) -> Value:
        value = _both(left, right)
        alike = left.plain and right.plain and left.roots == right.roots
        if op in (ast.Sub, ast.Div) and alike and left.latest > right.latest:
            return replace(value, since=right.latest)
        if op is ast.Mult and left.held != right.held:
            self._profit(*((left, right) if left.held else (right, left)))
            if value.since is not None:
                return replace(value, latest=min(0, value.latest), since=None, held=False)
        return value

    def _profit(self, held: Value, change: Value) -> None:
        """A position earns a change that starts when the position is known, or later."""
        late = change.latest > 0 if change.since is None else held.latest > change.since
        self.ahead |= self._last and held.held and not change.held and late

    def _is_module(self, node: ast.AST) -> bool:
        while isinstance(node, ast.Attribute):
            node = node.value
        return isinstance(node, ast.Name) and node.id in self._modules


def keyword(call: ast.Call, *names: str) -> ast.expr | None:
    """The value of a keyword argument."""
    return next((word.value for word in call.keywords if word.arg in names), None)


def mentions_order(call: ast.Call) -> bool:
    """Whether it groups what is of one time: assets side by side."""
    return any(text in ORDER for text in texts(call))


def texts(call: ast.Call) -> Iterator[str]:
    for part in (*call.args, *(word.value for word in call.keywords)):
        for node in ast.walk(part):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value.lower()
