"""The trainers of our own on pairs and labelled steps: their options and their rows."""

import os
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from preflight.checks.files import as_list, choice
from preflight.checks.knobs import given
from preflight.mistakes import unknown
from preflight.models import facts_of, trained

UNREAD = ("truncation", "custom_cls", "messages_key", "tools_key", "enable_thinking_key",
          "enable_thinking_default", "ignore_input_ids_mismatch", "pad_mode")  # fmt: skip
LOSSES, REFERENCES = ("sigmoid", "ipo"), ("engine", "adapter")


def is_number(value, low: float, high: float = float("inf")) -> bool:
    """Whether a value is a number from `low` to below `high`."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value < high


def check_dpo(config: DictConfig) -> str | None:
    """Options of algo=dpo."""
    dpo = OmegaConf.select(config, "dpo")
    if config.lab.trainer.entry != "algos.dpo" or dpo is None:
        return None
    if dpo.loss not in LOSSES:
        return unknown("dpo.loss", dpo.loss, LOSSES)
    if dpo.reference not in REFERENCES:
        return unknown("dpo.reference", dpo.reference, REFERENCES)
    if not is_number(dpo.beta, 0) or not dpo.beta:
        return f"dpo.beta={dpo.beta} is not a number above 0."
    if not is_number(dpo.label_smoothing, 0, 0.5):
        return f"dpo.label_smoothing={dpo.label_smoothing} is not a number from 0 to below 0.5."
    if dpo.label_smoothing and dpo.loss != "sigmoid":
        return f"dpo.label_smoothing does nothing with dpo.loss={dpo.loss}: it belongs to sigmoid."
    if dpo.reference == "adapter" and not config.model.lora_rank:
        return "dpo.reference=adapter is the model without its LoRA: set lab.lora_rank=32, or dpo.reference=engine."
    if dpo.reference == "adapter" and config.model.lora_adapter_path:
        return "dpo.reference=adapter would leave out model.lora_adapter_path, where this run starts: set engine."
    if config.engine.ulysses_sequence_parallel_size > 1:
        return "engine.ulysses_sequence_parallel_size: algo=dpo doesn't split sequences; set 1."
    return None


def check_rm(config: DictConfig) -> str | None:
    """Options of algo=rm."""
    center = OmegaConf.select(config, "rm.center")
    if config.lab.trainer.entry == "algos.rm" and not is_number(center, 0):
        return f"rm.center={center} is not a number from 0 on."
    return None


def check_unread_data_keys(config: DictConfig) -> str | None:
    """Keys of verl's SFT dataset, which these trainers replace."""
    for key in UNREAD if config.lab.trainer.rows else ():
        if given(f"data.{key}"):
            return (f"data.{key}: {config.lab.trainer.entry} doesn't read it (rows too long for data.max_length are"
                    " left out).")  # fmt: skip
    return None


def check_kind_of_rows(config: DictConfig) -> str | None:
    """The columns that the trainer reads; a dataset may have no such rows."""
    kind, columns = config.lab.trainer.rows, list(config.lab.trainer.columns)
    if kind is None:
        return None
    import pyarrow.parquet as pq

    if config.data.train_files is None:
        return (f"dataset={choice('dataset')} has no rows for {config.lab.trainer.entry}:"
                f" lab.dataset.{kind}_train=FILE (and {kind}_val), parquet with {', '.join(columns)}."
                " dataset=sql_demo has some.")  # fmt: skip
    for file in [*as_list(config.data.train_files), *as_list(config.data.val_files)]:
        if not Path(file).is_file():
            continue  # another check says so
        place = os.path.relpath(file)
        try:
            missing = set(columns) - set(pq.read_schema(file).names)
        except ValueError:  # ArrowInvalid
            return f"{place} is no parquet file: `python -m data_prep convert {place}` makes one of JSON or CSV."
        if missing:
            return f"{place} has no column {', '.join(sorted(missing))}: rows are {', '.join(columns)}."
    return None


def check_items_fit(config: DictConfig) -> str | None:
    """A pair is never split, so both of its answers must fit into one pass."""
    if config.lab.trainer.rows is None or not config.data.use_dynamic_bsz:
        return None
    need = config.lab.trainer.sequences * config.data.max_length
    if config.data.max_token_len_per_gpu < need:
        have = config.data.max_token_len_per_gpu
        return f"lab.hw.tokens_per_gpu={have} is less than one row may need ({need} tokens; a pair isn't split)."
    return None


def check_start(config: DictConfig) -> str | None:
    """A policy can't start from a reward model: it has no words to say."""
    if config.lab.trainer.head != "lm":
        return None
    name = ((facts_of(trained(config)) or {}).get("architectures") or [""])[0]
    if name.endswith("Classification"):
        return f"{trained(config)} is a reward model ({name}); lab.model.path must be a language model."
    return None
