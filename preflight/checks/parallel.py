"""How engines and vLLM spread over the GPUs, and what of it a model's heads allow."""

from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf

from preflight.engines import A, divides, engines, facts, nearest_divisor, workers
from preflight.facts import is_rl, is_sft, scored_by
from preflight.models import trained

EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


class Heads(NamedTuple):
    """Attention heads of a model, and those for keys; None: not known, or of no matter."""

    queries: int | None
    keys: int | None

    def allow(self, size: int) -> bool:
        """Whether so many workers can share them, as verl and vLLM demand it."""
        shared = self.keys is None or divides(size, self.keys) or divides(self.keys, size)
        return (self.queries is None or divides(size, self.queries)) and shared

    def nearest(self, wish: int, among: int) -> int:
        """The size next to `wish` that divides `among` workers, and that the heads allow."""
        sizes = [n for n in range(1, among + 1) if among % n == 0 and self.allow(n)]
        return min(sizes or [1], key=lambda size: abs(size - wish))

    def __str__(self) -> str:
        return f"it has {self.queries} attention heads and {self.keys} for keys"


def heads_of(model: str) -> Heads:
    """Those of the model at a path. Latent attention (MLA) has no heads for keys to share."""
    known = facts(model)
    keys = None if known.get("kv_lora_rank") else known.get("num_key_value_heads")
    return Heads(known.get("num_attention_heads"), keys)


def check_sequence_parallel(config: DictConfig) -> str | None:
    """Ulysses: workers that share a sequence, each with some of the heads."""
    for engine in engines(config):
        key, size = engine.sequence
        if size == 1:
            continue
        heads = heads_of(OmegaConf.select(config, f"{engine.model}.path"))
        best = heads.nearest(size, workers(config))
        if not divides(size, workers(config)):
            return f"{key}={size} doesn't divide the {workers(config)} workers: {best} does."
        if not heads.allow(size):
            return f"{key}={size} doesn't fit the model: {heads}. {best} does."
        if not OmegaConf.select(config, f"{engine.model}.use_remove_padding"):
            return f"{key}={size} needs packed sequences: lab.hw.remove_padding=true."
        if not str(config.lab.hw.attention).startswith("flash_attention"):
            return (f"{key}={size} works only with flash-attn; with {config.lab.hw.attention} each worker would"
                    " see only its part of a sequence: set lab.hw.attention=flash_attention_2.")  # fmt: skip
    return None


def check_shards(config: DictConfig) -> str | None:
    """FSDP: groups of workers that share the weights."""
    n = workers(config)
    for engine in engines(config):
        key = f"{engine.fsdp}.fsdp_size"
        size = OmegaConf.select(config, key)
        if 0 <= size < n and not divides(size, n):
            return f"{key}={size} doesn't divide the {n} workers: {nearest_divisor(n, size)} does, -1 is all."
    return None


def check_cpu_engines(config: DictConfig) -> str | None:
    """What an engine can't do without an accelerator."""
    if config.lab.hw.device != "cpu":
        return None
    for engine in engines(config):
        strategy = f"{engine.key}.strategy" if is_rl(config) else "engine.strategy"
        if OmegaConf.select(config, strategy) != "fsdp2":
            return f"{strategy}={OmegaConf.select(config, strategy)}: on a CPU only fsdp2 works."
        if OmegaConf.select(config, f"{engine.fsdp}.offload_policy"):
            return f"{engine.fsdp}.offload_policy=true moves weights to the CPU, where they are: leave it out."
    return None


def servers(config: DictConfig):
    """vLLM's: (key, how many GPUs serve it, on a node, the model)."""
    if is_sft(config):
        return
    yield f"{A}.rollout", workers(config), config.trainer.n_gpus_per_node, trained(config)
    if scored_by(config) is not None:
        model = config.reward.reward_model
        own, per_node = model.enable_resource_pool, model.n_gpus_per_node
        gpus = per_node * model.nnodes if own else workers(config)
        per_node = per_node if own else config.trainer.n_gpus_per_node
        yield "reward.reward_model.rollout", gpus, per_node, model.model_path


