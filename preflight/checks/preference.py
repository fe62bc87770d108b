"""The trainers of our own on pairs and labelled steps: their options, and what their rows need."""

from omegaconf import DictConfig

from preflight.checks import applies_to
from preflight.facts import given, has_options, has_own_rows
from preflight.mistakes import unknown
from preflight.models import facts_of, trained
from preflight.values import number

UNREAD = ("truncation", "custom_cls", "messages_key", "tools_key", "enable_thinking_key",
          "enable_thinking_default", "ignore_input_ids_mismatch", "pad_mode")  # fmt: skip
LOSSES, REFERENCES = ("sigmoid", "ipo"), ("engine", "adapter")


@applies_to(has_options("dpo"))
def check_dpo(config: DictConfig) -> str | None:
    """Options of algo=dpo."""
    dpo = config.dpo
    if dpo.loss not in LOSSES:
        return unknown("dpo.loss", dpo.loss, LOSSES)
    if dpo.reference not in REFERENCES:
        return unknown("dpo.reference", dpo.reference, REFERENCES)
    if not number(dpo.beta) or dpo.beta <= 0:
        return f"dpo.beta={dpo.beta} is not a number above 0."
    if not number(dpo.label_smoothing) or not 0 <= dpo.label_smoothing < 0.5:
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


@applies_to(has_options("rm"))
def check_rm(config: DictConfig) -> str | None:
    """Options of algo=rm."""
    if not number(config.rm.center) or config.rm.center < 0:
        return f"rm.center={config.rm.center} is not a number, 0 or more."
    return None


@applies_to(has_own_rows)
def check_unread_data_keys(config: DictConfig) -> str | None:
    """Keys of verl's SFT dataset, which these trainers replace."""
    for key in UNREAD:
        if given(f"data.{key}"):
            return (f"data.{key}: {config.lab.trainer.entry} doesn't read it (rows too long for data.max_length are"
                    " left out).")  # fmt: skip
    return None


@applies_to(has_own_rows)
def check_items_fit(config: DictConfig) -> str | None:
    """A pair is never split, so both of its answers must fit into one pass."""
    if not config.data.use_dynamic_bsz:
        return None
    need = config.lab.trainer.sequences * config.data.max_length
    if config.data.max_token_len_per_gpu < need:
        have = config.data.max_token_len_per_gpu
        return f"lab.hw.tokens_per_gpu={have} is less than one row may need ({need} tokens; a pair isn't split)."
    return None


def check_start(config: DictConfig) -> str | None:
    """A policy can't start from a reward model, which gives scores and no tokens."""
    if config.lab.trainer.head != "lm":
        return None
    name = ((facts_of(trained(config)) or {}).get("architectures") or [""])[0]
    if name.endswith("Classification"):
        return f"{trained(config)} is a reward model ({name}); lab.model.path must be a language model."
    return None
