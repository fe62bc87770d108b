"""Columns of the data that a trainer or a reward reads, and the chat template that renders them."""

import ast
import json
import os
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from preflight.checks.files import as_list, choice, own_reward
from preflight.checks.names import verl_folder
from preflight.facts import is_rl
from preflight.models import file_of, trained

JSON = (".json", ".jsonl")
TEMPLATES = ("chat_template.jinja", "chat_template.json")


def data_files(config: DictConfig) -> list[str]:
    """Those that are there; another check misses the others."""
    files = [*as_list(config.data.train_files), *as_list(config.data.val_files)]
    return [file for file in files if Path(file).is_file()]


def columns_of(file: str) -> list[str] | None:
    """Names of a parquet file's columns; None if it is none."""
    import pyarrow.parquet as pq

    try:
        return pq.read_schema(file).names
    except (OSError, ValueError):
        return None


def check_columns(config: DictConfig) -> str | None:
    """What verl reads of a row; the trainers on pairs and chains have a check of their own."""
    if not is_rl(config) and config.lab.trainer.entry != "verl.trainer.sft_trainer":
        return None
    key = "data.prompt_key" if is_rl(config) else "data.messages_key"
    wanted = [OmegaConf.select(config, key)]
    if verls_own(config):
        wanted += ["data_source", "reward_model"]
    elif (found := own_reward(config)) and hasattr(found[0], "row_faults"):
        wanted += ["reward_model"]
    for file in data_files(config):
        there, place = columns_of(file), os.path.relpath(file)
        if there is None and is_rl(config) and place.endswith(JSON):
            continue  # which verl's RL reads as well
        if there is None:
            return f"{place} is no parquet file: `python -m data_prep convert {place}` makes one of JSON or CSV."
        for name in wanted:
            if name not in there:
                which = f" ({key})" if name == wanted[0] else ", which the reward needs"
                return f"{place} has no column {name}{which}. It has {', '.join(there)}; `make data` writes them all."
    return None


def verls_own(config: DictConfig) -> bool:
    """Whether verl scores answers by functions of its own."""
    if not is_rl(config) or config.reward.custom_reward_function.path:
        return False
    return not config.reward.reward_model.enable


def verls_sources() -> tuple[set[str], tuple[str, ...]]:
    """Names of data for which verl has a reward of its own, and beginnings of such names."""
    source = (verl_folder() / "utils/reward_score/__init__.py").read_text()
    functions = (n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef))
    names, beginnings = set(), set()
    for node in ast.walk(next(f for f in functions if f.name == "default_compute_score")):
        into = beginnings if isinstance(node, ast.Call) else names
        named = isinstance(node, ast.Call) and ast.unparse(node.func) == "data_source.startswith"
        named |= isinstance(node, ast.Compare) and ast.unparse(node.left) == "data_source"
        if named:
            into |= {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)}
    return names, tuple(beginnings)


def check_data_source(config: DictConfig) -> str | None:
    """Without a reward of ours verl picks its own by the row's data_source, at the first answer."""
    if not verls_own(config):
        return None
    import pyarrow.parquet as pq

    names, beginnings = verls_sources()
    for file in data_files(config):
        if "data_source" not in (columns_of(file) or ()):
            continue
        for source in pq.read_table(file, columns=["data_source"])[0].unique().to_pylist():
            if source not in names and not str(source).startswith(beginnings):
                return (f"reward={choice('reward') or 'none'}: verl has no reward for data_source={source!r} of"
                        f" {os.path.relpath(file)}: choose one (reward=exact), or name your own.")  # fmt: skip
    return None


def check_chat_template(config: DictConfig) -> str | None:
    """Prompts are rendered by the model's template; a base model may have none."""
    key = "actor_rollout_ref.model" if is_rl(config) else "model"
    model = OmegaConf.select(config, key)
    path = model.tokenizer_path or trained(config)
    settings = file_of(path, "tokenizer_config.json")
    if model.custom_chat_template or settings is None:
        return None
    if "chat_template" in json.loads(settings.read_text()) or any(
        file_of(path, t) for t in TEMPLATES
    ):
        return None
    return (f"{path} has no chat template ({', '.join(TEMPLATES)}, or one in tokenizer_config.json): take its Instruct"
            f" version, or set {key}.custom_chat_template.")  # fmt: skip
