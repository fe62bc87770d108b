"""Patches of vLLM on the CPU. vLLM calls `apply` in each of its processes (`vllm.general_plugins`).

One function a patch: what upstream does, where, why that is wrong here, for which versions.
"""

import functools

import wrapt


def keep_packed_weights(utils) -> None:
    """vllm/model_executor/layers/utils.py, dispatch_cpu_unquantized_gemm (0.30.0).

    It packs each linear layer's weight for oneDNN and frees `layer.weight`, so the next weight sync
    has nothing to write to. Keep the weight; verl calls process_weights_after_loading() after each
    sync, which packs it anew.
    """
    pack = utils.dispatch_cpu_unquantized_gemm

    def pack_and_keep(layer, remove_weight):
        pack(layer, remove_weight=False)

    utils.dispatch_cpu_unquantized_gemm = pack_and_keep


def name_unstacked_mapper(mapper_cls) -> None:
    """vllm/model_executor/models/utils.py, WeightsMapper (0.30.0).

    verl 0.9.1 (verl/utils/vllm/utils.py) calls get_unstacked_mapper() when it loads a LoRA adapter;
    vLLM 0.30 renamed it to get_rename_mapper().
    """
    if not hasattr(mapper_cls, "get_unstacked_mapper"):
        mapper_cls.get_unstacked_mapper = mapper_cls.get_rename_mapper


def keep_generators(gpu_model_runner) -> None:
    """vllm/v1/worker/gpu_model_runner.py:3723, _bookkeeping_sync (0.30.0).

    Of a prompt that is not all read (a part a step) it takes the draw back by the offset of the request's
    generator, which a CPU's generator has not: RuntimeError, and the engine ends. Such a request has no
    generator of its own in that step, whose token is thrown away.
    """
    runner = gpu_model_runner.GPUModelRunner
    sample = runner.sample_tokens

    @functools.wraps(sample)
    def sample_tokens(self, *args, **kwargs):
        batch = self.input_batch
        unread = self.discard_request_mask.np[: batch.num_reqs].nonzero()[0].tolist()
        held = {i: batch.generators.pop(i) for i in unread if i in batch.generators}
        try:
            return sample(self, *args, **kwargs)
        finally:
            batch.generators.update(held)

    runner.sample_tokens = sample_tokens


def draw_once(topk_topp_sampler) -> None:
    """vllm/v1/sample/ops/topk_topp_sampler.py, TopKTopPSampler.forward_cpu (0.30.0).

    It draws numbers for all requests, and those that have a generator of their own get them anew. Where
    each has one, vLLM's sampler for GPUs does the same and draws once.
    """
    sampler = topk_topp_sampler.TopKTopPSampler
    forward = sampler.forward_cpu

    @functools.wraps(forward)
    def forward_cpu(self, logits, generators, k, p):
        if len(generators) == len(logits):
            return self.forward_native(logits, generators, k, p)
        return forward(self, logits, generators, k, p)

    sampler.forward_cpu = forward_cpu


def apply() -> None:
    """Apply all patches, on a CPU build of vLLM only."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.model_executor.layers import utils
    from vllm.model_executor.models.utils import WeightsMapper

    keep_packed_weights(utils)
    name_unstacked_mapper(WeightsMapper)
    wrapt.when_imported("vllm.v1.worker.gpu_model_runner")(keep_generators)  # slow to import
    wrapt.when_imported("vllm.v1.sample.ops.topk_topp_sampler")(draw_once)
