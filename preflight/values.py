"""What is wrong with single values: another type than declared, a word that verl doesn't know, a number out of range.

verl refuses them when it builds its dataclasses, or at the first use, after minutes; or takes the word "no" for true.
"""

import math
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from preflight.declared import Place, kind_of, of_conf, of_verl, places
from preflight.facts import given, is_rl
from preflight.mistakes import MAX_LINES, nearest, unknown

SAME = re.compile(
    r"\$\{(?:oc\.select: *)?(?P<dots>\.*)(?P<key>[\w.]+)(?:,[^{}]*)?\}"
)  # one that stands for another
LARGEST = 2**63 - 1
KINDS = {
    "bool": "true or false", "int": "a whole number", "float": "a number", "str": "text", "list": "a list: [a,b]",
    "dict": "a group of settings", "null": "null",
}  # fmt: skip
# Not looked into: options of a reward (rewards/_options.py knows their types), words that become text anyway.
LEFT = ("lab.reward", "lab.env", "reward.custom_reward_function.reward_kwargs", "ray_kwargs.ray_init.runtime_env",
        "lab.model.chat_template_kwargs", "data.apply_chat_template_kwargs", "hydra")  # fmt: skip
# Of keys that nobody declares a type for (verl's default is null, ours is another key), by the end of their names.
NAMED_FREELY = ("lab.dataset.", "lab.model.")  # a file of one's own may need words of its own there
BY_NAME = {
    "batch_size": "int", "batch_size_per_gpu": "int", "seed": "int", "num_cpus": "float", "num_gpus": "float",
    "ray_gpus": "int", "timeout_s": "float", "path": "str", "_dir": "str", "name": "str", "_dtype": "str",
    "data.tokenizer": "str", "attn_implementation": "str", "reward_kwargs": "dict", "external_lib": "str",
    "chat_template": "str", "ray_init.address": "str",
}  # fmt: skip
MAY_BE_NULL = ("memory_mib", "train_files", "val_files", "ray_init.address", "ray_init.num_gpus",
               "chat_template")  # fmt: skip
OFF_AS_NULL = "lab.alerts."  # limits: each can be off
MAY_BE_ONE = ("train_files", "val_files", "logger", "lab.loggers", "preflight.skip", "save_contents", "load_contents",
              "target_modules", "exclude_modules", "ignore_patterns")  # one word for a list of one  # fmt: skip

_KL = ("kl", "k1", "abs", "mse", "k2", "low_var_kl", "k3")
KINDS_OF_KL = (*_KL, *(f"{kind}+" for kind in _KL))
LOSSES = ("token-mean", "token-sum",
          "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm")  # fmt: skip
STRATEGIES, SCHEDULES = ("fsdp2", "fsdp"), ("constant", "cosine")
LOGGERS = ("console", "file", "wandb", "mlflow", "swanlab", "vemlp_wandb", "tensorboard", "clearml", "trackio",
           "rl_insight")  # fmt: skip
CONTENTS = ("model", "optimizer", "extra", "hf_model")
DTYPES = ("fp32", "bf16", "fp16", "float32", "bfloat16", "float16")
ATTENTION = ("sdpa", "eager", "flash_attention_2", "flash_attention_3", "flex_attention")
CHOICES = {  # by the end of the key's name
    "strategy": STRATEGIES, "loss_agg_mode": LOSSES, "kl_loss_type": KINDS_OF_KL, "algorithm.kl_penalty": KINDS_OF_KL,
    "kl_ctrl.type": ("fixed", "adaptive"), "lr_scheduler_type": SCHEDULES, "warmup_style": SCHEDULES,
    "save_contents": CONTENTS, "load_contents": CONTENTS,
    "rollout.name": ("vllm", "sglang", "trtllm"), "rollout.mode": ("async",),
    "rollout.dtype": ("auto", "half", "float16", "bfloat16", "float", "float32"),
    "rollout_dtype": ("auto", "half", "float16", "bfloat16", "float", "float32"),
    "model_dtype": DTYPES, "param_dtype": DTYPES, "reduce_dtype": DTYPES, "weights_dtype": DTYPES,
    "compute_dtype": DTYPES,
    "attention": ATTENTION, "attn_implementation": ATTENTION,
    "fused_kernel_options.impl_backend": ("torch", "triton", "liger"),
    "data.pad_mode": ("no_padding",), "trainer.resume_mode": ("auto", "disable", "resume_path"),
    "trainer.logger": LOGGERS, "lab.loggers": LOGGERS,
    "trainer.v1.trainer_mode": ("sync", "colocate_async", "separate_async"),
    "max_off_policy_strategy": ("drop", "wait"), "reward_manager.source": ("register", "importlib"),
    "lab.step_rewards": ("auto", True, False), "lab.plan": ("check", "auto", "off", False),
    "lab.hw.device": ("cuda", "cpu", "npu"),
}  # fmt: skip

