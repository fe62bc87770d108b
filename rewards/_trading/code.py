"""What Python code does as a trading strategy: entry, exit, risk, indicators, backtest, faults.

An entry is a comparison of market data that decides over something called an entry (`buy = rsi < 30`,
`if rsi < 30: self.buy()`) or over the sign of something called a signal (`np.where(rsi < 30, 1, 0)`);
so for an exit. Something that they depend on is called like a price or an indicator. An indicator is
computed from data, or what a call with data gives. All of it must be live (see `_trading/python_flow`): what
nothing depends on does not count.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from rewards import _text
from rewards._trading.python_code import called, chain, text_of, words
from rewards._trading.python_flow import Flow, Step, keys_in

WORDS = _text.load("trading.yaml")
ORDERINGS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)
ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Pow, ast.Mod)
SIDE_CHARS = 24  # of a text that names a side of the market


def _pattern(listed: str) -> re.Pattern:
    """For `words`."""
    return re.compile(f"_(?:{'|'.join(listed.split())})s?_")


KNOWN = {name: _pattern(listed) for name, listed in WORDS["single"].items()}
FAMILIES = {
    kind: {family: _pattern(listed) for family, listed in WORDS[kind].items()}
    for kind in ("risk", "indicators", "backtest")
}


@lru_cache(10_000)
def families(kind: str, name: str) -> frozenset[str]:
    """The families of `kind` (risk, indicators, backtest) that a name belongs to."""
    name = words(name)
    return frozenset(f for f, pattern in FAMILIES[kind].items() if pattern.search(name))


def names_in(node: ast.AST) -> Iterator[str]:
    """Names of variables, attributes and columns."""
    for part in ast.walk(node):
        if hasattr(part, "name_key"):
            yield part.name_key[1]


@dataclass
class Strategy:
    """Strengths from 0 to 1, but for sets."""

    entry: float = 0.0
    exit: float = 0.0
    risk: float = 0.0
    indicators: set = field(default_factory=set)
    backtest: set = field(default_factory=set)
    formulas: int = 0  # different computations with data
    combined: int = 0  # indicators that entries and exits depend on
    custom: bool = False  # a computation with several indicators
    adaptive: bool = False  # a limit or a size that follows the data
    faults: set = field(default_factory=set)
    words: set = field(default_factory=set)  # of names and short texts


class Reading:
    """One reading of some code."""

    def __init__(self, flow: Flow):
        self.flow, self.found = flow, Strategy()
        self.steps = [s for s in flow.steps if s.live and s.kind != "quiet"]
        self.decided: dict[int, bool] = {}
        self.conditions: set = set()  # keys of names that hold the outcome of a comparison
        start = {k for s in self.steps if any(map(self.decides, s.tests())) for k in s.narrow}
        self.decided.clear()
        self.conditions = flow.closure(start, forward=True, narrow=True)
        self.sides: dict[str, set] = {"entry": set(), "exit": set()}  # steps' conditions, as text
        self.deciding: dict[int, ast.expr] = {}  # the conditions of entries and exits, by id
        self.texts: dict[int, str] = {}

    def decides(self, value: ast.expr) -> bool:
        """Whether a comparison of market data is in it."""
        if id(value) not in self.decided:
            self.decided[id(value)] = any(map(self._decides, ast.walk(value)))
        return self.decided[id(value)]

    def _decides(self, node: ast.AST) -> bool:
        if isinstance(node, ast.Compare):
            return self._compares(node)
        if isinstance(node, ast.Call) and KNOWN["crossing"].search(words(called(node))):
            return bool(keys_in(node) & self.flow.data)
        return getattr(node, "name_key", None) in self.conditions

    def _compares(self, node: ast.Compare) -> bool:
        """Market data against something else: no text, no length, no type."""
        sides = [node.left, *node.comparators]
        if not all(isinstance(op, ORDERINGS) for op in node.ops):
            return False
        for side in sides:
            if isinstance(side, ast.Call) and called(side) in ("len", "isinstance", "type"):
                return False
            if isinstance(side, ast.Constant) and not isinstance(side.value, int | float):
                return False
        if len({ast.dump(side) for side in sides}) < len(sides):
            self.found.faults.add("compares with itself")
            return False
        return bool(keys_in(node) & self.flow.data)

    def read(self) -> Strategy:
        risk: dict[str, float] = {}
        formulas, indicated = set(), set()
        for step in self.steps:
            for label, values in bindings(step):
                self._side(step, label, values)
                for family in families("risk", label):
                    strength = 1.0 if self._computes(values) else 0.5
                    risk[family] = max(strength, risk.get(family, 0.0))
                if self._computes(values, calls=True):
                    indicated |= families("indicators", label)
                    self.found.backtest |= families("backtest", label)
                    self._adapts(label, values)
        tests = {id(test): test for step in self.steps for test in step.tests()}
        for node in [n for test in tests.values() for n in ast.walk(test)]:
            if said := getattr(node, "name_key", ("", ""))[1] or text_of(node):
                self.found.words |= set(words(said[:SIDE_CHARS]).split("_"))
            if isinstance(node, ast.Call):
                self._call(node, indicated)
            elif isinstance(node, ast.BinOp | ast.Compare):
                self._formula(node, risk, formulas)
        if self.flow.undefined:
            self.found.faults.add("undefined names")
        entry, exit_ = self.sides["entry"], self.sides["exit"]
        if entry and entry == exit_:
            self.found.faults.add("exit is entry")
        self.found.indicators, self.found.formulas = indicated, len(formulas)
        keys = set().union(*map(keys_in, self.deciding.values()))
        needed = self.flow.closure(keys, forward=False, narrow=True)
        if any(
            KNOWN["market"].search(words(name)) or families("indicators", name)
            for _, name in needed
        ):
            self.found.entry, self.found.exit = float(bool(entry)), float(bool(exit_))
            self.found.combined = len(self._combined(needed))
        used = sum(strength == 1 for strength in risk.values())
        self.found.risk = min(1.0, 0.75 * used) if used else 0.4 * bool(risk)
        return self.found

    def _computes(self, values: list[ast.expr], calls: bool = False) -> bool:
        """Whether arithmetic with data is in it, or (calls) a call that gets data."""
        kinds = (ast.BinOp, ast.Call) if calls else ast.BinOp
        return any(
            isinstance(node, kinds) and keys_in(node) & self.flow.data
            for value in values
            for node in ast.walk(value)
        )

    def _side(self, step: Step, label: str, values: list[ast.expr]) -> None:
        """Take down whether a value enters or leaves the market on a condition."""
        deciding = [test for test in (*values, *step.guards) if self.decides(test)]
        if not deciding:
            return
        name = words(label)
        sides = {side for side in self.sides if KNOWN[side].search(name)}
        if KNOWN["no_signal"].search(name):
            sides = set()
        elif KNOWN["signal"].search(name) or (step.kind == "return" and "_strategy_" in name):
            sides |= self._signed(name, values)
        for said in filter(None, (text_of(r) for value in values for r in results(value))):
            if len(said) <= SIDE_CHARS:
                sides |= {side for side in self.sides if KNOWN[side].search(words(said))}
        for side in sides:
            # one expression may give both
            self.sides[side].add((*map(self._text, deciding), side if len(sides) > 1 else ""))
        if sides:
            self.deciding |= {id(test): test for test in deciding}

    def _text(self, test: ast.expr) -> str:
        if id(test) not in self.texts:
            self.texts[id(test)] = ast.dump(test)
        return self.texts[id(test)]

    def _signed(self, name: str, values: list[ast.expr]) -> set[str]:
        """The sides that a signal's numbers stand for: 1 is in, -1 the other side, 0 out."""
        numbers = {
            -r.operand.value if isinstance(r, ast.UnaryOp) else r.value
            for value in values
            for r in results(value)
            if text_of(r) is None
        }
        sides = {"entry"} if not numbers or any(n > 0 for n in numbers) else set()
        held = KNOWN["held"].search(name)
        if any(n < 0 for n in numbers) or (held and (0 in numbers or not numbers)):
            sides.add("exit")
        minus = (n for v in values for n in ast.walk(v) if isinstance(n, ast.BinOp))
        if any(isinstance(n.op, ast.Sub) and self.decides(n.right) for n in minus):
            sides.add("exit")
        return sides

    def _call(self, node: ast.Call, indicated: set) -> None:
        if not keys_in(node) & self.flow.data:
            return
        indicated |= computed_by(node)
        self.found.backtest |= families("backtest", chain(node))
        shift = [*node.args[:1], *(k.value for k in node.keywords if k.arg == "periods")]
        if called(node) == "shift" and shift and isinstance(shift[0], ast.UnaryOp):
            self.found.faults.add("looks ahead")

    def _formula(self, node: ast.BinOp | ast.Compare, risk: dict, formulas: set) -> None:
        names = {*names_in(node)}
        used = {name: families("risk", name) for name in names}
        if keys_in(node) & self.flow.data and not all(used.values()):
            for family in set().union(*used.values()):
                risk[family] = 1.0
        if isinstance(node, ast.Compare):
            bounded = any(KNOWN["bounded"].search(words(name)) for name in names)
            limits = [getattr(side, "value", 0) for side in node.comparators]
            numbers = [n for n in limits if isinstance(n, int | float)]
            if bounded and any(not 0 <= n <= 100 for n in numbers):
                self.found.faults.add("threshold out of range")
        elif isinstance(node.op, ARITHMETIC) and keys_in(node) & self.flow.data:
            formulas.add(type(node.op).__name__ + "".join(sorted(names)))
            if len(set().union(*(families("indicators", name) for name in names))) > 1:
                self.found.custom = True

    def _adapts(self, label: str, values: list[ast.expr]) -> None:
        if KNOWN["adapting"].search(words(label)):
            named = [name for value in values for name in names_in(value)]
            self.found.adaptive |= any(KNOWN["measured"].search(words(n)) for n in named)

    def _combined(self, needed: set) -> set[str]:
        """The indicators that entries and exits depend on."""
        found = set()
        for step in self.steps:
            if step.narrow & needed:
                calls = (node for node in step.nodes() if isinstance(node, ast.Call))
                named = (families("indicators", label) for label in step.labels)
                found = found.union(*named, *map(computed_by, calls))
        return found & self.found.indicators


