"""Where the values of some Python code go, from name to name. Nothing is ever executed.

A `Step` is one value on its way: assigned, returned, or given to a call. It is live if something that
leaves the code (what a public function returns, an effect of a call, a column, an attribute) depends
on it, and `reached` by the data if it depends on an argument or on what a method fetched. Statements
that can't be reached, bare names and values that nobody uses are no steps, or not live ones.
Approximate on purpose: names are followed, not objects, and a test may turn out either way.
"""

import ast
import builtins
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rewards._trading.python_code import called, chain, text_of

QUIET = {"print", "log", "debug", "info", "warning", "error", "exception", "display"}
_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass
class Step:
    """A value on its way. `sources` and `targets` are keys of names."""

    kind: str  # assign, return, call
    labels: list[str]  # what it is called where it goes
    values: list[ast.expr]  # and the indexes that it goes to
    guards: tuple[ast.expr, ...]  # the conditions that it stands under
    function: tuple | None  # that it stands in
    targets: set
    narrow: set  # the same, but a column of a table only
    sources: set  # of the values
    under: set  # of the guards
    root: bool  # leaves the code
    live: bool = False
    reached: bool = False  # by the data

    def tests(self) -> tuple[ast.expr, ...]:
        return (*self.values, *self.guards)

    def nodes(self) -> Iterator[ast.AST]:
        for value in self.values:
            yield from ast.walk(value)


