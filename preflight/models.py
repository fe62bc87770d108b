"""Facts of a model without loading it: its config.json, from where one is at hand.

A folder's own, that of the hub's cache, or, for a model of conf/model/ that was never downloaded, the `facts`
that its file ships. Never from a model's name. No torch.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf

from preflight.facts import is_rl
from preflight.names import CONF
from preflight.resolvers import HUB_ID


def trained(config: DictConfig) -> str:
    """Path or hub id of the model that a run trains."""
    return OmegaConf.select(
        config, "actor_rollout_ref.model.path" if is_rl(config) else "model.path"
    )


def hub_file(path: str, name: str) -> Path | None:
    """A file of a hub's model, if it was downloaded before."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(path, name)
    return Path(found) if isinstance(found, str) else None


def file_of(path: str, name: str) -> Path | None:
    """A file of a model: in its folder, or in the hub's cache; None if it is not on this machine."""
    if not path:
        return None  # another check says so
    folder = Path(path)
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    return hub_file(path, name) if HUB_ID.fullmatch(path) else None


def facts_of(path: str) -> dict | None:
    """The model's config.json as a dict; None if nothing is known of it."""
    if file := file_of(path, "config.json"):
        return json.loads(file.read_text())
    return shipped().get(path)


@cache
def shipped() -> dict[str, dict]:
    """Facts that conf/model/ ships, by the model's path."""
    files = [yaml.safe_load(file.read_text()) for file in sorted((CONF / "model").glob("*.yaml"))]
    return {file["path"]: file["facts"] for file in files if "facts" in file}


class UnknownModel(Exception):
    """A model whose sizes these formulas don't know; the message says why."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder with gated MLPs and grouped-query attention, dense or a mixture of experts.

    Numbers are counts of elements, for one layer where it says so. `known` lists the model types.
    """

    kind: str  # model_type
    vocab: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int  # of one expert, in a mixture
    experts: int  # 0: a dense MLP
    experts_per_token: int
    tied: bool  # the output layer is the embedding
    qkv_bias: bool
    o_bias: bool
    mlp_bias: bool
    qk_norm: bool
    context: int | None

    known = ("llama", "mistral", "mixtral", "phi3", "qwen2", "qwen3", "qwen3_moe", "smollm3")

    @classmethod
    def of(cls, facts: Mapping) -> "Shape":
        """From a config.json. Raises UnknownModel."""
        kind = facts.get("model_type", "?")
        if kind not in cls.known:
            raise UnknownModel(
                f"no sizes are known of model type {kind}. Known: {', '.join(cls.known)}"
            )
        moe = kind in ("qwen3_moe", "mixtral")
        if kind == "qwen3_moe" and (
            facts.get("mlp_only_layers") or facts.get("decoder_sparse_step", 1) != 1
        ):
            raise UnknownModel("a mixture of experts with some dense layers")
        heads = facts["num_attention_heads"]
        bias = facts.get("attention_bias", False)
        return cls(
            kind,
            facts["vocab_size"],
            facts["hidden_size"],
            facts["num_hidden_layers"],
            heads,
            facts.get("num_key_value_heads") or heads,
            facts.get("head_dim") or facts["hidden_size"] // heads,
            facts["moe_intermediate_size"] if kind == "qwen3_moe" else facts["intermediate_size"],
            (facts.get("num_experts") or facts.get("num_local_experts", 8)) if moe else 0,
            facts.get("num_experts_per_tok", 2) if moe else 1,
            facts.get("tie_word_embeddings", False),
            kind == "qwen2" or bias,
            bias and kind != "qwen2",
            facts.get("mlp_bias", False) and kind == "llama",
            kind in ("qwen3", "qwen3_moe"),
            facts.get("max_position_embeddings"),
        )

    @property
    def q(self) -> int:
        """Width of the queries."""
        return self.heads * self.head_dim

    @property
    def kv(self) -> int:
        """Width of the keys, and of the values."""
        return self.kv_heads * self.head_dim

    @property
    def attention(self) -> int:
        """Parameters of a layer's attention."""
        h = self.hidden
        weights = 2 * h * self.q + 2 * h * self.kv
        biases = self.qkv_bias * (self.q + 2 * self.kv) + self.o_bias * h
        return weights + biases + self.qk_norm * 2 * self.head_dim

    @property
    def mlp(self) -> int:
        """Parameters of a layer's MLP, or of all its experts and their router."""
        one = 3 * self.hidden * self.intermediate + self.mlp_bias * (
            2 * self.intermediate + self.hidden
        )
        return self.experts * (one + self.hidden) if self.experts else one

    @property
    def layer(self) -> int:
        """Parameters of a layer, with its two norms."""
        return self.attention + self.mlp + 2 * self.hidden

    @property
    def embedding(self) -> int:
        """Parameters of the embedding."""
        return self.vocab * self.hidden

    def parameters(self, head: str = "lm") -> int:
        """Of the whole model. head: lm (a language model) or value (one number a token: critic, reward model)."""
        body = self.embedding + self.layers * self.layer + self.hidden
        if head == "value":
            return body + self.hidden + 1
        return body + (0 if self.tied else self.embedding)

    @property
    def active(self) -> int:
        """Parameters that one token is multiplied with, with the output layer: for operations a token."""
        mlp = self.mlp // self.experts * self.experts_per_token if self.experts else self.mlp
        return self.layers * (self.attention + mlp) + self.embedding

    def adapter(self, rank: int) -> int:
        """Parameters of a LoRA on all linear layers, as PEFT makes it."""
        h, i = self.hidden, self.intermediate
        attention, mlp = 2 * (h + self.q) + 2 * (h + self.kv), 2 * (h + i) + (i + h)
        if (
            self.kind == "phi3"
        ):  # one layer for queries, keys and values, one for both halves of the MLP
            attention, mlp = (h + self.q + 2 * self.kv) + (self.q + h), (h + 2 * i) + (i + h)
        if self.experts:  # both halves in one tensor, with twice the rank; and the router
            mlp = self.experts * (2 * (h + 2 * i) + (i + h)) + (h + self.experts)
        return self.layers * rank * (attention + mlp)
