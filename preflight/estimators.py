"""Estimators and losses that a config can select: verl's and those of algos/, read as source without an import."""

import ast
import builtins
import functools

from plugins import algos
from preflight.facts import verl_folder

SOURCE = "trainer/ppo/core_algos.py"
ENUM = "AdvantageEstimator"
GROUP = "index"  # the argument by which verl tells an estimator which answers have one prompt


@functools.cache
def _core_algos() -> ast.Module:
    return ast.parse((verl_folder() / SOURCE).read_text())


def _members(tree: ast.Module) -> dict[str, str]:
    """Members of verl's enumeration of estimators, with the names that a config has for them."""
    enum = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == ENUM)
    assigned = (node for node in enum.body if isinstance(node, ast.Assign))
    return {ast.unparse(node.targets[0]): ast.literal_eval(node.value) for node in assigned}


@functools.cache
def verls(decorator: str) -> dict[str, ast.FunctionDef]:
    """Functions that verl registers with `decorator`, by name."""
    tree = _core_algos()
    members, found = _members(tree), {}
    for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
        for call in (node for node in function.decorator_list if isinstance(node, ast.Call)):
            if ast.unparse(call.func) != decorator:
                continue
            named = call.args[0]
            if isinstance(named, ast.Attribute):
                found[members[named.attr]] = function
            else:
                found[ast.literal_eval(named)] = function
    return found


def registered(function: str) -> set[str]:
    """Names that verl has for a kind of function (algos.KINDS), and those of algos/."""
    return set(verls(algos.KINDS[function])) | set(algos.names(function))


def compares_group(estimator: str) -> bool:
    """Whether an estimator compares the answers to a prompt: it takes the groups that verl gives it, and uses them.

    Verl's functions and those of algos/ are looked at; of any other name this is not known, and false.
    """
    return bool(mentions("compute_advantage", estimator, GROUP))


def mentions(kind: str, name: str, word: str) -> bool | None:
    """Whether a function that a config selects has a word in it, or in a function of its file that it calls.

    Args:
        kind: compute_advantage or compute_policy_loss (algos.KINDS).
        name: of the estimator or the loss.
        word: a variable, an attribute, or a text (`config.get("gamma")`).

    Returns:
        None if the function isn't known, or hands the config to one of another file.
    """
    ours, verl = _ours(kind, name), verls(algos.KINDS[kind]).get(name)
    tree = ours or _core_algos()
    function = verl if ours is None else _function(ours, kind)
    if function is None:
        return None
    seen, left, unknown = set(), [function], False
    while left:
        here = left.pop()
        seen.add(here.name)
        for node in ast.walk(here):
            if word in (getattr(node, "id", None), getattr(node, "attr", None)):
                return True
            if isinstance(node, ast.Constant) and node.value == word:
                return True
            called = (
                _function(tree, node.func.id)
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
                else None
            )
            if called is not None and called.name not in seen:
                left.append(called)
            if called is None and isinstance(
                node, ast.Call
            ):  # of another file, which may look there
                given = [*node.args, *(one.value for one in node.keywords)]
                passed = any(isinstance(one, ast.Name) and one.id == "config" for one in given)
                unknown = unknown or (passed and not _is_builtin(node))
    return None if unknown else False


def _is_builtin(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Name) and hasattr(builtins, node.func.id)


def _function(tree: ast.Module, name: str) -> ast.FunctionDef | None:
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    return next((f for f in functions if f.name == name), None)


def _ours(kind: str, name: str) -> ast.Module | None:
    file = algos.FOLDER / f"{name}.py"
    if not file.is_file():
        return None
    try:
        tree = ast.parse(file.read_text())
    except SyntaxError:  # check_algo_files says so
        return None
    return tree if _function(tree, kind) else None
