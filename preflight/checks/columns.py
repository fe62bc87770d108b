"""Columns of the data that a trainer or a reward reads, and the chat template that renders them."""

import ast
import json

from omegaconf import DictConfig, OmegaConf

from preflight.checks import applies_to
from preflight.facts import (
    choice,
    columns_of,
    data_files,
    has_own_rows,
    is_rl,
    model_key,
    verl_folder,
)
from preflight.mistakes import near
from preflight.models import file_of, trained
from preflight.reward_function import is_verls, own_reward

JSON = (".json", ".jsonl")
TEMPLATES = ("chat_template.jinja", "chat_template.json")


NOT_PARQUET = (
    "{0} is not a parquet file: `python -m data_prep convert {0}` makes one of JSON or CSV."
)


def wanted_columns(config: DictConfig) -> list[str]:
    """Columns that the trainer and the reward read."""
    wanted = list(config.lab.trainer.columns)
    if is_verls(config):
        wanted += ["data_source", "reward_model"]
    elif (found := own_reward(config)) and hasattr(found[0], "row_faults"):
        wanted += ["reward_model"]
    return wanted


def check_columns(config: DictConfig) -> str | None:
    """What verl reads of a row; the trainers on pairs and chains have a check of their own."""
    if has_own_rows(config):
        return None
    key = "data.prompt_key" if is_rl(config) else "data.messages_key"
    wanted = wanted_columns(config)
    for file in data_files(config):
        there, place = columns_of(file), near(file)
        if there is None and is_rl(config) and place.endswith(JSON):
            continue  # which verl's RL reads as well
        if there is None:
            return NOT_PARQUET.format(place)
        for name in wanted:
            if name not in there:
                which = f" ({key})" if name == wanted[0] else ", which the reward needs"
                return f"{place} has no column {name}{which}. It has {', '.join(there)}; `make data` writes them all."
    return None


@applies_to(has_own_rows)
def check_kind_of_rows(config: DictConfig) -> str | None:
    """The columns that a trainer of this project reads; a dataset may have no such rows."""
    trainer, columns = config.lab.trainer, ", ".join(config.lab.trainer.columns)
    if config.data.train_files is None:
        return (f"dataset={choice('dataset')} has no rows for {trainer.entry}: set"
                f" lab.dataset.{trainer.rows}_train=FILE (and {trainer.rows}_val), parquet with {columns}."
                " dataset=sql_demo has some.")  # fmt: skip
    for file in data_files(config):
        there, place = columns_of(file), near(file)
        if there is None:
            return NOT_PARQUET.format(place)
        if missing := sorted(set(trainer.columns) - set(there)):
            return f"{place} has no column {', '.join(missing)}: rows need {columns}."
    return None


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
    if not is_verls(config):
        return None
    import pyarrow.parquet as pq

    names, beginnings = verls_sources()
    for file in data_files(config):
        if "data_source" not in (columns_of(file) or ()):
            continue
        for source in pq.read_table(file, columns=["data_source"])[0].unique().to_pylist():
            if source not in names and not str(source).startswith(beginnings):
                return (f"reward={choice('reward') or 'none'}: verl has no reward for data_source={source!r} of"
                        f" {near(file)}: choose one (reward=exact), or name your own.")  # fmt: skip
    return None


def check_chat_template(config: DictConfig) -> str | None:
    """Prompts are rendered by the model's template; a base model may have none."""
    key = model_key(config)
    model = OmegaConf.select(config, key)
    path = model.tokenizer_path or trained(config)
    settings = file_of(path, "tokenizer_config.json")
    if given := model.custom_chat_template:
        if "messages" not in given:
            return f"{key}.custom_chat_template is a template's text, and no file: set lab.model.chat_template=FILE."
        return None
    if settings is None:
        return None
    if "chat_template" in json.loads(settings.read_text()) or any(
        file_of(path, t) for t in TEMPLATES
    ):
        return None
    return (f"{path} has no chat template ({', '.join(TEMPLATES)}, or one in tokenizer_config.json): take its Instruct"
            f" version, or set lab.model.chat_template=FILE (or chatml, llama, default).")  # fmt: skip
