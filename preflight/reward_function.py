"""The reward of a run: its file and its options, looked at without running it."""

import ast
import importlib
import importlib.util
import os
from pathlib import Path
from types import ModuleType

from omegaconf import DictConfig, OmegaConf

from preflight.facts import is_sft
from preflight.mistakes import nearest
from preflight.names import ROOT


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
    path = function.path.removeprefix("file://")
    if path.startswith("pkg://"):
        module = path.removeprefix("pkg://").replace("/", ".")
        path = file_of_module(module)
        if path is None:
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


def file_of_module(module: str) -> str | None:
    """Where a module lies; None if there is none of that name."""
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None
    return spec and spec.origin


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
    """What a reward of ours says of its options: `check_options`, else `bars`, which looks at all of them."""
    if not (found := own_reward(config)):
        return None
    reward, options = found
    look = getattr(reward, "check_options", None) or getattr(reward, "bars", None)
    try:
        if look:
            look(**options)
    except (TypeError, ValueError) as error:
        return f"reward={reward.__name__.rpartition('.')[2]}: {error}"
    return None
