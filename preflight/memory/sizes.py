"""A run's config as the sizes that memory.py and estimate.py calculate with."""

import math
from dataclasses import dataclass, replace

from omegaconf import DictConfig, OmegaConf

from preflight.facts import is_rl
from preflight.memory.training import Engine
from preflight.memory.vllm import Server
from preflight.models import Shape, UnknownModel, facts_of

BYTES = {"fp32": 4, "float32": 4, "bf16": 2, "bfloat16": 2, "fp16": 2, "float16": 2}
FILL = 0.6  # assumed: where sequences are padded to the longest, they are so much of it on average


@dataclass(frozen=True)
class Setup:
    """The models of a run, and what it gives them to do. A part that the run doesn't have is None.

    Args:
        gpus, nodes: GPUs of a node (workers, on a CPU).
        samples: answers, pairs or rows of a step. longest: their tokens, at most; of a pair, of both together.
        prompt: of these the prompt's. epochs: times that a step trains on each.
        reference: a frozen copy; in_actor: it is the actor without its adapter.
        bucket: bytes of the buffer through which weights go to vLLM.
        scorer: a reward model's server that takes turns with the others on the same GPUs.
    """

    cuda: bool
    gpus: int
    nodes: int
    samples: int
    longest: int
    prompt: int
    epochs: int
    actor: Engine
    reference: Engine | None = None
    in_actor: bool = False
    critic: Engine | None = None
    server: Server | None = None
    scorer: Server | None = None
    bucket: int = 0

    @property
    def workers(self) -> int:
        return self.gpus * self.nodes


def shape_of(path: str) -> Shape:
    """Raises UnknownModel."""
    facts = facts_of(path)
    if facts is None:
        raise UnknownModel(
            f"nothing is known of {path}: no folder, not in the hub's cache, not in conf/model"
        )
    return Shape.of(facts)


def size(name: str | None, otherwise: str = "fp32") -> int:
    """Bytes of a number of that type."""
    return BYTES[name or otherwise]


def padded(tokens: int, rows: int, longest: int, packed: bool) -> int:
    """Tokens of a pass that gets `tokens` of `rows` sequences."""
    if packed:
        return min(tokens, rows * longest)
    return min(int(tokens / FILL), rows * longest)


def engine(
    config: DictConfig, model: DictConfig, fsdp: DictConfig, head: str, **settings
) -> Engine:
    """What the actor, the critic, and the trainers without RL have in common."""
    workers = config.trainer.nnodes * config.trainer.n_gpus_per_node
    attention = OmegaConf.select(
        model, "override_config.attn_implementation", default="flash_attention_2"
    )
    cuda = config.lab.hw.device != "cpu"
    compute = size(OmegaConf.select(fsdp, "mixed_precision.param_dtype"), "bf16")
    chunking = OmegaConf.select(fsdp, "entropy_from_logits_with_chunking")
    return Engine(
        shape_of(model.path),
        head,
        rank=model.lora_rank,
        w=size(fsdp.model_dtype),
        c=compute,
        shards=fsdp.fsdp_size if fsdp.fsdp_size > 0 else workers,
        param_offload=fsdp.param_offload and cuda,
        optimizer_offload=fsdp.optimizer_offload and cuda,
        checkpointing=model.enable_gradient_checkpointing,
        packed=model.use_remove_padding,
        flash=attention.startswith("flash"),
        masked=not attention.startswith("flash"),
        deferred=OmegaConf.select(fsdp, "use_no_sync_for_gradient_accumulation", default=True),
        chunk=fsdp.entropy_from_logits_chunk_size if chunking else None,
        compiled=bool(fsdp.use_torch_compile),
        softmax=4 if cuda else compute,
        foreach=cuda,
        cuda=cuda,
        **settings,
    )


def tokens_of(node: DictConfig, prefix: str, longest: int, dynamic: bool) -> int:
    """Tokens of a pass by verl's keys: PREFIXmax_token_len_per_gpu, or micro batches of whole sequences."""
    if dynamic:
        return node[f"{prefix}max_token_len_per_gpu"]
    return (node[f"{prefix}micro_batch_size_per_gpu"] or 1) * longest


def server(
    rollout: DictConfig, shape: Shape, hw: DictConfig, rank: int, longest: int, head: str = "lm"
) -> Server:
    """From verl's keys of a rollout."""
    cuda = hw.device != "cpu"
    return Server(
        shape,
        rollout.gpu_memory_utilization if cuda else None,
        OmegaConf.select(rollout, "engine_kwargs.vllm.kv_cache_memory_bytes"),
        head,
        rank,
        size(rollout.dtype, "bf16"),
        rollout.tensor_model_parallel_size,
        longest,
        rollout.max_num_seqs,
        max(rollout.max_num_batched_tokens, 0 if rollout.enable_chunked_prefill else longest),
        rollout.enforce_eager,
        rollout.free_cache_engine,
        cuda,
    )


