"""How much memory the parts of a run take on one GPU, phase by phase, from sizes and settings alone.

Read off verl 0.9.1 (workers/engine/fsdp/transformer_impl.py, workers/rollout/vllm_rollout), torch's FSDP2 and
transformers' decoder layers; what autograd keeps is counted tensor by tensor. tests/preflight/memory/test_memory.py
compares it with torch's own accounting of verl's engine, on a CPU and on a GPU. What only a GPU has, beside the
tensors, is in ON_GPU: measured in runs on an H100 and an H200 (tests/bench/memory_runs_gpu.json), but for what says
otherwise.

All sizes are bytes. c: bytes of a number in a forward pass (2: bf16), w: of a stored weight.
"""

from dataclasses import dataclass

from plugins.patches import CHUNK
from preflight.models import Shape

GIB = 2**30
REDUCED = 4  # gradients are summed in fp32 (reduce_dtype)
ON_GPU = {
    "trainer": 1.3 * GIB,  # verl's process: CUDA 0.5, NCCL's kernels 0.6, cuBLAS's and others
    "collectives": 0.4 * GIB,  # NCCL's buffers, of more than one GPU; assumed
    "server": 0.6 * GIB,  # vLLM's process, beyond its share
    "asleep": 0.9 * GIB,  # what a sleeping vLLM keeps, its CUDA graphs aside
    "workspaces": 0.3 * GIB,  # of vLLM's share, beside weights, activations and cache
    # One layer in one of vLLM's CUDA graphs. Measured: 0.89 GiB in 28 layers and 108 graphs (1.5B with LoRA, H200),
    # 1.34 GiB in 48 and 102 (Qwen3-30B-A3B, README.md of qat in verl-recipe).
    "graph": 0.29 * 2**20,
}
UPCAST = 4  # on a GPU autocast has logsumexp work on a copy in fp32


@dataclass(frozen=True)
class Engine:
    """A model under FSDP2.

    Args:
        head: lm, or value for a critic or a reward model.
        rank: of a LoRA; 0 trains all weights.
        frozen: a reference: its weights stay in the computer's memory and come layer by layer.
        w, c: bytes of a stored weight, of a number in a pass.
        shards: GPUs that share the weights.
        tokens, infer_tokens: of one training pass, of one without gradients, with their padding.
        longest: tokens of the longest sequence.
        passes: training passes in one update, 1 or more.
        deferred: gradients stay whole until the last pass (use_no_sync_for_gradient_accumulation).
        packed, flash: sequences without padding; flash-attn, also for the loss. masked: attention without it needs a
            mask, if sequences are packed, or not equally long.
        scaled: temperature is not 1. entropy: in the training pass. chunk: tokens of the log-probabilities' entropy at
            once, or None for all. compiled: the entropy is.
        softmax: bytes of a softmax's result. foreach: the optimizer handles all weights at once, as torch
            does on a GPU. cuda: the next weights are gathered while the last ones are in use.
    """

    shape: Shape
    head: str = "lm"
    rank: int = 0
    frozen: bool = False
    w: int = 4
    c: int = 2
    shards: int = 1
    param_offload: bool = False
    optimizer_offload: bool = False
    checkpointing: bool = True
    packed: bool = True
    flash: bool = True
    masked: bool = False
    tokens: int = 0
    infer_tokens: int = 0
    longest: int = 0
    passes: int = 1
    deferred: bool = True
    scaled: bool = False
    entropy: bool = False
    chunk: int | None = None
    compiled: bool = False
    softmax: int = 4
    foreach: bool = True
    cuda: bool = True

    @property
    def trained(self) -> int:
        """Parameters that get a gradient."""
        if self.frozen:
            return 0
        return self.shape.adapter(self.rank) if self.rank else self.shape.parameters(self.head)

    @property
    def stored(self) -> float:
        """The weights, sharded."""
        adapter = self.shape.adapter(self.rank) if self.rank else 0
        return (self.shape.parameters(self.head) + adapter) * self.w / self.shards

    @property
    def optimizer(self) -> float:
        """AdamW's two moments."""
        return 2 * self.trained * self.w / self.shards

    @property
    def gradients(self) -> float:
        """Of all weights, at the end of a backward pass."""
        kept = self.trained * REDUCED if self.deferred and self.passes > 1 else 0
        return max(kept, self.trained * self.w / self.shards)

    @property
    def resident(self) -> dict[str, float]:
        """What stays on the GPU while others work."""
        if self.frozen:
            return {}
        return {
            "weights": 0 if self.param_offload else self.stored,
            "optimizer": 0 if self.optimizer_offload else self.optimizer,
        }


