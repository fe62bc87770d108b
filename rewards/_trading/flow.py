"""Where the values of some Python code go, from name to name. Nothing is ever executed.

A `Step` is one value on its way: assigned, returned, or given to a call. It is live if something
that leaves the code depends on it: what a public function returns, the effect of a call, a column.
What can't be reached, a bare name and a value that nobody uses are not. Approximate on purpose:
variables, attributes and columns of one name are one, and a test may turn out either way.
"""

import ast
import builtins
from collections import defaultdict
from dataclasses import dataclass

from rewards._trading.code import called, name_of, names

Function = ast.FunctionDef | ast.AsyncFunctionDef
ENDS = (ast.Return, ast.Raise, ast.Break, ast.Continue)
QUIET = {"print", "log", "debug", "info", "warning", "error", "exception", "display"}


@dataclass(eq=False)
class Step:
    label: str  # what the value is called where it goes
    values: list[ast.expr]  # and the indexes that it goes to
    writes: set[str]  # the variable, column or attribute
    leaves: bool  # the code
    guards: tuple[ast.expr, ...]  # the conditions that it stands under
    function: Function | None  # that it stands in
    local: bool = False  # a variable: no column, no attribute
    effect: bool = False  # a call for what it does
    dead: bool = False  # nobody calls its function
    live: bool = False

    def __post_init__(self):
        self.tests = [*self.values, *self.guards]
        self.reads = set().union(*map(names, self.tests))


class Flow:
    """Where the values of some code go."""

    def __init__(self, tree: ast.Module):
        self.steps: list[Step] = []
        self._bodies: set[str] = set()
        self._inner: set[Function] = set()  # functions that only other code here can call
        self._block(tree.body, (), None)
        self.undefined = undefined(tree)
        self.data = self._data(tree)  # names that hold some
        self._mark_live()

    def _block(self, body: list[ast.stmt], guards: tuple, function: Function | None) -> None:
        for node in body:
            if isinstance(node, Function):
                self._function(node, function)
            elif isinstance(node, ast.If | ast.While):
                if names(node.test) or getattr(node.test, "value", False):  # not `if 0`
                    self._block(node.body, (*guards, node.test), function)
                otherwise = ast.UnaryOp(ast.Not(), node.test)
                self._block(node.orelse, (*guards, otherwise), function)
            else:
                self._statement(node, guards, function)
                cases = [*getattr(node, "handlers", ()), *getattr(node, "cases", ())]
                for part in (node, *cases):
                    for field in ("body", "orelse", "finalbody"):
                        self._block(getattr(part, field, []), guards, function)
            if isinstance(node, ENDS):
                return

    def _function(self, node: Function, outer: Function | None) -> None:
        body = ast.dump(ast.Module(node.body, []))
        if body not in self._bodies:  # or it is the same again under another name
            self._bodies.add(body)
            if outer or (node.name[0] == "_" and not node.name.startswith("__")):
                self._inner.add(node)
            self._block(node.body, (), node)

    def _statement(self, node: ast.stmt, guards: tuple, function: Function | None) -> None:
        value = getattr(node, "value", None) or getattr(node, "iter", None)
        given = isinstance(value, ast.Yield | ast.YieldFrom | ast.Await)
        value = value.value if given else value
        if value is None:
            return
        where = (guards, function)
        if isinstance(node, ast.Return) or (given and not isinstance(value, ast.Call)):
            name = getattr(function, "name", "")
            self.steps.append(Step(name, [value], {name}, True, *where))
        elif not isinstance(node, ast.Expr):
            targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
            for target in filter(None, targets):  # `type X = int` has none
                self._assign(target, value, *where)
        elif isinstance(value, ast.Call) and called(value) not in QUIET:
            rows = getattr(value.func, "value", None)  # `rows.append(x)` puts x into rows
            writes = {rows.id} - {"self"} if isinstance(rows, ast.Name) else set()
            self.steps.append(
                Step(name_of(value), [value], writes, True, *where, local=True, effect=True)
            )

    def _assign(
        self, target: ast.expr, value: ast.expr, guards: tuple, function: Function | None
    ) -> None:
        if isinstance(target, ast.Tuple | ast.List):
            values = [value] * len(target.elts)
            if isinstance(value, ast.Tuple) and len(value.elts) == len(target.elts):
                values = value.elts
            for one, its in zip(target.elts, values, strict=True):
                self._assign(one, its, guards, function)
            return
        parts, values, whole = [], [value], target
        while isinstance(target, ast.Subscript | ast.Attribute | ast.Starred):
            parts += filter(None, [name_of(target)])
            values += [target.slice] if isinstance(target, ast.Subscript) else []
            target = target.value
        parts = parts or [getattr(target, "id", "")]
        leaves = len(values) > 1  # a column: the table is seen outside
        local = target is whole
        self.steps.append(
            Step("_".join(parts), values, set(parts), leaves, guards, function, local)
        )

    def _data(self, tree: ast.Module) -> set[str]:
        found = self.undefined | {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
        for step in self.steps:  # `yf.download(...)` fetches some
            calls = (n for v in step.values for n in ast.walk(v) if isinstance(n, ast.Call))
            if any(isinstance(call.func, ast.Attribute) for call in calls):
                found |= step.writes
        return self.closure(found, forward=True)

    def _mark_live(self) -> None:
        used = set()
        for step in self.steps:
            used |= step.reads - {getattr(step.function, "name", "")}
        for step in self.steps:
            step.dead = step.function in self._inner and step.function.name not in used
        leaving = (step.reads for step in self.steps if step.leaves and not step.dead)
        needed = self.closure(set().union(*leaving), forward=False)
        for step in self.steps:
            step.live = not step.dead and (step.leaves or bool(step.writes & needed))

    def closure(self, start: set[str], forward: bool) -> set[str]:
        """All names that depend on these (forward), or that these depend on; these included."""
        edges = defaultdict(list)
        for step in self.steps:
            source, target = (step.reads, step.writes)[:: 1 if forward else -1]
            for name in source:
                edges[name].append(target)
        found, waiting = set(start), list(start)
        while waiting:
            for target in edges.pop(waiting.pop(), ()):
                waiting += target - found
                found |= target
        return found


def undefined(tree: ast.Module) -> set[str]:
    """Names that nothing in the code defines, nor Python itself."""
    loaded, bound = set(), {*dir(builtins), "__name__", "__file__"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (loaded if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).split(".")[0])
        elif not isinstance(node, ast.keyword):
            bound |= {getattr(node, "name", None), getattr(node, "arg", None)}
    return set() if "*" in bound else loaded - bound
