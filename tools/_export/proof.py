"""That an exported folder computes what the checkpoint computes: logits, compared along an independent path.

One side is the folder, as transformers (and PEFT) load it. The other is the trainer's shards in the model's class,
an adapter applied by PEFT without merging it. Both compute in fp32.

* In fp32 no logit may differ by more than 1e-5 (of the largest logit, if that is above 1: LoRA's merged and unmerged
  product round differently).
* In another dtype the weights are rounded, and the logits with them. How much rounding explains is computed, too: the
  checkpoint's weights, merged by PEFT, rounded to that dtype. The folder must be nearer to these than half of what
  rounding changes (root mean square), else something other than rounding has changed it.
"""

import gc
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers

from preflight.mistakes import Mistake
from tools._export.adapter import heads
from tools._export.source import WRAPPED, Source, base_folder, clean, empty

CLOSE = 1e-5
TOKENS = 32  # of a prompt


@dataclass
class Agreement:
    """Logits of the exported folder beside those of the checkpoint."""

    compared_with: str
    prompts: int
    logits: int  # how many were compared
    largest_logit: float
    largest_difference: float
    allowed: float  # of what is judged: the largest difference, or that from rounded weights
    mean_square_of_rounding: float | None  # root mean square; None in fp32
    mean_square_from_rounded: float | None
    greedy_agreement: float | None  # share of positions with the same most likely token

    @property
    def good(self) -> bool:
        """Whether it may be given away; NaN is not."""
        judged = self.mean_square_from_rounded
        return (self.largest_difference if judged is None else judged) <= self.allowed

    def text(self) -> str:
        """For the screen, and for the card."""
        line = f"largest difference of {self.logits} logits {self.largest_difference:.2g}"
        if self.mean_square_from_rounded is None:
            line += f" (allowed: {self.allowed:.2g})"
        else:
            line += (f"; root mean square {self.mean_square_from_rounded:.2g} from the checkpoint rounded to this dtype"
                     f" (allowed: {self.allowed:.2g}), which is itself {self.mean_square_of_rounding:.2g} from the"
                     " checkpoint")  # fmt: skip
        if self.greedy_agreement is not None:
            line += f"; the most likely token is the same at {self.greedy_agreement:.1%} of the positions"
        return line

    def figures(self) -> dict:
        """For export.json."""
        return asdict(self)


