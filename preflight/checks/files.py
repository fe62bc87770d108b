"""Files that the run reads, and the room it needs."""

import ast
import importlib
import importlib.util
import os
import shutil
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from preflight.facts import is_rl
from preflight.mistakes import nearest
from preflight.models import facts_of, trained
from preflight.names import ROOT
from preflight.resolvers import HUB_ID

MIN_FREE_GIB = 1
CONTEXT_FILE = "config.json"


def as_list(files) -> list[str]:
    """verl takes one file or a list."""
    if files is None:
        return []
    return [files] if isinstance(files, str) else list(files)


def choice(group: str) -> str:
    """The option chosen for a group."""
    return HydraConfig.get().runtime.choices.get(group, "") if HydraConfig.initialized() else ""


def check_data_files(config: DictConfig) -> str | None:
    """Training and validation rows, with the command that makes them."""
    for file in [*as_list(config.data.train_files), *as_list(config.data.val_files)]:
        if not Path(file).is_file():
            name = choice("dataset")
            how = f"`make data D={name}` makes it (`python -m data_prep {name} --help`)."
            return f"no data file {os.path.relpath(file)}: {how}"
    return None


def check_model(config: DictConfig) -> str | None:
    """The model's folder; a hub id is left to the hub."""
    path = OmegaConf.select(
        config, "actor_rollout_ref.model.path" if is_rl(config) else "model.path"
    )
    folder = Path(path)
    if (folder / CONTEXT_FILE).is_file():
        return None
    if choice("model") == "tiny" and config.lab.model.path == "data/tiny_model":
        return "model=tiny isn't there yet: `python -m data_prep tiny_model` makes it."
    if folder.is_dir():
        return (
            f"{folder} is no Hugging Face model (no {CONTEXT_FILE}), and no run with a checkpoint."
        )
    if path == config.lab.model.path and HUB_ID.fullmatch(path):
        return None
    near = (
        nearest(folder.name, [p.name for p in folder.parent.iterdir()])
        if folder.parent.is_dir()
        else ""
    )
    return f"no model at {folder}.{near}"


def check_architecture(config: DictConfig) -> str | None:
    """What kind of model it is, by its config.json; verl takes one answer."""
    found = facts_of(trained(config))
    named = [] if found is None else found.get("architectures") or []
    if found is not None and len(named) != 1:
        return f"config.json of {trained(config)} names {named} as architectures, and verl wants one: put it there."
    return None


def own_reward(config: DictConfig):
    """(module, options) of a reward of this project that can be loaded; None for any other."""
    function = OmegaConf.select(config, "reward.custom_reward_function")
    if not is_rl(config) or function is None or not function.path:
        return None
    if not function.path.startswith("pkg://rewards.") or check_reward_function(config):
        return None
    options = OmegaConf.to_container(function, resolve=True).get("reward_kwargs") or {}
    return importlib.import_module(function.path.removeprefix("pkg://")), options


def check_reward_function(config: DictConfig) -> str | None:
    """The reward's file is there, is Python, and has the function. It is not run here."""
    function = OmegaConf.select(config, "reward.custom_reward_function")
    if not is_rl(config) or function is None or not function.path:
        return None
    path = function.path.removeprefix("file://")
    if path.startswith("pkg://"):
        module = path.removeprefix("pkg://").replace("/", ".")
        try:
            spec = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            spec = None
        if spec is None or not spec.origin:
            known = [p.stem for p in (ROOT / "rewards").glob("*.py") if not p.stem.startswith("_")]
            return f"no reward module {module}.{nearest(module.rpartition('.')[2], known)}"
        path = spec.origin
    if not Path(path).is_file():
        return f"no reward file {path}"
    try:
        tree = ast.parse(Path(path).read_text(), filename=path)
    except SyntaxError as error:
        return f"{os.path.relpath(path)}, line {error.lineno}: {error.msg}: {(error.text or '').strip()}"
    names = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}
    names |= {
        t.id
        for n in tree.body
        if isinstance(n, ast.Assign)
        for t in n.targets
        if isinstance(t, ast.Name)
    }
    imports = (a for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom) for a in n.names)
    names |= {a.asname or a.name for a in imports}
    if function.name not in names:
        return f"{os.path.relpath(path)} has no function {function.name!r}.{nearest(function.name, names)}"
    return None


def check_disk(config: DictConfig) -> str | None:
    """Room for checkpoints and logs, and for Ray's and verl's temporary files."""
    folder = Path(config.lab.run_dir)
    while not folder.exists():
        folder = folder.parent
    for place in (folder, Path("/tmp")):
        free = shutil.disk_usage(place).free / 2**30
        if free < MIN_FREE_GIB:
            return f"the disk of {place} is full: {free:.1f} GiB free, {MIN_FREE_GIB} GiB needed."
    if not os.access(folder, os.W_OK):
        return f"{folder} can't be written."
    return None
