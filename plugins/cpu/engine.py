"""verl's FSDP2 engines on the CPU. Imported when an engine is looked up (see platform.py)."""

from contextlib import contextmanager
from typing import Any

from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead, FSDPEngineWithValueHead


@contextmanager
def _as_trainable(engine_config):
    """Let a forward-only engine look like a trainable one (the config is a frozen dataclass)."""
    forward_only = engine_config.forward_only
    object.__setattr__(engine_config, "forward_only", False)
    try:
        yield
    finally:
        object.__setattr__(engine_config, "forward_only", forward_only)


class _OnCPU:
    engine_config: Any  # of verl's engine

    def _build_fsdp_module(self, module):
        # transformer_impl.py (0.9.1) gives forward-only engines CPUOffloadPolicy(pin_memory=True):
        # pinned memory needs an accelerator, and here the parameters are on the CPU anyway.
        with _as_trainable(self.engine_config):
            return super()._build_fsdp_module(module)  # type: ignore[misc] # it stands beside verl's engine


@EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cpu")
class CPUEngineWithLMHead(_OnCPU, FSDPEngineWithLMHead):
    """A causal language model: actor, reference, SFT."""

    def get_per_tensor_param(self, *args, **kwargs):
        # vLLM 0.30 refuses a tied lm_head.weight that arrives in another bucket than the embedding,
        # and verl's sender then waits for ever. vLLM ties the two itself: don't send the copy.
        params, peft_config = super().get_per_tensor_param(*args, **kwargs)
        if getattr(self.model_config.hf_config, "tie_word_embeddings", False):
            params = ((name, p) for name, p in params if not name.endswith("lm_head.weight"))
        return params, peft_config


@EngineRegistry.register(model_type="value_model", backend=["fsdp", "fsdp2"], device="cpu")
class CPUEngineWithValueHead(_OnCPU, FSDPEngineWithValueHead):
    """A model with one score a token: critic, reward models."""