SHARE = ("above 0 and at most 1", lambda x: 0 < x <= 1)
FROM_0_TO_1 = ("from 0 to 1", lambda x: 0 <= x <= 1)
ABOVE_0, FROM_0 = ("above 0", lambda x: x > 0), ("0 or more", lambda x: x >= 0)
FROM_1 = ("1 or more", lambda x: x >= 1)
LEARNING_RATE = ("from 0 to 1 (1e-6 is a usual one)", lambda x: 0 <= x <= 1)
TEMPERATURE = ("from 0 to 2", lambda x: 0 <= x <= 2)
ALL_OR_MORE = ("-1 (all) or more", lambda x: x >= -1)
# By the end of the key's name; the longest that fits counts. Without one: what is never negative in any default must
# not be negative.
RANGES = {
    "train_batch_size": FROM_1, "mini_batch_size": FROM_1, "micro_batch_size_per_gpu": FROM_1,
    "gen_batch_size": FROM_1, "max_prompt_length": FROM_1, "max_response_length": FROM_1, "data.max_length": FROM_1,
    "token_len_per_gpu": FROM_1, "ppo_epochs": FROM_1, "total_epochs": FROM_1, "lab.epochs": FROM_1,
    "lab.mini_batches": FROM_1, "rollout.n": FROM_1, "val_kwargs.n": FROM_1, "max_num_seqs": FROM_1,
    "max_num_batched_tokens": FROM_1, "max_model_len": FROM_1, "parallel_size": FROM_1, "num_workers": FROM_1,
    "reward_model.gpus": FROM_0,
    "agent_workers": FROM_1, "reward_workers": FROM_1, "queue_units": FROM_1, "num_data_storage_units": FROM_1,
    "dataloader_num_workers": FROM_0, "data.num_workers": FROM_0, "lab.hw.nodes": FROM_1, "hw.gpus_per_node": FROM_1,
    "trainer.nnodes": FROM_1, "trainer.n_gpus_per_node": FROM_1, "total_training_steps": FROM_1,
    "tensor_parallel": FROM_1, "tokens_per_gpu": FROM_1, "samples_per_step": FROM_1, "sft_batch_size": FROM_1,
    "entropy_chunk": FROM_1, "entropy_from_logits_chunk_size": FROM_1, "max_inflight_gen_batches": FROM_1,
    "max_off_policy_threshold": FROM_1, "pad_to_length_bucket": FROM_1, "stall_timeout_s": ABOVE_0,
    "memory_gib": ABOVE_0, "bf16_tflops": ABOVE_0, "memory_gb_s": ABOVE_0, "kv_cache_memory_bytes": FROM_1,
    "timeout_s": ABOVE_0, "memory_mib": ABOVE_0, "processes": FROM_1,
    "gpu_memory_utilization": SHARE, "rollout_memory": SHARE, "top_p": SHARE, "temperature": TEMPERATURE,
    "top_k": ALL_OR_MORE, "lr": LEARNING_RATE, "rl_lr": LEARNING_RATE, "rl_lr_lora": LEARNING_RATE,
    "sft_lr": LEARNING_RATE, "sft_lr_lora": LEARNING_RATE, "critic_lr": LEARNING_RATE, "clip_grad": ABOVE_0,
    "weight_decay": FROM_0, "min_lr_ratio": FROM_0_TO_1, "lr_warmup_steps_ratio": FROM_0_TO_1, "num_cycles": ABOVE_0,
    "lora_alpha": ABOVE_0, "clip_ratio": ABOVE_0, "clip_ratio_low": ("above 0, below 1", lambda x: 0 < x < 1),
    "clip_ratio_high": ABOVE_0, "clip_ratio_c": ("above 1", lambda x: x > 1), "cliprange_value": ABOVE_0,
    "clip_cov_ratio": ABOVE_0, "kl_cov_ratio": ABOVE_0, "dro_beta": ABOVE_0, "loss_scale_factor": ABOVE_0,
    "tau_pos": ABOVE_0, "tau_neg": ABOVE_0, "gamma": FROM_0_TO_1, "lam": FROM_0_TO_1, "horizon": ABOVE_0,
    "switch_threshold_ratio": SHARE, "repetition_penalty": ABOVE_0,
    "port": ("from 0 to 65535", lambda x: 0 <= x <= 65535),
    "turns": FROM_1, "val_max_samples": ALL_OR_MORE, "train_max_samples": ALL_OR_MORE,
    "betas": ("from 0 to below 1, each", lambda x: 0 <= x < 1), "show_samples": FROM_0,
}  # fmt: skip


