"""The tensors of a checkpoint, one at a time: the trainer's own shards, and files of safetensors.

Both are memory-mapped: a tensor is read when it is asked for, so a model of any size passes through.
"""

import json
import logging
import re
import struct
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch.distributed.tensor import DTensor

from preflight.mistakes import Mistake
from tools._models.naming import told

SHARD = re.compile(r"model_world_size_(\d+)_rank_(\d+)\.pt")
DTYPES = {
    torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FILE_BYTES = 5_000_000_000  # of a file of weights, as the hub has them
MAPPED_BYTES = (
    1 << 29
)  # after so many bytes that were read, files are mapped anew: pages that were read leave the memory


class Info(NamedTuple):
    """What a tensor is, without its values."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    def values(self) -> int:
        """How many values."""
        return torch.Size(self.shape).numel()


class Shards:
    """What verl's FSDP2 trainer saved: model_world_size_N_rank_I.pt, each with a DTensor's part of that rank.

    No process group is needed: the parts are laid side by side. (verl's own merger makes bfloat16 of
    everything on the way.) Raises Mistake if a file is missing or not complete.
    """

    def __init__(self, folder: Path):
        files = {
            (int(m[1]), int(m[2])): f for f in folder.iterdir() if (m := SHARD.fullmatch(f.name))
        }
        if not files:
            raise Mistake(
                f"{folder} has none of the trainer's shards (model_world_size_N_rank_I.pt)"
            )
        world = max(files)[0]
        # else: "It seems like pickling of the DeviceMesh occurred before the PGs were created"
        logging.getLogger("torch.distributed.device_mesh").setLevel(logging.ERROR)
        self.folder, self.files, self.world = folder, files, world
        self.parts = 1
        self.open()
        if sharded := [t for t in self.ranks[0].values() if isinstance(t, DTensor)]:
            # of several replicas of all shards (HSDP) the first is enough
            self.parts = sharded[0].device_mesh.mesh.shape[-1]
            self.open()

    def open(self) -> None:
        """Map the files; tensors that nobody holds any more leave the memory."""
        self.ranks = [load(self.folder, self.files, self.world, i) for i in range(self.parts)]
        self.read = 0

    def names(self) -> dict[str, Info]:
        """Every tensor, as the trainer calls it."""
        return {name: Info(tuple(t.shape), t.dtype) for name, t in self.ranks[0].items()}

    def get(self, name: str) -> torch.Tensor:
        """The whole tensor. Raises Mistake if its parts don't make it up."""
        if self.read > MAPPED_BYTES:
            self.open()
        first = self.ranks[0][name]
        self.read += first.numel() * first.dtype.itemsize
        if not isinstance(first, DTensor):
            return first  # the same on every rank
        placement = first.placements[-1]
        parts = [rank[name]._local_tensor for rank in self.ranks]
        if placement.is_shard():
            whole = parts[0] if len(parts) == 1 else torch.cat(parts, placement.dim)
        elif placement.is_replicate():
            whole = parts[0]
        else:
            raise Mistake(
                f"{self.folder}: {name} is laid out as {placement}, which can't be exported"
            )
        if whole.shape != first.shape:
            raise Mistake(
                f"{self.folder}: the parts of {name} make {tuple(whole.shape)}, not {tuple(first.shape)}"
            )
        return whole


def load(folder: Path, files: dict[tuple[int, int], Path], world: int, rank: int) -> dict:
    """One rank's tensors, mapped privately: nothing that is done to them reaches the file."""
    if (world, rank) not in files:
        raise Mistake(f"{folder} is half a checkpoint: model_world_size_{world}_rank_{rank}.pt is missing. The run"
                      f" had {world} workers: copy the files of all of them into one folder")  # fmt: skip
    file = files[world, rank]
    try:
        found = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
        if not isinstance(found, dict) or not found:
            raise ValueError("it holds no tensors by name")
        return found
    except Exception as error:  # a file cut short makes torch raise this and that
        why = str(error).split("\n")[0][:150]
        raise Mistake(f"{file} can't be read, as if saving it had been interrupted ({why}): take another"
                      " checkpoint, RUN@STEP") from None  # fmt: skip


class Saved:
    """Weights in Hugging Face's layout: one file of safetensors, or several with an index.

    Raises Mistake if there are none, or a file is missing or cut short.
    """

    def __init__(self, folder: Path):
        index = folder / INDEX
        names = [SINGLE]
        if not (folder / SINGLE).is_file() and index.is_file():
            names = sorted(set(told(index).get("weight_map", {}).values()))
        self.folder, self.parts = folder, names
        self.open()

    def open(self) -> None:
        """Map the files."""
        self.files: dict[str, Any] = {}
        self.read = 0
        for name in self.parts:
            if not (self.folder / name).is_file():
                raise Mistake(f"{self.folder} has no {name}")
            try:
                file = safe_open(self.folder / name, "pt")
            except SafetensorError as error:
                raise Mistake(f"{self.folder / name} is not complete: {error}") from None
            self.files |= dict.fromkeys(file.keys(), file)

    def names(self) -> dict[str, Info]:
        """Every tensor."""
        slices = {name: file.get_slice(name) for name, file in self.files.items()}
        back = {short: dtype for dtype, short in DTYPES.items()}
        if other := {s.get_dtype() for s in slices.values()} - back.keys():
            raise Mistake(f"{self.folder} has weights in {min(other)}, which can't be exported")
        return {n: Info(tuple(s.get_shape()), back[s.get_dtype()]) for n, s in slices.items()}

    def get(self, name: str) -> torch.Tensor:
        """The tensor."""
        if self.read > MAPPED_BYTES:
            self.open()
        tensor = self.files[name].get_tensor(name)
        self.read += tensor.numel() * tensor.dtype.itemsize
        return tensor


def usual(names: dict[str, Info]) -> torch.dtype:
    """The dtype of most values."""
    counts: dict[torch.dtype, int] = {}
    for info in names.values():
        if info.dtype.is_floating_point:
            counts[info.dtype] = counts.get(info.dtype, 0) + info.values()
    return max(counts, key=lambda dtype: counts[dtype])


def write(folder: Path, layout: dict[str, Info], tensors) -> None:
    """Write safetensors, tensor by tensor; safetensors' own save_file wants all of them at once.

    Args:
        layout: every tensor that will come, in this order.
        tensors: (name, tensor) of each, shapes and dtypes as in `layout`.
    """
    groups: list[dict[str, Info]] = [{}]
    size = 0
    for name, info in layout.items():
        length = info.values() * info.dtype.itemsize
        if groups[-1] and size + length > FILE_BYTES:
            groups.append({})
            size = 0
        groups[-1][name] = info
        size += length
    total = len(groups)
    names = (
        [SINGLE]
        if total == 1
        else [f"model-{i:05}-of-{total:05}.safetensors" for i in range(1, total + 1)]
    )
    coming = iter(tensors)
    for name, group in zip(names, groups, strict=True):
        write_file(folder / name, group, coming)
    if total > 1:
        where = {key: name for name, group in zip(names, groups, strict=True) for key in group}
        bytes_of_all = sum(info.values() * info.dtype.itemsize for info in layout.values())
        index = {"metadata": {"total_size": bytes_of_all}, "weight_map": where}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def write_file(path: Path, layout: dict[str, Info], tensors) -> None:
    """One file: the length of the header, the header, the values of each tensor."""
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, info in layout.items():
        end = at + info.values() * info.dtype.itemsize
        header[name] = {"dtype": DTYPES[info.dtype], "shape": list(info.shape), "data_offsets": [at, end]}  # fmt: skip
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the values so
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for expected, info in layout.items():
            name, tensor = next(tensors)
            assert (name, tuple(tensor.shape), tensor.dtype) == (expected, *info), name
            file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