def computed_by(call: ast.Call) -> set[str]:
    """The indicators that a call computes; `self.I(talib.SMA, ...)` calls its first argument."""
    wrapped = call.args[:1] if called(call) == "I" else []
    names = [chain(call), *(getattr(function, "attr", "") for function in wrapped)]
    return set().union(*(families("indicators", name) for name in names))


def bindings(step: Step) -> Iterator[tuple[str, list[ast.expr]]]:
    """(name, values) of a step itself, of the entries of dicts and the keyword arguments in it."""
    yield "_".join(step.labels), step.values
    for node in step.nodes():
        if isinstance(node, ast.keyword) and node.arg:
            yield node.arg, [node.value]
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if key is not None and text_of(key):
                    yield text_of(key), [value]


def results(value: ast.expr) -> Iterator[ast.expr]:
    """The constants that an expression may come out as: of branches, `where`, calls, and lists."""
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.IfExp):
            waiting += [node.body, node.orelse]
        elif isinstance(node, ast.Call):
            waiting += [*node.args, *(k.value for k in node.keywords)]
        elif isinstance(node, ast.Tuple | ast.List | ast.Dict):
            waiting += node.values if isinstance(node, ast.Dict) else node.elts
        elif isinstance(node, ast.BinOp):
            waiting += [node.left, node.right]
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            if isinstance(node.operand, ast.Constant) and node.operand.value in (1, 2):
                yield node
        elif isinstance(node, ast.Constant) and (text_of(node) or node.value in (0, 1, 2)):
            yield node
