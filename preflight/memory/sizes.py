"""A run's config as the sizes that training.py, vllm.py and step_time.py calculate with."""

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
    """Of the model in a folder or on the hub. Raises UnknownModel."""
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
        shards=fsdp.fsdp_size if fsdp.fsdp_size > 0 else workers_of(config),
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
    cache = OmegaConf.select(rollout, "engine_kwargs.vllm.kv_cache_memory_bytes")
    return Server(
        shape,
        rollout.gpu_memory_utilization if cuda or cache is None else None,
        cache,
        head,
        rank,
        size(rollout.dtype, "bf16"),
        rollout.tensor_model_parallel_size,
        longest,
        rollout.max_num_seqs,
        max(rollout.max_num_batched_tokens, 0 if rollout.enable_chunked_prefill else longest),
        rollout.enforce_eager,
        tuple(rollout.cudagraph_capture_sizes or ()),
        rollout.free_cache_engine,
        cuda,
    )


def workers_of(config: DictConfig) -> int:
    """GPUs of all nodes; processes, on a CPU."""
    return config.trainer.nnodes * config.trainer.n_gpus_per_node


def longest_of(config: DictConfig) -> int:
    """Tokens of the longest sample that must fit into one pass: prompt and answer, a row, or both texts of a pair."""
    if is_rl(config):
        return config.data.max_prompt_length + config.data.max_response_length
    return config.data.max_length * config.lab.trainer.sequences


def setup_of(config: DictConfig) -> Setup:
    """The sizes of a composed config. Raises UnknownModel."""
    return rl(config) if is_rl(config) else without_rl(config)


@dataclass(frozen=True)
class Work:
    """What a step of RL gives the models.

    Args:
        samples: answers of all prompts; n: of one prompt.
        longest: tokens of a prompt and its answer, at most.
        packed: sequences follow each other without padding.
    """

    samples: int
    n: int
    longest: int
    workers: int
    packed: bool

    @classmethod
    def of(cls, config: DictConfig) -> "Work":
        """Read from verl's keys."""
        policy, n = config.actor_rollout_ref, config.actor_rollout_ref.rollout.n
        return cls(
            samples=config.data.train_batch_size * n,
            n=n,
            longest=longest_of(config),
            workers=workers_of(config),
            packed=policy.model.use_remove_padding,
        )

    def inference(self, budget: int) -> int:
        """Tokens of a pass without gradients that may have `budget` of them."""
        rows = math.ceil(self.samples / self.workers)
        return padded(budget, rows, self.longest, self.packed)

    def updates(self, mini_batch: int, budget: int) -> dict[str, int]:
        """Of an update on `mini_batch` prompts: tokens a pass, passes, the longest sequence."""
        rows = math.ceil(mini_batch * self.n / self.workers)
        return {
            "tokens": padded(budget, rows, self.longest, self.packed),
            "passes": math.ceil(rows * self.longest / budget),
            "longest": self.longest,
        }


def rl(config: DictConfig) -> Setup:
    """From the keys of verl's RL trainer."""
    policy, work = config.actor_rollout_ref, Work.of(config)
    actor = policy_of(config, work)
    in_actor = actor.rank > 0  # the reference is the actor without its adapter
    needed = config.algorithm.use_kl_in_reward or policy.actor.use_kl_loss
    return Setup(
        cuda=config.lab.hw.device != "cpu",
        gpus=config.trainer.n_gpus_per_node,
        nodes=config.trainer.nnodes,
        samples=work.samples,
        longest=work.longest,
        prompt=config.data.max_prompt_length,
        epochs=policy.actor.ppo_epochs,
        actor=actor,
        reference=reference_of(policy.ref, actor, work) if needed and not in_actor else None,
        in_actor=in_actor and needed,
        critic=critic_of(config, work) if config.algorithm.adv_estimator == "gae" else None,
        server=server(policy.rollout, actor.shape, config.lab.hw, actor.rank, work.longest),
        scorer=scorer_of(config, work),
        bucket=policy.rollout.checkpoint_engine.update_weights_bucket_megabytes * 2**20,
    )


def policy_of(config: DictConfig, work: Work) -> Engine:
    """The model that is trained."""
    policy = config.actor_rollout_ref
    actor, rollout, dynamic = policy.actor, policy.rollout, policy.actor.use_dynamic_bsz
    return engine(
        config,
        policy.model,
        actor.fsdp_config,
        "lm",
        infer_tokens=work.inference(tokens_of(rollout, "log_prob_", work.longest, dynamic)),
        entropy=bool(actor.entropy_coeff or actor.calculate_entropy),
        scaled=rollout.temperature != 1,
        **work.updates(actor.ppo_mini_batch_size, tokens_of(actor, "ppo_", work.longest, dynamic)),
    )


def reference_of(ref: DictConfig, actor: Engine, work: Work) -> Engine:
    """The actor's frozen copy."""
    budget = tokens_of(ref, "log_prob_", work.longest, ref.log_prob_use_dynamic_bsz)
    return replace(actor, frozen=True, infer_tokens=work.inference(budget))


def critic_of(config: DictConfig, work: Work) -> Engine:
    """The value model. One budget is for its updates as well: verl/trainer/ppo/v1/trainer_base.py."""
    critic, budget = config.critic, config.critic.ppo_infer_max_token_len_per_gpu
    return engine(
        config,
        critic.model,
        critic.fsdp,
        "value",
        infer_tokens=work.inference(budget),
        **work.updates(critic.ppo_mini_batch_size, budget),
    )


def scorer_of(config: DictConfig, work: Work) -> Server | None:
    """A reward model on the same GPUs; None without one, or if it has GPUs of its own."""
    model = config.reward.reward_model
    if not model.enable or model.enable_resource_pool:
        return None
    longest = model.rollout.max_model_len or work.longest
    return server(model.rollout, shape_of(model.model_path), config.lab.hw, 0, longest, "value")


def without_rl(config: DictConfig) -> Setup:
    """From the keys of verl's SFT trainer, and of those of algos/ on it."""
    data, trainer = config.data, config.lab.trainer
    rows = math.ceil(data.train_batch_size / workers_of(config)) * trainer.sequences
    budget = (
        data.max_token_len_per_gpu
        if data.use_dynamic_bsz
        else data.micro_batch_size_per_gpu * data.max_length
    )
    tokens = padded(budget, rows, data.max_length, config.model.use_remove_padding)
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
    reference = OmegaConf.select(config, "dpo.reference")
    return Setup(
        cuda=config.lab.hw.device != "cpu",
        gpus=config.trainer.n_gpus_per_node,
        nodes=config.trainer.nnodes,
        samples=data.train_batch_size,
        longest=longest_of(config),
        prompt=0,
        epochs=1,
        actor=actor,
        reference=replace(actor, frozen=True, rank=0) if reference == "engine" else None,
        in_actor=reference == "adapter",
    )
