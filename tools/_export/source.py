"""What a checkpoint holds, and what is made of it: the weights as the model is loaded, LoRA merged in."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from accelerate import init_empty_weights
from transformers import AutoConfig
from transformers.core_model_loading import revert_weight_conversion

from launcher.checkpoints import BEST, CONFIG, Checkpoint, NoCheckpoint, checkpoint, there
from preflight.mistakes import Mistake
from tools._export.tensors import Info, Saved, Shards, usual
from tools._models.naming import told

WRAPPED = "base_model.model."  # what PEFT puts before each name
ADAPTED = re.compile(r"(.+)\.lora_([AB])\.default\.weight")
META = "lora_train_meta.json"
RUN_ONLY = ("attn_implementation", "_attn_implementation")  # how the run computed, not what it made


@dataclass(frozen=True)
class Lora:
    """The adapter in the shards."""

    r: int
    alpha: int
    modules: tuple[str, ...]  # the adapted ones, as paths in the model

    @property
    def scaling(self) -> float:
        """What B A is multiplied by."""
        return self.alpha / self.r


@dataclass
class Source:
    """A checkpoint, opened."""

    said: str
    at: Checkpoint
    config: dict  # the run's resolved.yaml; {} if it has none
    folder: Path  # config.json, tokenizer, and maybe weights
    shards: Shards | None
    saved: Saved | None  # complete weights in Hugging Face's layout
    lora: Lora | None
    notes: list[str] = field(default_factory=list)

    @property
    def dtype(self) -> torch.dtype:
        """That of most of the weights."""
        return usual((self.shards or self.saved).names())

    @property
    def model(self) -> dict:
        """The node of the run's config about its model."""
        policy = self.config.get("actor_rollout_ref")
        return (policy or self.config).get("model") or {}

    @property
    def base(self) -> str | None:
        """What the run began with: a folder or a hub id."""
        return self.model.get("path")

    @property
    def trusted(self) -> bool:
        """Whether the run trusted the model's own code."""
        return bool(self.model.get("trust_remote_code"))

    def model_config(self):
        """The config of the model's class."""
        return AutoConfig.from_pretrained(self.folder, trust_remote_code=self.trusted)

    @property
    def architecture(self) -> str:
        """The name of the model's class."""
        names = told(self.folder / "config.json").get("architectures") or [""]
        return names[0]

    @cached_property
    def skeleton(self):
        """The model without its weights, to look names up in."""
        return empty(self)

    @property
    def tied(self) -> set[str]:
        """Weights that are others' by another name: no file has them."""
        return set(self.skeleton.all_tied_weights_keys)

    @property
    def generates(self) -> bool:
        """Whether it answers; else it scores."""
        return not self.architecture.endswith(
            ("ForSequenceClassification", "ForTokenClassification")
        )


def open_source(said: str) -> Source:
    """The checkpoint that a name stands for. Raises Mistake, with what to do."""
    try:
        at = checkpoint(said)
    except NoCheckpoint as error:
        raise Mistake(str(error)) from None
    if at is None:
        what = "is no run: it has no resolved.yaml" if Path(said).is_dir() else "is not there"
        raise Mistake(f"{said} {what}. A run's folder, RUN@best or RUN@STEP is exported")
    folder = at.model
    if folder is None or not (folder / "config.json").is_file():
        raise Mistake(
            f"{at.folder} is half a checkpoint: huggingface/config.json is missing{there(at.run)}"
        )
    file = at.run / CONFIG
    config = config_of(file) if file.is_file() else {}
    told(folder / "config.json")  # a broken one is told by its name
    source = Source(said, at, config, folder, None, None, None)
    source.shards = shards_of(at, source.notes)
    if source.shards:
        source.lora = lora_of(source)
    try:
        source.saved = Saved(folder)
        own = {k: v.shape for k, v in source.saved.names().items() if k not in source.tied}
        different = own.items() ^ {(name, info.shape) for name, info in layout(source).items()}
        if different:
            name = min(name for name, _ in different)
            raise Mistake(f"{folder} has not the weights of {source.architecture}: {name}")
    except Mistake as mistake:
        source.saved = None
        if not source.shards:
            raise Mistake(f"{mistake}; and the trainer's shards are not there either") from None
    return source


