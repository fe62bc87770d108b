"""Checkpoints in the format of verl's FSDP2 trainer, made without a run of it."""

import json
import shutil
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor._dtensor_spec import DTensorSpec, TensorMeta


def sharded(tensor: torch.Tensor, rank: int, world: int) -> DTensor:
    """The part of a tensor that FSDP2 leaves on a rank (the last ones may be smaller, or empty)."""
    names = {"mesh_dim_names": ("fsdp",), "_init_backend": False, "_rank": rank}
    mesh = DeviceMesh("cpu", list(range(world)), **names)
    parts = list(torch.chunk(tensor, world))
    parts += [tensor[:0]] * (world - len(parts))
    meta = TensorMeta(tensor.shape, tensor.stride(), tensor.dtype)
    return DTensor(parts[rank].clone(), DTensorSpec(mesh, (Shard(0),), meta), requires_grad=False)


def save_shards(folder: Path, state: dict[str, torch.Tensor], world: int = 1) -> None:
    """model_world_size_N_rank_I.pt of each rank, and fsdp_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for rank in range(world):
        known = {t.data_ptr(): sharded(t.detach(), rank, world) for t in state.values()}
        parts = {name: known[t.data_ptr()] for name, t in state.items()}  # tied ones are one
        torch.save(parts, folder / f"model_world_size_{world}_rank_{rank}.pt")
    (folder / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": world}))


def save_step(step: Path, parts: tuple[str, ...] = (".", "actor"), world: int = 1) -> Path:
    """global_step_N with all the files that a trainer of FSDP goes on from, small; of SFT and of RL."""
    for part in parts:
        (step / part).mkdir(parents=True, exist_ok=True)
        for rank in range(world):
            for kind in ("model", "optim", "extra_state"):
                torch.save({"x": 1}, step / part / f"{kind}_world_size_{world}_rank_{rank}.pt")
    for data in ("data.pt", "data_0.pt"):
        torch.save({}, step / data)
    return step


def save_run(
    run: Path, model, base: Path, world: int = 1, step: int = 3, weights: bool = False, **config
) -> Path:
    """A run with one checkpoint of a model of transformers or PEFT; returns the checkpoint's folder.

    Args:
        base: a folder of Hugging Face whose tokenizer it has, and which it began with.
        weights: whether the huggingface folder has weights, too (LoRA merged in).
        config: more of the run's config.
    """
    shards = run / f"checkpoints/global_step_{step}/actor"
    save_shards(shards, model.state_dict(), world)
    (run / "checkpoints/latest_checkpointed_iteration.txt").write_text(str(step))
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    folder = shards / "huggingface"
    plain.config.architectures = [
        type(plain).__name__
    ]  # as plugins/patches/verl.py names a value model
    plain.config.save_pretrained(folder)
    for file in base.iterdir():
        if file.name.startswith(("tokenizer", "chat_template", "generation_config")):
            shutil.copy(file, folder)
    made = {"lab": {"name": "made"}, "actor_rollout_ref": {"model": {"path": str(base)}}}
    if hasattr(model, "peft_config"):
        lora = model.peft_config["default"]
        meta = {"r": lora.r, "lora_alpha": lora.lora_alpha, "task_type": "CAUSAL_LM"}
        (shards / "lora_train_meta.json").write_text(json.dumps(meta))
        model = model.merge_and_unload()
    if weights:
        model.save_pretrained(folder)
    OmegaConf.save(OmegaConf.merge(made, config), run / "resolved.yaml")
    return shards.parent
