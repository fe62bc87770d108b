"""What is declared of each key: by verl's dataclasses, by verl's tree of defaults, and by the files of conf/.

All three are read as text: importing verl takes seconds.
"""

import ast
import functools
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from preflight.facts import given, installed, is_rl, verl_folder
from preflight.names import CONF

PLACES = ("base_config.py", "trainer/config/*.py", "workers/config/*.py", "utils/profiler/config.py",
          "utils/qat/*.py", "utils/skip/config.py")  # fmt: skip
EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
WORDS = {
    "bool": "bool", "int": "int", "float": "float", "str": "str", "dict": "dict", "list": "list", "tuple": "list",
    "set": "list", "Dict": "dict", "List": "list", "Tuple": "list", "None": "null", "Path": "str",
}  # fmt: skip


class Declared(NamedTuple):
    """What is declared of a key.

    Args:
        kinds: of the values that it takes: bool, int, float, str, list, dict, null; empty: nothing is declared.
        values: those that are written down for it somewhere.
        of: the name of the dataclass that its node becomes, if it does.
    """

    kinds: frozenset[str] = frozenset()
    values: tuple = ()
    of: str | None = None

    def __or__(self, other: "Declared") -> "Declared":
        return Declared(
            self.kinds | other.kinds,
            self.values + other.values,
            self.of or other.of,
        )


NOTHING = Declared()


def kind_of(value: Any) -> str:
    """bool, int, float, str, list, dict or null."""
    for kind, types in {"null": type(None), "bool": bool, "int": int, "float": float, "str": str}.items():  # fmt: skip
        if isinstance(value, types):
            return kind
    return "dict" if hasattr(value, "keys") else "list"


def _number(value: Any) -> Any:
    """1e-5 is a number to OmegaConf, and text to PyYAML (YAML 1.1 wants 1.0e-5)."""
    return float(value) if isinstance(value, str) and EXPONENT.fullmatch(value) else value


def by_value(value: Any) -> Declared:
    """That a key takes such values."""
    return Declared(frozenset((kind_of(value),)), (value,))


def _by_annotation(node: ast.expr | None) -> Declared:
    match node:
        case ast.Constant(value=None):
            return Declared(frozenset(("null",)))
        case ast.Constant(value=str() as text):  # a forward reference
            return _by_annotation(ast.parse(text, mode="eval").body)
        case ast.BinOp(left=left, right=right):
            return _union((left, right))
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            return _by_annotation(inner) | Declared(frozenset(("null",)))
        case ast.Subscript(value=ast.Name(id="Union"), slice=ast.Tuple(elts=parts)):
            return _union(parts)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
            parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return Declared(frozenset(kind_of(ast.literal_eval(part)) for part in parts))
        case ast.Subscript(value=outer):
            return _by_annotation(outer)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            if name in WORDS:
                return Declared(frozenset((WORDS[name],)))
            return Declared(frozenset(("dict",)), of=name) if name in _classes() else Declared()
    return Declared()


def _union(parts: Iterable[ast.expr]) -> Declared:
    found = [_by_annotation(part) for part in parts]
    if not all(one.kinds for one in found):
        return Declared()  # one of them takes anything
    return functools.reduce(Declared.__or__, found)


@functools.cache
def _classes() -> dict[str, ast.ClassDef]:
    folder = verl_folder()
    files = [file for place in PLACES for file in sorted(folder.glob(place))]
    return {
        node.name: node
        for file in files
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.ClassDef)
    }


@functools.cache
def fields(name: str | None) -> dict[str, Declared]:
    """Fields of a dataclass of verl's, with those of its bases; {} for one that verl doesn't have in its configs."""
    node = _classes().get((name or "").rpartition(".")[2])
    if node is None:
        return {}
    found: dict[str, Declared] = {}
    for base in reversed(node.bases):
        found |= fields(base.id) if isinstance(base, ast.Name) else {}
    for line in node.body:
        if not isinstance(line, ast.AnnAssign) or not isinstance(line.target, ast.Name):
            continue
        declared = _by_annotation(line.annotation)
        if isinstance(line.value, ast.Constant):
            declared |= by_value(line.value.value) if declared.kinds else Declared()
        found[line.target.id] = declared
    return found


@functools.cache
def of_conf() -> dict[str, Declared]:
    """What the files of conf/ write for each key, by its dotted name; an interpolation declares nothing."""
    found: dict[str, Declared] = {}

    def add(node: dict, prefix: str) -> None:
        for key, value in node.items():
            path = f"{prefix}{key}"
            if isinstance(value, str) and "${" in value:
                continue
            found[path] = found.get(path, Declared()) | by_value(_number(value))
            if isinstance(value, dict):
                add(value, f"{path}.")

    for file in sorted(CONF.rglob("*.yaml")):
        text = file.read_text()
        first = text.partition("\n")[0]
        package = (
            first.removeprefix("# @package ").strip() if first.startswith("# @package") else ""
        )
        tree = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
        tree = {key: value for key, value in tree.items() if key not in ("defaults", "hydra")}
        add(tree, "" if package in ("", "_global_") else f"{package}.")
    return found


