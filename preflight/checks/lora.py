"""LoRA: what of it verl's FSDP engines and vLLM can load."""

import json
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from preflight.checks import applies_to
from preflight.engines import A
from preflight.facts import is_rl, model_key

MOST = 512  # vllm/config/lora.py, MaxLoRARanks; a rank in between is rounded up


def check_lora_rank(config: DictConfig) -> str | None:
    """A rank that vLLM takes, under the key that FSDP reads."""
    key = model_key(config)
    model = OmegaConf.select(config, key)
    if OmegaConf.select(config, f"{key}.lora.rank"):
        return f"{key}.lora.rank is read by Megatron, which is not used here: set lab.lora_rank."
    if is_rl(config) and not model.lora.merge and model.lora_rank > MOST:
        return f"lab.lora_rank={model.lora_rank}: vLLM takes adapters up to a rank of {MOST}."
    return None


def check_adapter(config: DictConfig) -> str | None:
    """An adapter to start from: without a rank verl doesn't load it."""
    key = model_key(config)
    model = OmegaConf.select(config, key)
    if model.lora_adapter_path is None:
        return None
    file = Path(model.lora_adapter_path) / "adapter_config.json"
    if not file.is_file():
        return f"{key}.lora_adapter_path={model.lora_adapter_path} is not an adapter: no {file.name} there."
    rank = json.loads(file.read_text()).get("r")
    if not model.lora_rank:
        return f"{key}.lora_adapter_path is not loaded with lab.lora_rank=0: set lab.lora_rank={rank}, the adapter's."
    if rank != model.lora_rank:
        return f"lab.lora_rank={model.lora_rank}, but {key}.lora_adapter_path has a rank of {rank}: set that rank."
    return None


@applies_to(is_rl)
def check_base_weights(config: DictConfig) -> str | None:
    """vLLM gets the adapter alone: it must have read the base weights itself."""
    model, rollout = config[A].model, config[A].rollout
    adapter = model.lora_rank and not model.lora.merge
    if adapter and "dummy" in rollout.load_format:
        return f"{A}.rollout.load_format=dummy gives vLLM no base weights for an adapter: leave it out (safetensors)."
    if rollout.layered_summon and not adapter:
        return f"{A}.rollout.layered_summon does nothing without an adapter (lab.lora_rank, model.lora.merge=false)."
    return None
