"""The reward of a run: its file and its options, looked at without running it."""

import ast
import functools
import importlib
import os
import subprocess
import symtable
import sys
import tokenize
from pathlib import Path
from types import ModuleType

from omegaconf import DictConfig, OmegaConf

from preflight.facts import is_sft, module_file
from preflight.mistakes import near, nearest, unknown
from preflight.names import ROOT

IMPORT_S = 20  # for a file whose text does not say whether it has the function
ABSENT = 3
IMPORT = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("reward_file", sys.argv[1])
module = importlib.util.module_from_spec(spec)
sys.modules["reward_file"] = module
spec.loader.exec_module(module)
sys.exit(0 if callable(getattr(module, sys.argv[2], None)) else {ABSENT})
"""
ROW = ("data_source", "solution_str", "ground_truth", "extra_info")  # verl gives these itself


def chosen(config: DictConfig) -> DictConfig | None:
    """`reward.custom_reward_function`, if it names one."""
    function = OmegaConf.select(config, "reward.custom_reward_function")
    return None if is_sft(config) or function is None or not function.path else function


def is_verls(config: DictConfig) -> bool:
    """Whether verl scores answers by functions of its own."""
    return not (is_sft(config) or chosen(config) or config.reward.reward_model.enable)


def own_reward(config: DictConfig) -> tuple[ModuleType, dict] | None:
    """(module, options) of a reward of this project that can be loaded; None for any other."""
    function = chosen(config)
    if function is None or not function.path.startswith("pkg://rewards.") or file_fault(config):
        return None
    options = OmegaConf.to_container(function, resolve=True).get("reward_kwargs") or {}
    return importlib.import_module(function.path.removeprefix("pkg://")), options


def file_fault(config: DictConfig) -> str | None:
    """What is wrong with its file: it is not there, not Python, or doesn't have the function.

    It is run only where its text does not say whether it has the function (`from x import *`).
    """
    function = chosen(config)
    if function is None:
        return None
    path = source_of(function.path)
    if path is None:
        module = function.path.removeprefix("pkg://").replace("/", ".")
        known = [p.stem for p in (ROOT / "rewards").glob("*.py") if not p.stem.startswith("_")]
        return f"no reward module {module}.{nearest(module.rpartition('.')[2], known)}"
    if not Path(path).is_file():
        return f"no reward file {path}"
    try:
        source = decoded(Path(path))
        names = names_in(source, path)
    except SyntaxError as error:
        return f"{near(path)}, line {error.lineno}: {error.msg}: {(error.text or '').strip()}"
    if function.name not in names and (
        why := missing(path, function.name, Path(path).stat().st_mtime_ns)
    ):
        return f"{near(path)} {why}{nearest(function.name, names)}"
    return None


def decoded(path: Path) -> str:
    """The text of a Python file, by its own coding line. Raises SyntaxError if it is no text."""
    try:
        with tokenize.open(path) as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise SyntaxError(str(error), (str(path), 1, 0, "")) from error


def source_of(path: str) -> str | None:
    """The path of a file of code, whether it is there or not; None for a module (pkg://NAME) that nobody has."""
    path = path.removeprefix("file://")
    if path.startswith("pkg://"):
        file = module_file(path.removeprefix("pkg://").replace("/", "."))
        return str(file) if file else None
    return path


def names_in(source: str, path: str) -> set[str]:
    """Names that a module binds, as Python's own compiler sees them: wherever they stand, in `if` or `try` as well.

    Raises SyntaxError.
    """
    module = symtable.symtable(source, path, "exec")
    return {
        name.get_name() for name in module.get_symbols() if name.is_assigned() or name.is_imported()
    }


@functools.cache
def missing(path: str, name: str, mtime_ns: int) -> str | None:
    """Whether a file really lacks a name that its text does not bind: it is imported, in a process of its own.

    `from x import *` and `globals()` make names that no reader of the text sees.

    Returns:
        what is wrong, after the file's name; None if the function is there, or the import takes too long to say.
    """
    command = [sys.executable, "-c", IMPORT, path, name]
    try:
        done = subprocess.run(
            command, cwd=os.getcwd(), capture_output=True, text=True, timeout=IMPORT_S
        )
    except subprocess.TimeoutExpired:
        return None
    if done.returncode == 0:
        return None
    if done.returncode == ABSENT:
        return f"has no function {name!r}."
    last = done.stderr.strip().splitlines()[-1:] or [f"exit {done.returncode}"]
    return f"can't be imported: {last[0]}."


def options_fault(config: DictConfig) -> str | None:
    """What the reward would refuse of its options at the first answer.

    A reward of this project is asked (its class Options, then `check_options` if it looks at the machine, too);
    of another one the names are compared with the parameters of its function, which is not imported.
    """
    function = chosen(config)
    if function is None or file_fault(config):
        return None
    if function.name == "compute_score" and (found := own_reward(config)):
        from rewards import _options  # pydantic takes a quarter of a second

        reward, options = found
        try:
            if look := getattr(reward, "check_options", None):
                look(**options)
            _options.check(reward, options)
        except ValueError as error:
            return f"reward={reward.__name__.rpartition('.')[2]}: {error}"
        return None
    path, given = str(source_of(function.path)), function.get("reward_kwargs") or {}
    written = definition(ast.parse(decoded(Path(path))), function.name)
    if written is None:
        return None
    takes = [argument.arg for argument in (*written.args.args, *written.args.kwonlyargs)]
    lacks = [name for name in ROW if name not in takes]
    if not written.args.kwarg and (lacks or written.args.posonlyargs):
        return (f"{near(path)}: verl calls {function.name} by name, and it takes no {' and no '.join(lacks or ROW)}."
                f" Write: def {function.name}({', '.join(ROW)}, **options)")  # fmt: skip
    known = [name for name in takes if name not in ROW]
    for name in given if not written.args.kwarg else ():
        if name not in known:
            return f"{near(path)}: {unknown('option', name, known)}"
    if needed := [name for name in required(written) if name not in (*ROW, *given)]:
        first = needed[0]
        return f"{near(path)}: {function.name} needs {first}: set lab.reward.{first}=..., or give it a default."
    return None


def definition(tree: ast.Module, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """The one function of this name in a module; None if there is none, several, or a decorator changes it."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    inner = {below for node in ast.walk(tree) if isinstance(node, kinds | ast.ClassDef | ast.Lambda)
             for below in ast.walk(node) if below is not node}  # fmt: skip
    found = [
        node
        for node in ast.walk(tree)
        if isinstance(node, kinds) and node.name == name and node not in inner
    ]
    return found[0] if len(found) == 1 and not found[0].decorator_list else None


def required(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Parameters without a default."""
    names = [argument.arg for argument in function.args.args]
    by_name = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    return names[: len(names) - len(function.args.defaults)] + [
        a.arg for a, default in by_name if default is None
    ]