def setup_of(config: DictConfig) -> Setup:
    """The sizes of a composed config. Raises UnknownModel."""
    if not is_rl(config):
        return without_rl(config)
    return rl(config)


def rl(config: DictConfig) -> Setup:
    """The keys of verl's RL trainer."""
    policy, data, hw = config.actor_rollout_ref, config.data, config.lab.hw
    actor, rollout = policy.actor, policy.rollout
    longest = data.max_prompt_length + data.max_response_length
    workers = config.trainer.nnodes * config.trainer.n_gpus_per_node
    samples = data.train_batch_size * rollout.n
    packed, dynamic = policy.model.use_remove_padding, actor.use_dynamic_bsz
    infer = tokens_of(rollout, "log_prob_", longest, dynamic)

    def passes(node: DictConfig, budget: int) -> dict:
        mine = math.ceil(node.ppo_mini_batch_size * rollout.n / workers)
        return {
            "tokens": padded(budget, mine, longest, packed),
            "passes": math.ceil(mine * longest / budget),
            "longest": longest,
        }

    rows = math.ceil(samples / workers)
    trained_policy = engine(
        config,
        policy.model,
        actor.fsdp_config,
        "lm",
        infer_tokens=padded(infer, rows, longest, packed),
        entropy=bool(actor.entropy_coeff or actor.calculate_entropy),
        scaled=rollout.temperature != 1,
        **passes(actor, tokens_of(actor, "ppo_", longest, dynamic)),
    )
    in_actor = trained_policy.rank > 0
    needed = config.algorithm.use_kl_in_reward or actor.use_kl_loss
    reference = None
    if needed and not in_actor:
        budget = tokens_of(policy.ref, "log_prob_", longest, policy.ref.log_prob_use_dynamic_bsz)
        frozen = {"frozen": True, "infer_tokens": padded(budget, rows, longest, packed)}
        reference = replace(trained_policy, **frozen)
    critic = None
    if config.algorithm.adv_estimator == "gae":
        # for updates as well: verl/trainer/ppo/v1/trainer_base.py
        budget = config.critic.ppo_infer_max_token_len_per_gpu
        critic = engine(
            config,
            config.critic.model,
            config.critic.fsdp,
            "value",
            infer_tokens=padded(budget, rows, longest, packed),
            **passes(config.critic, budget),
        )
    shared = config.reward.reward_model
    scorer = None
    if shared.enable and not shared.enable_resource_pool:
        longest_scored = shared.rollout.max_model_len or longest
        scorer = server(shared.rollout, shape_of(shared.model_path), hw, 0, longest_scored, "value")
    return Setup(
        cuda=hw.device != "cpu",
        gpus=config.trainer.n_gpus_per_node,
        nodes=config.trainer.nnodes,
        samples=samples,
        longest=longest,
        prompt=data.max_prompt_length,
        epochs=actor.ppo_epochs,
        actor=trained_policy,
        reference=reference,
        in_actor=in_actor and needed,
        critic=critic,
        server=server(rollout, trained_policy.shape, hw, trained_policy.rank, longest),
        scorer=scorer,
        bucket=rollout.checkpoint_engine.update_weights_bucket_megabytes * 2**20,
    )


def without_rl(config: DictConfig) -> Setup:
    """The keys of verl's SFT trainer, and of those of algos/ on it."""
    data, trainer = config.data, config.lab.trainer
    each = trainer.sequences
    workers = config.trainer.nnodes * config.trainer.n_gpus_per_node
    rows = math.ceil(data.train_batch_size / workers) * each
    packed = config.model.use_remove_padding
    budget = (
        data.max_token_len_per_gpu
        if data.use_dynamic_bsz
        else data.micro_batch_size_per_gpu * data.max_length
    )
    tokens = padded(budget, rows, data.max_length, packed)
    actor = engine(
        config,
        config.model,
        config.engine,
        trainer.head,
        tokens=tokens,
        infer_tokens=tokens,
        passes=math.ceil(rows * data.max_length / budget),
        longest=data.max_length,
    )
    dpo = OmegaConf.select(config, "dpo.reference")
    return Setup(
        cuda=config.lab.hw.device != "cpu",
        gpus=config.trainer.n_gpus_per_node,
        nodes=config.trainer.nnodes,
        samples=data.train_batch_size,
        longest=data.max_length * each,
        prompt=0,
        epochs=1,
        actor=actor,
        reference=replace(actor, frozen=True, rank=0) if dpo == "engine" else None,
        in_actor=dpo == "adapter",
    )