@functools.cache
def verls_tree(rl: bool) -> DictConfig:
    """verl's own config tree of a kind of trainer."""
    base = verl_folder() / "trainer/config"
    if rl:
        return OmegaConf.load(base / "_generated_ppo_trainer.yaml")
    tree = OmegaConf.load(base / "sft_trainer_engine.yaml")
    groups = {"model": "hf_model", "engine": "fsdp", "optim": "fsdp", "profiler": "profiler"}
    for group, name in groups.items():
        tree[group] = OmegaConf.load(base / group / f"{name}.yaml")
    return tree


def is_not_verls(config: DictConfig, key: str) -> bool:
    """Whether a command line sets a key to another value than verl's own, which scripts like to repeat."""
    return given(key) and OmegaConf.select(config, key) != OmegaConf.select(
        verls_tree(is_rl(config)), key
    )


@functools.cache
def of_vllm() -> dict[str, Declared]:
    """What vLLM's engine takes (vllm/engine/arg_utils.py: EngineArgs, AsyncEngineArgs); {} without vLLM."""
    folder = installed("vllm")
    file = folder / "engine/arg_utils.py" if folder else None
    if file is None or not file.is_file():
        return {}
    known = [node for node in ast.parse(file.read_text()).body
             if isinstance(node, ast.ClassDef) and node.name in ("EngineArgs", "AsyncEngineArgs")]  # fmt: skip
    lines = [line for node in known for line in node.body if isinstance(line, ast.AnnAssign)]
    return {
        line.target.id: _by_annotation(line.annotation)
        for line in lines
        if isinstance(line.target, ast.Name)
    }


@functools.cache
def of_optimizer(name: str) -> dict[str, Declared]:
    """What an optimizer of torch.optim takes; {} for one that torch doesn't have."""
    folder = installed("torch")
    file = folder / f"optim/{name.lower()}.py" if folder else None
    if file is None or not file.is_file():
        return {}
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ClassDef) and node.name == name:
            (start,) = [
                line
                for line in node.body
                if isinstance(line, ast.FunctionDef) and line.name == "__init__"
            ]
            given = [*start.args.args[2:], *start.args.kwonlyargs]  # not self, params
            return dict.fromkeys((one.arg for one in given), Declared())
    return {}


def opened(path: str, node: DictConfig) -> dict[str, Declared]:
    """What may stand in a group of settings that verl passes on, by what takes it; {}: anything."""
    if path.endswith(
        ".mixed_precision"
    ):  # read by name in verl/workers/engine/fsdp/transformer_impl.py
        return dict.fromkeys(
            ("param_dtype", "reduce_dtype", "buffer_dtype"), Declared(frozenset(("str",)))
        )
    if path.endswith((".vllm_kwargs", ".engine_kwargs.vllm")):
        return of_vllm()
    if path.endswith(".override_optimizer_config"):
        above = node._get_parent()
        return (
            of_optimizer(str(above.get("optimizer")))
            if above.get("optimizer_impl") == "torch.optim"
            else {}
        )
    return {}


class Place(NamedTuple):
    """A key of a composed config: where it is, its node, what is declared, and the names that may stand beside it.

    Args:
        path: its dotted name.
        node: its raw node.
        declared: of it.
        siblings: the fields of the dataclass that the node above becomes; empty where anything may stand.
    """

    path: str
    node: Any
    declared: Declared
    siblings: tuple[str, ...]

    @property
    def is_known(self) -> bool:
        """Whether somebody declares it."""
        return bool(self.declared.kinds) or self.path.rpartition(".")[2] in self.siblings


def places(config: DictConfig, rl: bool, leave: Iterable[str] = ()) -> Iterator[Place]:
    """All keys of a composed config, from above.

    Args:
        config: composed; its interpolations are left as they are.
        rl: whether its trainer is verl's of RL, or that of SFT.
        leave: groups of settings that are not looked into.
    """
    leave, conf, verls = frozenset(leave), of_conf(), of_verl(rl)

    def walk(node: DictConfig, name: str | None, prefix: str) -> Iterator[Place]:
        of_class = fields(name) or opened(prefix[:-1], node)
        for key in list(node):
            path = f"{prefix}{key}"
            if key == "_target_":
                continue
            declared = (
                of_class.get(key, NOTHING) | conf.get(path, NOTHING) | verls.get(path, NOTHING)
            )
            child = node._get_node(key)
            yield Place(path, child, declared, tuple(of_class))
            is_open = OmegaConf.is_dict(child) and not (
                child._is_none() or child._is_interpolation()
            )
            if is_open and path not in leave:
                target = child._get_node("_target_") if "_target_" in child else None
                yield from walk(child, declared.of if target is None else str(target), f"{path}.")

    yield from walk(config, None, "")


@functools.cache
def of_verl(rl: bool) -> dict[str, Declared]:
    """What verl's tree writes for each key; one that stands for another key's has the value that this has there."""
    found: dict[str, Declared] = {}

    def add(node: DictConfig, prefix: str) -> None:
        for key in node:
            if OmegaConf.is_missing(node, key):
                continue
            try:
                value = node[key]
            except OmegaConfBaseException:  # of a tree that is not there
                continue
            found[f"{prefix}{key}"] = by_value(value)
            if isinstance(value, DictConfig):
                add(value, f"{prefix}{key}.")

    add(verls_tree(rl), "")
    return found