def number(value) -> bool:
    """Whether a value is a number; true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def fitting(table: Collection[str], path: str) -> str | None:
    """The longest entry of a table that a key's name ends with, from a point or a low line on; None: no such entry."""
    starts = {0} | {
        at for found in re.finditer(r"[._]", path) for at in (found.start(), found.end())
    }
    return next((path[at:] for at in sorted(starts) if path[at:] in table), None)


def looked_up(table: dict, path: str) -> Any:
    """What a table says of a key by the end of its name; None if it says nothing."""
    end = fitting(table, path)
    return None if end is None else table[end]


def listed(lines: Iterable[str]) -> str | None:
    """All of one kind together: three lines, and what more there is in the last; None if there are none."""
    lines = list(dict.fromkeys(lines))
    if len(lines) > MAX_LINES:
        keys = [line.partition("=")[0].partition(" ")[0] for line in lines[MAX_LINES - 1 :]]
        lines[MAX_LINES - 1 :] = [f"{lines[MAX_LINES - 1]} The same kind: {', '.join(keys[1:])}."]
    return "\n".join(lines) or None


class Value(NamedTuple):
    """A key of a config: its place, its value, whether that is calculated from other keys, and why it can't be."""

    place: Place
    value: Any
    is_calculated: bool = False
    fault: str | None = None

    @property
    def name(self) -> str:
        """The key to set: of one that only stands for another key's, that other one."""
        path = self.place.path
        raw = SAME.fullmatch(str(self.place.node._value())) if self.is_calculated else None
        if raw is None:
            return path
        above = path.split(".")[: -len(raw["dots"])] if raw["dots"] else []
        return ".".join([*above, raw["key"]])

    @property
    def each(self) -> list:
        """Its value, or those of a list."""
        return list(self.value) if isinstance(self.value, ListConfig) else [self.value]


def all_values(config: DictConfig) -> list[Value]:
    """Of all keys that verl's trainer gets, and of ours."""
    leave = (*LEFT, *(config.lab.trainer.unused or ()))
    return [value_at(place) for place in places(config, is_rl(config), leave)]


