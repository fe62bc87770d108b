"""Estimators and losses that a config can select: verl's and those of algos/, read as source without an import."""

import ast
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
    function = verls(algos.KINDS["compute_advantage"]).get(estimator) or _ours(estimator)
    return function is not None and any(
        isinstance(node, ast.Name) and node.id == GROUP for node in ast.walk(function)
    )


def _ours(estimator: str) -> ast.FunctionDef | None:
    file = algos.FOLDER / f"{estimator}.py"
    if not file.is_file():
        return None
    try:
        tree = ast.parse(file.read_text())
    except SyntaxError:  # check_algo_files says so
        return None
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    return next((f for f in functions if f.name == "compute_advantage"), None)