def check_replicas(config: DictConfig) -> str | None:
    """The GPUs are divided among copies of vLLM, none of which may be cut by the end of a node."""
    for key, gpus, per_node, model in servers(config):
        node = OmegaConf.select(config, key)
        if node.pipeline_model_parallel_size != 1:
            return f"{key}.pipeline_model_parallel_size={node.pipeline_model_parallel_size}: verl takes only 1."
        tensor, data = node.tensor_model_parallel_size, node.data_parallel_size
        what = f"{key}.tensor_model_parallel_size={tensor}"
        what += f" × data_parallel_size={data}" if data > 1 else ""
        heads = heads_of(model)
        if gpus % (tensor * data):
            best = heads.nearest(tensor, gpus)
            return f"{what} doesn't divide the {gpus} GPUs (lab.hw.tensor_parallel): {best} does."
        if per_node % (tensor * data) and (tensor * data) % per_node:
            return (f"{what} would lie across nodes of {per_node} GPUs (lab.hw.tensor_parallel):"
                    f" {heads.nearest(tensor, per_node)} doesn't.")  # fmt: skip
        backend = (node.engine_kwargs.get("vllm") or {}).get("distributed_executor_backend")
        if tensor * data > 1 and str(backend).endswith("UniProcExecutor"):
            return f"{what}: with hw=cpu vLLM has one process, and would wait for others: set lab.hw.tensor_parallel=1."
    return None


def check_heads(config: DictConfig) -> str | None:
    """vLLM gives each GPU as many of the model's heads."""
    for key, gpus, _, model in servers(config):
        size = OmegaConf.select(config, key).tensor_model_parallel_size
        heads = heads_of(model)
        if not heads.allow(size):
            return (f"{key}.tensor_model_parallel_size={size} (lab.hw.tensor_parallel) doesn't fit the model: {heads}."
                    f" {heads.nearest(size, gpus)} does.")  # fmt: skip
    return None


def check_experts(config: DictConfig) -> str | None:
    """Expert parallelism takes all of a copy's GPUs, and a model that has experts."""
    for key, _, _, model in servers(config):
        node = OmegaConf.select(config, key)
        size, whole = (
            node.expert_parallel_size,
            node.tensor_model_parallel_size * node.data_parallel_size,
        )
        if size in (None, 1):
            continue
        if size != whole:
            return f"{key}.expert_parallel_size={size} must be the GPUs of a copy, tensor × data parallel: {whole}."
        known = facts(model)
        if known and not any(known.get(name) for name in EXPERTS):
            return f"{key}.expert_parallel_size={size}: the model has no experts; leave it out."
    return None


def check_server_batch(config: DictConfig) -> str | None:
    """What vLLM takes in one pass."""
    for key, *_ in servers(config):
        node = OmegaConf.select(config, key)
        tokens, longest = node.max_num_batched_tokens, node.max_model_len
        if tokens < node.max_num_seqs:
            return f"{key}.max_num_batched_tokens={tokens} must be at least max_num_seqs={node.max_num_seqs}."
        if not node.enable_chunked_prefill and longest and tokens < longest:
            return (f"{key}.max_num_batched_tokens={tokens} is less than max_model_len={longest}, and without"
                    f" enable_chunked_prefill a prompt isn't split: set {longest}.")  # fmt: skip
    return None


def check_sleep(config: DictConfig) -> str | None:
    """vLLM gives its memory back by sleeping, which it can on a GPU alone."""
    for key, *_ in servers(config):
        node = OmegaConf.select(config, key)
        if node.free_cache_engine and not node.get("enable_sleep_mode", True):
            return f"{key}.free_cache_engine=true needs enable_sleep_mode=true: lab.hw.free_cache sets both."
        if config.lab.hw.device == "cpu" and (
            node.free_cache_engine or node.get("enable_sleep_mode")
        ):
            return (
                f"{key}.enable_sleep_mode: vLLM can't sleep on a CPU: set lab.hw.free_cache=false."
            )
    return None