def prove(
    source: Source, folder: Path, dtype: torch.dtype, prompts: Sequence[list[int]], adapter: bool
) -> Agreement:
    """Compare the exported folder with the checkpoint.

    Args:
        prompts: tokens; the first TOKENS of each are looked at.
        adapter: whether the folder has an adapter alone.
    """
    cut = [ids[:TOKENS] for ids in prompts]
    if source.architecture.endswith(
        "ForSequenceClassification"
    ):  # one logit each: of several beginnings of each
        cut = [ids[: len(ids) * i // 4 + 1] for ids in cut for i in range(4)]
    asked = [torch.tensor([ids]) for ids in cut]
    model, what = reference(source)
    true = logits(model, asked)
    rounded = None
    if dtype != torch.float32:
        whole = () if not adapter else heads(source)
        rounded = logits(round_weights(model, dtype, adapter, whole), asked)
    del model
    gc.collect()  # before the next one is loaded
    model = exported(source, folder, adapter)
    made = logits(model, asked)
    return compare(true, rounded, made, what, len(asked), source.generates)


def compare(true: torch.Tensor, rounded: torch.Tensor | None, made: torch.Tensor, what: str, prompts: int,
            generates: bool) -> Agreement:  # fmt: skip
    """Logits (positions, classes) of the checkpoint, of its rounded weights, and of the folder."""
    largest = true.abs().max().item()
    allowed, rounding, off = CLOSE * max(1.0, largest), None, None
    if rounded is not None:
        rounding, off = root_mean_square(rounded, true), root_mean_square(made, rounded)
        allowed = max(allowed, rounding / 2)
    same = (true.argmax(-1) == made.argmax(-1)).float().mean().item() if generates else None
    apart = (true - made).abs().max().item()
    return Agreement(what, prompts, true.numel(), largest, apart, allowed, rounding, off, same)


def root_mean_square(one: torch.Tensor, other: torch.Tensor) -> float:
    """Of the differences."""
    return (one - other).square_().mean().sqrt().item()


def logits(model, asked: list[torch.Tensor]) -> torch.Tensor:
    """(positions of all prompts, classes), fp32."""
    with torch.inference_mode():
        found = [model(input_ids=ids, use_cache=False).logits for ids in asked]
    return torch.cat([one.float().reshape(-1, one.shape[-1]) for one in found])


def reference(source: Source):
    """The checkpoint's model in fp32, without a step of the export; and what it is, in words."""
    model = empty(source)
    if not source.shards:
        made = type(model).from_pretrained(source.folder, dtype=torch.float32)
        return made.eval(), f"{source.folder} (its shards are not there)"
    what = "the trainer's shards"
    if source.lora:
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(
            r=source.lora.r, lora_alpha=source.lora.alpha, target_modules=list(source.lora.modules)
        )
        model = get_peft_model(model, lora, low_cpu_mem_usage=True).eval()
        what += ", LoRA not merged"
    state = weights(source)
    wanted = model.state_dict().keys()
    if source.lora and all("lora_" in name for name in state):
        base = (
            type(empty(source))
            .from_pretrained(base_folder(source), dtype=torch.float32)
            .state_dict()
        )
        adapted = {name.replace(".base_layer.", "."): name for name in wanted}
        state |= {adapted[f"{WRAPPED}{name}"]: tensor for name, tensor in base.items()}
    missing, beyond = model.load_state_dict(state, strict=False, assign=True)
    tied = {name for name in missing if clean(name) in source.tied}
    if wrong := [*(name for name in missing if name not in tied), *beyond]:
        raise Mistake(
            f"{source.shards.folder} is not a checkpoint of {source.architecture}: {wrong[0]}"
        )
    if missing:
        model.tie_weights()
    return model, what


def weights(source: Source) -> dict[str, torch.Tensor]:
    """All that the shards have, in fp32; of weights that are tied the one. Raises Mistake if the other differs."""
    ties, names, state = source.skeleton.all_tied_weights_keys, source.shards.names(), {}
    whole = {clean(name): name for name in names}
    for name in names:
        tensor = source.shards.get(name)
        if (other := whole.get(ties.get(clean(name), ""))) is None:
            state[name] = tensor.float()
        elif not torch.equal(tensor, source.shards.get(other)):
            raise Mistake(f"{source.shards.folder}: {name} and {other} are one weight in {source.architecture}, and"
                          " differ here: no folder can say both")  # fmt: skip
    source.shards.open()
    return state


def round_weights(model, dtype: torch.dtype, adapter: bool, whole: Sequence[str]):
    """The model with its weights rounded to a dtype, still in fp32.

    Args:
        adapter: whether those of the adapter alone are, without merging it.
        whole: modules beside the adapter that are exported without rounding.
    """
    if hasattr(model, "merge_and_unload") and not adapter:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tied embeddings, which no file is made of here
            model = model.merge_and_unload()
    for name, weight in model.named_parameters():
        module = name.removeprefix(WRAPPED).partition(".")[0]
        if not adapter or ("lora_" in name and module not in whole):
            weight.data.copy_(
                weight.data.to(dtype)
            )  # in its place: a copy would be as much memory again
    return model


def exported(source: Source, folder: Path, adapter: bool):
    """The exported folder, as a user loads it, in fp32."""
    made = getattr(transformers, source.architecture, None) or transformers.AutoModelForCausalLM
    options = {"dtype": torch.float32, "trust_remote_code": source.trusted}
    if not adapter:
        return made.from_pretrained(folder, **options).eval()
    from peft import PeftModel

    base, config = base_folder(source), source.model_config()
    # as the trainer had it: a base in another dtype was rounded when it was loaded
    model = made.from_pretrained(base, config=config, **options | {"dtype": source.dtype}).float()
    return PeftModel.from_pretrained(model, folder).eval()