class Flow:
    """Where the values of some code go. `seen` counts statements, `idle` those without a purpose."""

    def __init__(self, tree: ast.Module):
        self.steps: list[Step] = []
        self.functions: dict[tuple, ast.AST] = {}
        self.data: set = set()  # keys of names that hold data
        self.undefined: set[str] = set()
        self.seen = self.idle = 0
        self._bound = {0: {*dir(builtins), "__name__", "__file__"}}
        self._parents = {0: None}
        self._bodies: set[str] = set()
        self._in_class = False
        self._stars = "*" in self._bind(tree, 0)
        self._block(tree.body, 0, (), None)
        self._follow()

    def _bind(self, node: ast.AST, scope: int) -> set:
        """Collect the names that a scope binds, those of lambdas and comprehensions included."""
        names = self._bound.setdefault(scope, set())
        waiting = list(ast.iter_child_nodes(node))
        while waiting:
            child = waiting.pop()
            if isinstance(child, (*_FUNCTION, ast.ClassDef)):
                names.add(child.name)
                continue
            if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
                names.add(child.id)
            elif isinstance(child, ast.alias):
                names.add((child.asname or child.name).split(".")[0])
            elif isinstance(child, ast.arg):
                names.add(child.arg)
                self.data.add((scope, child.arg))
            elif isinstance(child, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and child.name:
                names.add(child.name)
            waiting += ast.iter_child_nodes(child)
        return names

    def _key(self, name: str, scope: int) -> tuple:
        """A name with the scope that binds it."""
        inner = scope
        while inner is not None:
            if name in self._bound[inner]:
                return inner, name
            inner = self._parents[inner]
        if not self._stars:
            self.undefined.add(name)
        return 0, name

    def _loads(self, values: Iterable[ast.AST], scope: int) -> set:
        """Keys of all names in some expressions; each node gets its own as `name_key`."""
        found = set()
        for value in values:
            if not hasattr(value, "loads"):
                for node in ast.walk(value):
                    if isinstance(node, ast.Name):
                        node.name_key = self._key(node.id, scope)
                    elif isinstance(node, ast.Attribute):
                        node.name_key = ("self" if _own(node) else "[]", node.attr)
                    elif isinstance(node, ast.Subscript) and text_of(node.slice):
                        node.name_key = ("[]", text_of(node.slice))
                value.loads = keys_in(value)
            found |= value.loads
        return found

    def _function(self, node, scope: int) -> None:
        body = ast.dump(ast.Module(node.body, []))
        if body in self._bodies:  # the same again under another name
            self.idle += 1
            return
        self._bodies.add(body)
        inner, owned, self._in_class = id(node), self._in_class, False
        self._parents[inner] = scope
        self._bind(node, inner)
        key = ("self" if owned else scope, node.name)
        self.functions[key] = node
        self._block(node.body, inner, (), key)
        self._in_class = owned

    def _class(self, node: ast.ClassDef, scope: int) -> None:
        outer, self._in_class = self._in_class, True
        self._parents[id(node)] = scope
        self._bind(node, id(node))
        self._block(node.body, id(node), (), None)
        self._in_class = outer

    def _block(self, body: list[ast.stmt], scope: int, guards: tuple, function) -> None:
        self.seen += len(body)
        for number, node in enumerate(body):
            self._statement(node, scope, guards, function, number == 0)
            if isinstance(node, ast.Return | ast.Raise | ast.Break | ast.Continue):
                self.idle += len(body) - number - 1
                return

    def _statement(self, node, scope: int, guards: tuple, function, first: bool) -> None:
        here = (scope, guards, function)

        def blocks(*bodies, under=guards):
            for body in bodies:
                self._block(body, scope, under, function)

        if isinstance(node, _FUNCTION):
            self._function(node, scope)
        elif isinstance(node, ast.ClassDef):
            self._class(node, scope)
        elif isinstance(node, ast.If | ast.While):
            if any(isinstance(n, ast.Name) for n in ast.walk(node.test)):
                blocks(node.body, under=(*guards, node.test))
                blocks(node.orelse, under=(*guards, ast.UnaryOp(ast.Not(), node.test)))
            elif isinstance(node.test, ast.Constant) and node.test.value:
                blocks(node.body)
            else:  # never
                self.idle += 1
                blocks(node.orelse)
        elif isinstance(node, ast.For | ast.AsyncFor):
            self._assign([node.target], node.iter, *here)
            blocks(node.body, node.orelse)
        elif isinstance(node, ast.With | ast.AsyncWith):
            for item in node.items:
                self._assign([item.optional_vars or ast.Tuple([])], item.context_expr, *here)
            blocks(node.body)
        elif isinstance(node, ast.Try):
            blocks(node.body, node.orelse, node.finalbody, *(h.body for h in node.handlers))
        elif isinstance(node, ast.Match):
            blocks(*(case.body for case in node.cases), under=(*guards, node.subject))
        elif isinstance(node, ast.Assign):
            self._assign(node.targets, node.value, *here)
        elif isinstance(node, ast.AugAssign | ast.AnnAssign) and node.value:
            self._assign([node.target], node.value, *here)
        elif isinstance(node, ast.Return) and node.value:
            self._give(node.value, *here)
        elif isinstance(node, ast.Expr):
            self._expression(node.value, *here, first)

    def _give(self, value: ast.expr, scope: int, guards: tuple, function) -> None:
        """What a function gives back."""
        labels = [function[1]] if function else []
        self._add("return", labels, [value], scope, guards, function, {function}, True)

    def _expression(self, value, scope: int, guards: tuple, function, first: bool) -> None:
        value = value.value if isinstance(value, ast.Await) else value
        if isinstance(value, ast.Yield | ast.YieldFrom) and value.value:
            self._give(value.value, scope, guards, function)
        elif isinstance(value, ast.Call):
            kind = "quiet" if called(value) in QUIET else "call"
            keys = self._loads([value.func], scope)  # `rows.append(x)` puts x into rows
            self._add(kind, [chain(value)], [value], scope, guards, function, keys, True)
        elif not (first and text_of(value)):
            self.idle += 1

    def _assign(self, targets, value, scope: int, guards: tuple, function) -> None:
        for target in targets:
            both = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
            if both and len(target.elts) == len(value.elts):
                for one, its in zip(target.elts, value.elts, strict=True):
                    self._assign([one], its, scope, guards, function)
                return
        labels, keys, narrow, indexes, root, waiting = [], set(), set(), [], False, deque(targets)
        while waiting:
            target = waiting.popleft()
            if isinstance(target, ast.Tuple | ast.List):
                waiting += target.elts
                continue
            named = []
            while isinstance(target, ast.Subscript | ast.Attribute | ast.Starred):
                if isinstance(target, ast.Subscript):
                    indexes.append(target.slice)
                    column = target.slice  # `df["x"]`, `df.loc[rows, "x"]`
                    column = column.elts[-1] if isinstance(column, ast.Tuple) else column
                    named += filter(None, [text_of(column)])
                elif isinstance(target, ast.Attribute):
                    named.append(target.attr)
                    if _own(target):
                        narrow.add(("self", target.attr))
                        break
                target = target.value
            if isinstance(target, ast.Name):
                key = self._key(target.id, scope)
                keys.add(key)
                narrow |= {("[]", name) for name in named} or {key}
                narrow |= {("self", target.id)} if self._in_class else set()
                # What an argument or a global object holds is seen outside.
                root |= bool(indexes) and (key in self.data or key[0] == 0)
                named = named or [target.id]
            labels += named
        values, keys = [value, *indexes], keys | narrow
        self._add("assign", labels, values, scope, guards, function, keys, root, narrow)

    def _add(self, kind, labels, values, scope, guards, function, keys, root, narrow=None) -> None:
        sources, under = self._loads(values, scope), self._loads(guards, scope)
        targets = (keys, keys if narrow is None else narrow)
        self.steps.append(
            Step(kind, labels, values, guards, function, *targets, sources, under, root)
        )

    def _follow(self) -> None:
        """Mark what the data reaches, and what leaves the code."""
        for step in self.steps:
            if any(
                isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) for n in step.nodes()
            ):
                self.data |= step.targets  # `yf.download(...)` fetches some
        self.data |= {(0, name) for name in self.undefined}
        self.data = self.closure(self.data, forward=True)
        used = set()
        for step in self.steps:
            used |= (step.sources | step.under) - {step.function}
        dead = {key for key in self.functions if _hidden(key) and key not in used}
        for step in self.steps:
            step.reached = bool(self.data & (step.sources | step.under))
            step.root = step.root and step.function not in dead
        needed = set()
        for step in self.steps:
            if step.root:
                needed |= step.sources | step.under
        needed = self.closure(needed, forward=False)
        for step in self.steps:
            step.live = step.root or (bool(step.targets & needed) and step.function not in dead)
        self.idle += sum(not step.live for step in self.steps)

    def closure(self, keys: set, forward: bool, narrow: bool = False) -> set:
        """All keys that depend on these (forward), or that these depend on; these included."""

        def targets(step):
            return step.narrow if narrow else step.targets

        steps = defaultdict(list)
        for step in self.steps:
            for key in step.sources | step.under if forward else targets(step):
                steps[key].append(step)
        found, waiting = set(keys), list(keys)
        while waiting:
            for step in steps.pop(waiting.pop(), ()):
                new = (targets(step) if forward else step.sources | step.under) - found
                found |= new
                waiting += new
        return found


def keys_in(value: ast.AST) -> set:
    """Keys of all names in (a part of) a step's value."""
    return {node.name_key for node in ast.walk(value) if hasattr(node, "name_key")}


def _own(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id == "self"


def _hidden(key: tuple) -> bool:
    """A function that nobody outside calls: private, or in another function."""
    scope, name = key
    return scope not in (0, "self") or (name.startswith("_") and not name.startswith("__"))
