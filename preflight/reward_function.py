"""The reward of a run: its file and its options, looked at without running it."""

import ast
import importlib
import importlib.util
import os
from pathlib import Path
from types import ModuleType

from omegaconf import DictConfig, OmegaConf

from preflight.facts import is_sft
from preflight.mistakes import nearest, unknown
from preflight.names import ROOT

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
    """What is wrong with its file: it is not there, not Python, or doesn't have the function. It is not run."""
    function = chosen(config)
    if function is None:
        return None
    path = source_of(function)
    if path is None:
        module = function.path.removeprefix("pkg://").replace("/", ".")
        known = [p.stem for p in (ROOT / "rewards").glob("*.py") if not p.stem.startswith("_")]
        return f"no reward module {module}.{nearest(module.rpartition('.')[2], known)}"
    if not Path(path).is_file():
        return f"no reward file {path}"
    try:
        tree = ast.parse(Path(path).read_text(), filename=path)
    except SyntaxError as error:
        return f"{os.path.relpath(path)}, line {error.lineno}: {error.msg}: {(error.text or '').strip()}"
    names = set(names_in(tree))
    if function.name not in names:
        return f"{os.path.relpath(path)} has no function {function.name!r}.{nearest(function.name, names)}"
    return None


def source_of(function: DictConfig) -> str | None:
    """The path of the reward's file, whether it is there or not; None for a module that nobody has."""
    path = function.path.removeprefix("file://")
    if path.startswith("pkg://"):
        return file_of_module(path.removeprefix("pkg://").replace("/", "."))
    return path


def file_of_module(module: str) -> str | None:
    """Where a module lies; None if there is none of that name."""
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None
    return spec.origin if spec else None


def names_in(tree: ast.Module):
    """Names that a module defines, assigns or imports at its top level."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (name.asname or name.name for name in node.names)


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
    path = str(source_of(function))
    known = parameters(ast.parse(Path(path).read_text()), function.name)
    for name in function.get("reward_kwargs") or {} if known is not None else ():
        if name not in known:
            return f"{os.path.relpath(path)}: {unknown('option', name, known)}"
    return None


def parameters(tree: ast.Module, name: str) -> list[str] | None:
    """The options of a function: its parameters but for the row's; None if it takes any, or isn't defined here."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            if node.args.kwarg:
                return None
            names = [argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)]
            return [name for name in names if name not in ROW]
    return None