def layer_activations(e: Engine, tokens: int) -> float:
    """What autograd keeps of one layer."""
    s, c, frozen_norms = e.shape, e.c, bool(e.rank)
    norm = (4 + (1 if frozen_norms else 2) * c) * s.hidden  # fp32 copy, normed, scaled
    repeated = s.q if e.masked else s.kv  # with a mask keys and values are repeated for each head
    attention = c * (2 * s.q + 2 * repeated) + 4 * s.heads + s.qk_norm * (4 + c) * (s.q + s.kv)
    mlp = 4 * c * s.intermediate * s.experts_per_token
    if s.experts:  # tokens are sorted by their expert, and their results put back
        mlp += 2 * c * s.hidden * s.experts_per_token
    adapters = 7 * c * e.rank
    return tokens * (2 * norm + attention + mlp + adapters + masks(e, tokens))


def masks(e: Engine, tokens: int) -> float:
    """A token's row of the attention mask, over all that is in its row of the batch."""
    return e.c * (tokens if e.packed else e.longest) if e.masked else 0


def saved(e: Engine, tokens: int) -> float:
    """What autograd keeps of all layers."""
    s = e.shape
    each = tokens * e.c * s.hidden if e.checkpointing else layer_activations(e, tokens)
    return s.layers * each + tokens * (4 + 2 * e.c) * s.hidden  # and of the last norm


def layer_forward(e: Engine, tokens: int) -> float:
    """The most that one layer needs at once without gradients."""
    s = e.shape
    mlp = 3 * s.intermediate * s.experts_per_token * e.c
    attention = (3 * s.q + 2 * s.kv) * e.c + masks(e, tokens) * 5 / 4
    return tokens * (5 * s.hidden * e.c + max(mlp, attention))


def layer_backward(e: Engine, tokens: int) -> float:
    """Gradients of a layer's activations at once."""
    s = e.shape
    return tokens * e.c * (2 * s.intermediate * s.experts_per_token + 3 * s.hidden)


def logits(e: Engine, tokens: int, train: bool) -> float:
    """All of (tokens, vocabulary) at the worst moment: scores, their softmax, their gradients."""
    if e.head == "value":
        return 0
    c, p, entropy = e.c, e.softmax, e.entropy if train else True
    scores = c * (1 + e.scaled)
    copy = 0 if e.packed else c  # padding is cut out
    upcast = UPCAST if e.cuda and c < UPCAST else 0
    if not train:
        fused = e.packed and e.compiled
        extra: float = (p + max(c, p) + upcast) * (0 if fused or e.frozen else 1)
        if e.packed and e.chunk and not e.frozen:
            extra = 12 * min(1.0, e.chunk / max(tokens, 1))
        return tokens * e.shape.vocab * max(scores + extra, scores + copy)
    each: float
    if entropy and not (e.packed and e.compiled):
        each = 3 * c + 4 * p + upcast
    elif e.flash:
        each = max(scores + copy, c * (1 + e.scaled) + copy)
    elif c == 4:
        # gradients of chunks and these together, beside them logsumexp of a chunk and its gradient
        chunk = min(1.0, CHUNK["cuda" if e.cuda else "cpu"] / max(tokens * e.shape.vocab, 1))
        each = c * (min(1 + 2 * chunk, 2) + (1 if e.packed else 2))
    else:
        each = scores + copy + p  # log_softmax a row
    if entropy:
        each = max(each, 3 * c)  # gradients of the entropy, of the log-probabilities
    return tokens * e.shape.vocab * each


def logits_alone(e: Engine, tokens: int) -> float:
    """Scores of all words, as the output layer gives them."""
    return 0 if e.head == "value" else tokens * e.shape.vocab * e.c


