"""The LoRA adapter alone, in PEFT's format: adapter_config.json and adapter_model.safetensors.

A model that scores has a head that its base has not (`score`). It goes along as PEFT's `modules_to_save`, with
what LoRA changed in it merged in, in the dtype of the checkpoint: it is small.
"""

from pathlib import Path

import torch
from peft import LoraConfig

from preflight.mistakes import Mistake
from tools._export.source import WRAPPED, Merged, Source
from tools._export.tensors import Info, write_file

FILE = "adapter_model.safetensors"
TASKS = {
    "ForCausalLM": "CAUSAL_LM",
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
}


def write_adapter(source: Source, folder: Path, dtype: torch.dtype) -> None:
    """Write it. Raises Mistake if the run has trained none, or its shards are not there."""
    if not source.lora:
        why = "all weights were trained (lab.lora_rank=0)" if source.shards else source.notes[0]
        raise Mistake(f"{source.said} has no adapter: {why}. Leave out --adapter")
    head = heads(source)
    inside = [m for m in source.lora.modules if m.partition(".")[0] not in head]
    tensors = {}
    for module in inside:
        for x in "AB":
            value = source.shards.get(f"{WRAPPED}{module}.lora_{x}.default.weight")
            tensors[f"{WRAPPED}{module}.lora_{x}.weight"] = value.to(dtype)
    if head:
        for name, value in Merged(source, source.dtype):
            if name.partition(".")[0] in head:
                tensors[f"{WRAPPED}{name}"] = value
    layout = {name: Info(tuple(value.shape), value.dtype) for name, value in tensors.items()}
    write_file(folder / FILE, layout, iter(tensors.items()))
    task = next((task for end, task in TASKS.items() if source.architecture.endswith(end)), None)
    LoraConfig(
        r=source.lora.r,
        lora_alpha=source.lora.alpha,
        target_modules=targets(source, inside),
        modules_to_save=head or None,
        task_type=task,
        base_model_name_or_path=source.base,
        inference_mode=True,
    ).save_pretrained(str(folder))


def heads(source: Source) -> list[str]:
    """The modules that a model which scores has beyond its base."""
    if source.generates:
        return []
    prefix = source.skeleton.base_model_prefix
    return sorted({name.partition(".")[0] for name in source.skeleton.state_dict()} - {prefix})


def targets(source: Source, modules: list[str]) -> list[str]:
    """The shortest names that mean these modules and no others."""
    short = {module.rpartition(".")[2] for module in modules}
    meant = {
        name for name, _ in source.skeleton.named_modules() if name.rpartition(".")[2] in short
    }
    return sorted(short if meant == set(modules) else modules)