def config_of(file: Path) -> dict:
    """A run's config. Raises Mistake for a broken file."""
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:
        raise Mistake(f"{file} is broken: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(found, dict):
        raise Mistake(f"{file} is broken: it has no settings")
    return found


def shards_of(at: Checkpoint, notes: list[str]) -> Shards | None:
    """The trainer's shards of a checkpoint; of RUN@best, where its step is still kept."""
    folder = at.shards
    if at.folder.name == BEST:
        step = at.run / f"checkpoints/global_step_{at.step}"
        folder = Checkpoint(at.run, at.step, step).shards
    if not folder.is_dir() or not any(folder.glob("model_world_size_*")):
        notes.append(
            f"step {at.step} has no shards of the trainer: there is its huggingface folder alone"
        )
        return None
    return Shards(folder)


def lora_of(source: Source) -> Lora | None:
    """The adapter in the shards, None if all weights were trained. Raises Mistake."""
    names = source.shards.names()
    known = {name: found for name in names if (found := ADAPTED.fullmatch(name))}
    if other := [name for name in names if "lora_" in name and name not in known]:
        raise Mistake(
            f"{source.shards.folder}: {other[0]} is no LoRA of a linear layer; it can't be exported"
        )
    if not known:
        return None
    ranks = {names[name].shape[0] for name, found in known.items() if found[2] == "A"}
    file, begun = source.shards.folder / META, source.model.get("lora_adapter_path")
    meta = told(file) if file.is_file() else {}
    alpha = meta.get("lora_alpha") or source.model.get("lora_alpha")
    if len(ranks) != 1 or not alpha:
        raise Mistake(f"{source.shards.folder}: {META} is missing, and {CONFIG} doesn't say lora_alpha either: without"
                      " it the adapter's size is not known")  # fmt: skip
    if begun and (Path(begun) / "adapter_config.json").is_file():
        begin = told(Path(begun) / "adapter_config.json")
        if begin.get("use_rslora") or begin.get("rank_pattern") or begin.get("alpha_pattern"):
            raise Mistake(
                f"the run began with {begun}, which scales its layers in another way than alpha / r"
            )
    paths = {found[1].removeprefix(WRAPPED) for found in known.values()}
    return Lora(ranks.pop(), alpha, tuple(sorted(paths)))


def empty(source: Source):
    """The model without its weights (they are on torch's device "meta"); buffers are real."""
    config = source.model_config()
    for key in RUN_ONLY:
        with contextlib.suppress(AttributeError):
            setattr(config, key, None)
    made: Any = getattr(transformers, source.architecture, None)
    with init_empty_weights(include_buffers=False):
        if made is not None:
            return made._from_config(config, attn_implementation="sdpa").eval()
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_config(config, trust_remote_code=source.trusted).eval()


def own(source: Source) -> list[str]:
    """The model's weights in memory that are no others' by another name."""
    return [name for name in source.skeleton.state_dict() if name not in source.tied]


def layout(source: Source) -> dict[str, Info]:
    """The names on disk of a model's own weights, with their shapes.

    Usually the same as in memory; experts, which are one tensor there, are many on disk.
    """
    state, found = source.skeleton.state_dict(), {}
    for name in own(source):
        meta = torch.empty(state[name].shape, dtype=state[name].dtype, device="meta")
        for key, value in revert_weight_conversion(source.skeleton, {name: meta}).items():
            found[key] = Info(tuple(value.shape), value.dtype)
    return found


def clean(name: str) -> str:
    """A name in PEFT's model as the model itself has it."""
    return name.removeprefix(WRAPPED).replace(".base_layer.", ".")


class Merged:
    """The weights as the model is loaded, in the dtype asked for; with LoRA, W + alpha / r · B A, computed in fp32.

    Raises Mistake if the checkpoint lacks weights, or has others than the model.
    """

    def __init__(self, source: Source, dtype: torch.dtype):
        self.source, self.dtype = source, dtype
        self.base: Saved | None = None  # of an adapter that was saved alone
        # what the run merged in its own, coarser dtype is merged anew
        coarse = source.lora and source.dtype != torch.float32
        self.saved = None if coarse and source.shards else source.saved
        if self.saved:
            disk = self.saved.names()
        else:
            shards = (name for name in source.shards.names() if not ADAPTED.fullmatch(name))
            self.inside = {clean(name): name for name in shards}
            if not self.inside:  # verl's save_lora_only
                self.base = Saved(base_folder(source))
                self.inside = {name: name for name in self.base.names()}
            self.check()
            disk = layout(source)
        self.layout = {name: Info(info.shape, self.cast(info.dtype))
                       for name, info in disk.items() if name not in source.tied}  # fmt: skip

    def check(self) -> None:
        """All weights of the model, and no others."""
        wanted, found = set(own(self.source)), self.inside.keys() - self.source.tied
        for names, what in ((wanted - found, "lacks"), (found - wanted, "has, beyond the model,")):
            if names:
                raise Mistake(f"{self.source.at.folder} {what} {len(names)} weights of {self.source.architecture},"
                              f" {min(names)} for one: nothing can be made of it")  # fmt: skip
        state = self.source.skeleton.state_dict()
        disk = self.base.names() if self.base else self.source.shards.names()
        for name in sorted(wanted):
            if (shape := disk[self.inside[name]].shape) != tuple(state[name].shape):
                raise Mistake(f"{self.source.at.folder}: {name} is {shape}, and {tuple(state[name].shape)} in"
                              f" {self.source.architecture}: nothing can be made of it")  # fmt: skip

    def cast(self, dtype: torch.dtype) -> torch.dtype:
        """What becomes of a dtype: whole numbers stay."""
        return self.dtype if dtype.is_floating_point else dtype

    def get(self, name: str) -> torch.Tensor:
        """A weight of the model in memory, LoRA merged in."""
        source = self.source
        tensor = self.base.get(name) if self.base else source.shards.get(self.inside[name])
        module, _, kind = name.rpartition(".")
        if source.lora and kind == "weight" and module in source.lora.modules:
            a, b = (
                source.shards.get(f"{WRAPPED}{module}.lora_{x}.default.weight").float()
                for x in "AB"
            )
            return tensor.float().addmm(b, a, alpha=source.lora.scaling)
        return tensor

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        if self.saved:
            for name in self.layout:
                tensor = self.saved.get(name)
                yield name, tensor.to(self.cast(tensor.dtype))
            return
        for name in own(self.source):
            on_disk = revert_weight_conversion(self.source.skeleton, {name: self.get(name)})
            for key, tensor in on_disk.items():
                yield key, tensor.to(self.cast(tensor.dtype))


def base_folder(source: Source) -> Path:
    """Where the weights lie that the run began with; downloaded if need be. Raises Mistake."""
    base = source.base
    if base and Path(base).is_dir():
        return Path(base)
    if not base or base.startswith(("/", ".", "data/", "outputs/")):
        raise Mistake(f"the run began with {base or 'a model that it does not name'}, which is not there: an adapter"
                      " is nothing without it")  # fmt: skip
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(base, ignore_patterns=["*.bin", "*.pth", "*.gguf"]))
    except Exception as error:  # no network, no such model, a gated one
        raise Mistake(
            f"the run began with {base}, which can't be fetched: {str(error).splitlines()[0]}"
        ) from None