def value_at(place: Place) -> Value:
    """A key's value; a group of settings and a list are their nodes."""
    node = place.node
    if not node._is_interpolation():
        if node._is_none() or node._is_missing():
            return Value(place, None)
        return Value(place, node if OmegaConf.is_config(node) else node._value())
    try:
        return Value(place, node._get_parent()[place.path.rpartition(".")[2]], is_calculated=True)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0].rpartition("raised while resolving interpolation: ")[2]
        keys = ", ".join(re.findall(r"\$\{([a-z][\w.]+)\}", node._value())) or place.path
        return Value(place, None, True, f"{keys}: {reason}")


def written(value: Any) -> str:
    """A value as a command line writes it."""
    return (
        {None: "null", True: "true", False: "false"}[value]
        if isinstance(value, bool | None)
        else str(value)
    )


def shown(value: Any) -> str:
    """The same, shortened."""
    text = written(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def expected(place: Place) -> frozenset[str]:
    """The kinds of value that a key takes; empty: any."""
    kinds = place.declared.kinds
    if not kinds - {"null"}:
        by_name = looked_up(BY_NAME, place.path)
        if by_name is None:
            return frozenset()
        kinds |= {by_name, "null"} if place.node._is_interpolation() else {by_name}
    if place.path.endswith("_s") and "int" in kinds:
        kinds |= {"float"}  # seconds
    if fitting(MAY_BE_ONE, place.path):
        kinds |= {"str", "list"}
    if fitting(MAY_BE_NULL, place.path) or place.path.startswith(OFF_AS_NULL):
        kinds |= {"null"}
    return kinds


def misfit(one: Value) -> str | None:
    """What is wrong with a value's type."""
    place, value, name = one.place, one.value, one.name
    kinds, kind = expected(place), kind_of(value)
    if any(value is known or (kind not in ("list", "dict") and value == known and kind == kind_of(known))
           for known in place.declared.values):  # fmt: skip
        return None
    if kind in ("int", "float") and not (math.isfinite(value) and abs(value) <= LARGEST):
        return f"{name}={shown(value)} is no number to calculate with: it is too large."
    if (
        kind == "list"
        and fitting(MAY_BE_ONE, place.path)
        and any(not isinstance(word, str) for word in value)
    ):
        return f"{name}={shown(value)} must be a list of words."
    lists = [known for known in place.declared.values if kind_of(known) == "list" and len(known)]
    of_numbers = kind == "list" and lists and all(number(one) for known in lists for one in known)
    if of_numbers and not all(number(one) for one in value):
        return f"{name}={shown(value)} must be a list of numbers."
    if not kinds or kind in kinds or (kind == "int" and "float" in kinds):
        return None
    if kind in ("int", "float") and "str" in kinds:
        return None  # `numbers_as_text` writes it so
    kinds = kinds - {"int"} if "float" in kinds else kinds
    words = " or ".join(text for word, text in KINDS.items() if word in kinds and word != "null")
    words += ", or null" if "null" in kinds else ""
    hint = ""
    if kind == "float" and value == int(value):
        hint = f" Write {int(value)}."
    elif kind == "str" and "null" in kinds and value in ("None", "none", "Null"):
        hint = " Write null."
    elif kind == "str" and "bool" in kinds:
        hint = f" {value!r} is a word here, and a word counts as true."
    if kinds <= {"dict", "null"} and "dict" in kinds:
        return f"{name}={shown(value)}: this is a group of settings; set one of them, as {name}.NAME=VALUE."
    if kind == "dict":
        return f"{name} must be {words}, and not a group of settings."
    return f"{name}={shown(value)} must be {words}.{hint}"


def strangers(found: list[Value]) -> Iterator[str]:
    """Keys that the dataclass or the function that gets them doesn't have."""
    for place, *_ in found:
        parent, _, key = place.path.rpartition(".")
        if place.siblings and not place.is_known:
            yield f"unknown key {place.path!r}: {parent} has no {key}.{nearest(key, place.siblings)}"


def ours(found: list[Value]) -> Iterator[str]:
    """Keys of lab.* that a command line adds and nobody reads."""
    for place, *_ in found:
        parent, _, key = place.path.rpartition(".")
        is_ours = place.path.startswith("lab.") and not place.path.startswith(NAMED_FREELY)
        if (
            is_ours
            and given(place.path)
            and not (place.declared.kinds or place.siblings or looked_up(BY_NAME, place.path))
        ):
            beside = [
                name.rpartition(".")[2] for name in of_conf() if name.rpartition(".")[0] == parent
            ]
            if beside:
                yield f"unknown key {place.path!r}.{nearest(key, beside)}"


def lacking(config: DictConfig, there: set[str]) -> Iterator[str]:
    """Groups of settings that were replaced as a whole, or that lost a key: what reads them would not find it."""
    gone: dict[str, list[str]] = {}
    for path in of_verl(is_rl(config)):
        parent, _, key = path.rpartition(".")
        if parent in there and path not in there and key != "_target_":
            node = OmegaConf.select(config, parent)
            if OmegaConf.is_dict(node) and key not in node:
                gone.setdefault(parent, []).append(key)
    for parent, keys in gone.items():
        some = ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
        yield f"{parent} has lost {some}: set its keys one by one, as {parent}.{keys[0]}=VALUE."


def wrong_types(config: DictConfig, found: list[Value]) -> list[str]:
    """Values of another type than declared, and keys that nobody has.

    A value that is calculated from other keys is looked at only where those that are written down are right.
    """
    lines = [*strangers(found), *ours(found), *lacking(config, {one.place.path for one in found})]
    lines += filter(None, (misfit(one) for one in found if not one.is_calculated))
    if not lines:
        calculated = [one for one in found if one.is_calculated]
        lines = list(filter(None, (one.fault or misfit(one) for one in calculated)))
    return lines


def numbers_as_text(config: DictConfig, found: list[Value]) -> None:
    """Where text is meant, a number becomes it: `lab.name=7` is a name. The config is changed."""
    for place, value, is_calculated, _ in found:
        kinds = expected(place)
        if "str" in kinds and not kinds & {"int", "float"} and number(value) and not is_calculated:
            OmegaConf.update(config, place.path, str(value))


def bad_choices(found: list[Value]) -> list[str]:
    """Words that are not in a list of verl's; verl would only ignore some of them."""
    lines = []
    for one in found:
        known = looked_up(CHOICES, one.place.path)
        for word in one.each if known else ():
            is_kernel = known is ATTENTION and (
                "/" in str(word) or "|" in str(word)
            )  # of the hub; paged
            if (
                word is not None
                and word not in known
                and word not in one.place.declared.values
                and not is_kernel
            ):
                lines.append(unknown(one.name, shown(word), known))
    return lines


def out_of_range(found: list[Value]) -> list[str]:
    """Numbers outside of what they can mean."""
    lines = []
    for one in found:
        numbers = [value for value in one.each if number(value)]
        declared = [value for value in one.place.declared.values if number(value)]
        limit = looked_up(RANGES, one.place.path) if numbers else None
        if numbers and limit is None and declared and min(declared) >= 0:
            limit = FROM_0
        for value in numbers if limit else ():
            if value not in declared and not limit[1](value):
                lines.append(f"{one.name}={shown(one.value)} must be {limit[0]}.")
    return lines


def faults(config: DictConfig) -> list[str]:
    """What is wrong with single values: types and unknown keys; if nothing is, words and ranges.

    Where text is meant, a number is written as text: the config is changed.
    """
    for key in ("lab", "lab.trainer"):
        if not OmegaConf.is_dict(OmegaConf.select(config, key)):
            return [f"{key} is a group of settings; set one of them, as {key}.NAME=VALUE."]
    if given("lab.trainer") or not {"kind", "unused"} <= set(config.lab.trainer):
        return ["lab.trainer.* says what a trainer is, and is no setting: choose algo=."]
    found = all_values(config)
    if types := wrong_types(config, found):
        return types
    numbers_as_text(config, found)
    return bad_choices(found) + out_of_range(found)