def units(e: Engine) -> tuple[float, float]:
    """(what FSDP gathers as a whole for as long as a pass lasts, parameters of the largest unit besides)."""
    s = e.shape
    adapter = s.adapter(e.rank) // s.layers if e.rank else 0
    layer, ends = s.layer + adapter, s.embedding
    if e.head == "value":
        return (ends if s.tied else 0), max(layer, 0 if s.tied else ends)
    return (ends + s.hidden, layer) if s.tied else (0, max(layer, ends))


def copies_of(e: Engine) -> int:
    """Of a unit's whole weights at a time: the buffer of the collective, and on a GPU the next unit's."""
    return 1 + (e.shards > 1) + e.cuda


def gathered_for_logits(e: Engine, train: bool) -> float:
    """The whole output layer, and its gradient."""
    if e.head == "value":
        return 0
    copies = 1 if e.shape.tied else copies_of(e) - e.cuda
    return e.shape.embedding * e.c * (copies + (train and not e.rank))


def gathered(e: Engine, gradients_of_whole: int = 0, reducing: bool = False) -> float:
    """Whole weights, and in a backward pass gradients of what is whole all the time, and of a unit on its way.

    Of several GPUs the buffer of the last collective lives on until the next one is through.
    """
    whole, unit = units(e)
    several, copies = e.shards > 1, copies_of(e)
    cast = several and e.c != e.w  # the buffer then is no view of the weights
    if e.c != e.w and copies == 1:  # weights are cast one by one
        unit += max(e.shape.hidden * e.shape.intermediate, 0 if e.shape.tied else e.shape.embedding)
    forward = ((1 + cast) * whole + copies * unit + cast * unit / e.shards) * e.c
    if e.rank or not (gradients_of_whole or reducing):
        return forward
    on_the_way = unit * (e.c + REDUCED)
    if several:
        on_the_way += unit * REDUCED / e.shards + e.shape.layer * (e.c + REDUCED)
    return forward + gradients_of_whole * whole * e.c + reducing * on_the_way


def training(e: Engine) -> dict[str, float]:
    """An update: parts at its worst moment."""
    t = e.tokens
    before = e.gradients if e.passes > 1 else 0.0  # of the passes before this one
    layer = layer_activations(e, t) if e.checkpointing else 0
    whole, unit = (0, 0) if e.passes > 1 or e.rank else (n * e.w / e.shards for n in units(e))
    t_grad = {"activations": layer_activations(e, t) + layer_backward(e, t)}
    tied = e.head == "lm" and e.shape.tied  # its embedding gets two gradients, and their sum
    moments = [
        {"gradients": before, "activations": saved(e, t), "logits": logits(e, t, True)},
        {"gradients": before, "activations": saved(e, t), "logits": logits_alone(e, t),
         "gathered": gathered_for_logits(e, True)},
        {"gradients": before, "activations": saved(e, t) + layer + layer_backward(e, t),
         "gathered": gathered(e, tied, True)},
        t_grad | {"gradients": max(0.0, e.gradients - whole - unit), "gathered": gathered(e, tied, True)},
        {"gradients": max(0.0, e.gradients - whole), "gathered": gathered(e, 3 if tied else 1)},
        {"gradients": e.trained * e.w / e.shards, "optimizer's step": e.optimizer / 2 if e.foreach else 0},
    ]  # fmt: skip
    return {"weights": e.stored, "optimizer": e.optimizer} | max(
        moments, key=lambda parts: sum(parts.values())
    )


def inference(e: Engine) -> dict[str, float]:
    """Log-probabilities or values, without gradients: parts at the worst moment."""
    t = e.infer_tokens
    moments = [
        {"activations": layer_forward(e, t), "gathered": gathered(e)},
        {"activations": t * e.c * e.shape.hidden, "logits": logits_alone(e, t),
         "gathered": gathered_for_logits(e, False)},
        {"logits": logits(e, t, False)},  # the weights are in shards again
    ]  # fmt: skip
    return {"weights": 0 if e.frozen else e.stored} | max(
        moments, key=lambda parts: sum(parts.values())
    )
