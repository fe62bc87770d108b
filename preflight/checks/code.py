"""Names of code: modules, classes and registered functions that verl looks up after minutes. Nothing is imported."""

import ast
import re
from functools import cache
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from preflight.checks import applies_to
from preflight.engines import A, has_critic
from preflight.facts import installed, is_rl, model_key, module_file, verl_folder
from preflight.mistakes import near, nearest, unknown
from preflight.models import facts_of, file_of, trained
from preflight.resolvers import HUB_ID
from preflight.reward_function import decoded, names_in, source_of

FILES = ("data.custom_cls", "trainer.v1.sampler.custom_sampler", "data.sampler",
         f"{A}.rollout.agent.custom_async_server", "data.datagen")  # {path, name} of a Python file  # fmt: skip
DOTTED = (f"{A}.rollout.agent.agent_loop_manager_class", f"{A}.rollout.checkpoint_manager_class",
          "trainer.checkpoint_callback_class")  # module.Class  # fmt: skip
MANAGER, LOOP = "reward.reward_manager.name", f"{A}.rollout.agent.default_agent_loop"
REGISTRIES = {  # key → where verl registers such names
    MANAGER: "experimental/reward_loop/reward_manager",
    LOOP: "experimental/agent_loop",
}
OTHER_FILES = (f"{A}.rollout.multi_turn.tool_config_path", f"{A}.rollout.multi_turn.function_tool_path",
               f"{A}.rollout.agent.agent_loop_config_path", f"{A}.rollout.router_config_path")  # fmt: skip


STAR = re.compile(r"^\s*from .+ import \*", re.MULTILINE)


def bound(file: Path) -> set[str] | None:
    """Names that a Python file binds; None if it takes over those of another module. Raises SyntaxError."""
    source = decoded(file)
    return None if STAR.search(source) else names_in(source, str(file))


def lacks(file: Path, name: str) -> str | None:
    """What is wrong if a Python file has no such name, or is none."""
    try:
        names = bound(file)
    except SyntaxError as error:
        return f"{near(file)}, line {error.lineno}: {error.msg}"
    return (
        None
        if names is None or name in names
        else f"{near(file)} has no {name}.{nearest(name, names)}"
    )


def check_code_files(config: DictConfig) -> str | None:
    """A class of one's own: its file and its name."""
    for key in FILES:
        node = OmegaConf.select(config, key)
        path = node.get("path", node.get("class_path")) if OmegaConf.is_dict(node) else None
        if not path:
            continue
        source, name = source_of(path), node.get("name", node.get("class_name"))
        if source is None or not Path(source).is_file():
            return f"{key}.path={path}: no such file."
        if name and (wrong := lacks(Path(source), name)):
            return f"{key}: {wrong}"
    for key in OTHER_FILES:
        path = OmegaConf.select(config, key)
        if path and not Path(path).is_file():
            return f"{key}={path}: no such file."
    return None


def check_classes(config: DictConfig) -> str | None:
    """A class by its dotted name."""
    for key in DOTTED:
        name = OmegaConf.select(config, key)
        if not name:
            continue
        module, _, cls = name.rpartition(".")
        file = module_file(module) if module else None
        if file is None:
            return f"{key}={name}: no module {module or name} is installed."
        if wrong := lacks(file, cls):
            return f"{key}={name}: {wrong}"
    library = OmegaConf.select(config, f"{model_key(config)}.external_lib")
    for module in [library] if isinstance(library, str) else library or ():
        if module_file(module) is None:
            return f"{model_key(config)}.external_lib={module}: no such module is installed."
    return None


@cache
def registered_in(folder: str) -> frozenset[str]:
    """Names that files of verl's folder register by a decorator `@register(NAME)`."""
    found = set()
    for file in sorted((verl_folder() / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            for one in getattr(node, "decorator_list", ()):
                if isinstance(one, ast.Call) and ast.unparse(one.func) == "register":
                    found |= {str(arg.value) for arg in one.args if isinstance(arg, ast.Constant)}
    return frozenset(found)


@applies_to(is_rl)
def check_registered(config: DictConfig) -> str | None:
    """A reward manager and an agent loop by name. A file of agent loops may register more."""
    manager = config.reward.reward_manager
    own_loops = config[A].rollout.agent.agent_loop_config_path or OmegaConf.select(
        config, f"{A}.model.external_lib"
    )
    looked_up = {MANAGER: manager.source == "register", LOOP: not own_loops}
    for key, folder in REGISTRIES.items():
        if not looked_up[key]:
            continue
        name = OmegaConf.select(config, key)
        if name not in registered_in(folder):
            return unknown(key, str(name), registered_in(folder))
    return None


def check_optimizer(config: DictConfig) -> str | None:
    """An optimizer's class, and its package."""
    for key in (f"{A}.actor.optim", "critic.optim") if is_rl(config) else ("optim",):
        node = OmegaConf.select(config, key)
        impl, name = node.optimizer_impl, node.optimizer
        file = module_file(impl)
        if file is None:
            return f"{key}.optimizer_impl={impl}: no such module is installed."
        classes = {known for known in bound(file) or () if known[:1].isupper()}
        if classes and name not in classes and not name.startswith("_"):
            return unknown(f"{key}.optimizer", name, classes)
    return None


def check_other_models(config: DictConfig) -> str | None:
    """The critic's model and a tokenizer of its own: folders that are there. A hub id is left to the hub."""
    keys = [f"{model_key(config)}.tokenizer_path", f"{model_key(config)}.hf_config_path"]
    keys += ["critic.model.path", "critic.model.tokenizer_path"] if has_critic(config) else []
    for key in keys:
        path = OmegaConf.select(config, key)
        if not path or path == trained(config):
            continue
        wanted = "tokenizer_config.json" if "tokenizer" in key else "config.json"
        if file_of(path, wanted) is None and not (
            HUB_ID.fullmatch(path) and not Path(path).exists()
        ):
            return f"{key}={path}: there is no {wanted}."
    return None


def linear_layers(path: str) -> frozenset[str] | None:
    """Last names of a model's linear layers, by its class in transformers; None if that is not known."""
    kind = (facts_of(path) or {}).get("model_type")
    folder = installed("transformers")
    file = folder / f"models/{kind}/modeling_{kind}.py" if folder and kind else None
    if file is None or not file.is_file():
        return None
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            target, called = node.targets[0], ast.unparse(node.value.func)
            if isinstance(target, ast.Attribute) and called.endswith("Linear"):
                found.add(target.attr)
    return frozenset(found - {"lm_head", "score"}) or None


def check_target_modules(config: DictConfig) -> str | None:
    """Layers that a LoRA goes to; PEFT leaves out, without a word, what isn't there beside what is."""
    key = f"{model_key(config)}.target_modules"
    node = OmegaConf.select(config, model_key(config))
    if not node.lora_rank:
        return None
    asked = node.target_modules
    if asked == "all-linear":
        return None
    if asked is None or not len(asked):
        return f"{key} names no layer: such a LoRA learns nothing. Leave it out (all-linear)."
    known = linear_layers(trained(config))
    if isinstance(asked, str):
        word = asked.replace("_", "-").lower()
        if word == "all-linear":
            return f"{key}={asked}: write all-linear."
        return None  # a regular expression
    wrong = [name for name in asked if known and name.rpartition(".")[2] not in known]
    return unknown(key, ", ".join(wrong), known) if wrong else None
