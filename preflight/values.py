"""Values that verl refuses when it builds its dataclasses, or at the first use, after minutes."""

from omegaconf import DictConfig, ListConfig, OmegaConf

from preflight.engines import A
from preflight.mistakes import unknown

COUNTS = {  # key → the least; null where it may be
    "data.train_batch_size": 1, "data.max_prompt_length": 1, "data.max_response_length": 1, "data.max_length": 1,
    "data.max_token_len_per_gpu": 1, "data.dataloader_num_workers": 0, "data.num_workers": 0,
    f"{A}.actor.ppo_mini_batch_size": 1, f"{A}.actor.ppo_epochs": 1, f"{A}.actor.ppo_max_token_len_per_gpu": 1,
    f"{A}.rollout.n": 1, f"{A}.rollout.val_kwargs.n": 1, f"{A}.rollout.max_num_seqs": 1,
    f"{A}.rollout.max_num_batched_tokens": 1, f"{A}.rollout.tensor_model_parallel_size": 1,
    f"{A}.rollout.data_parallel_size": 1, f"{A}.rollout.pipeline_model_parallel_size": 1,
    f"{A}.rollout.agent.num_workers": 1, f"{A}.rollout.checkpoint_engine.update_weights_bucket_megabytes": 0,
    f"{A}.actor.ulysses_sequence_parallel_size": 1, f"{A}.actor.fsdp_config.ulysses_sequence_parallel_size": 1,
    "critic.ppo_mini_batch_size": 1, "critic.ppo_epochs": 1, "critic.fsdp.ulysses_sequence_parallel_size": 1,
    "engine.ulysses_sequence_parallel_size": 1, f"{A}.model.lora_rank": 0, "model.lora_rank": 0,
    "reward.num_workers": 1, "transfer_queue.backend.SimpleStorage.num_data_storage_units": 1,
    "trainer.nnodes": 1, "trainer.n_gpus_per_node": 1, "trainer.total_epochs": 1,
    "lab.epochs": 1, "lab.mini_batches": 1, "lab.show_samples": 0,
}  # fmt: skip
MAY_BE_NULL = {
    f"{A}.rollout.max_model_len": 1, f"{A}.rollout.log_prob_micro_batch_size_per_gpu": 1,
    f"{A}.ref.log_prob_micro_batch_size_per_gpu": 1, f"{A}.actor.ppo_micro_batch_size_per_gpu": 1,
    "critic.ppo_micro_batch_size_per_gpu": 1, "data.micro_batch_size_per_gpu": 1, "trainer.total_training_steps": 1,
    "algorithm.filter_groups.max_inflight_gen_batches": 1, "trainer.v1.sampler.max_off_policy_threshold": 1,
}  # fmt: skip

_KL = ("kl", "k1", "abs", "mse", "k2", "low_var_kl", "k3")
KINDS_OF_KL = (*_KL, *(f"{kind}+" for kind in _KL))
LOSSES = ("token-mean", "token-sum",
          "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm")  # fmt: skip
STRATEGIES, SCHEDULES = ("fsdp2", "fsdp"), ("constant", "cosine")
CONTENTS = ("model", "optimizer", "extra", "hf_model")
CHOICES = {
    f"{A}.actor.strategy": STRATEGIES, f"{A}.ref.strategy": STRATEGIES, "critic.strategy": STRATEGIES,
    "engine.strategy": STRATEGIES,
    f"{A}.actor.loss_agg_mode": LOSSES, "critic.loss_agg_mode": LOSSES,
    f"{A}.actor.kl_loss_type": KINDS_OF_KL, "algorithm.kl_penalty": KINDS_OF_KL,
    "algorithm.kl_ctrl.type": ("fixed", "adaptive"),
    f"{A}.actor.optim.lr_scheduler_type": SCHEDULES, "critic.optim.lr_scheduler_type": SCHEDULES,
    "optim.lr_scheduler_type": SCHEDULES,
    f"{A}.actor.checkpoint.save_contents": CONTENTS, "critic.checkpoint.save_contents": CONTENTS,
    "checkpoint.save_contents": CONTENTS,
    f"{A}.rollout.name": ("vllm", "sglang", "trtllm"), f"{A}.rollout.mode": ("async",),
    f"{A}.rollout.dtype": ("auto", "half", "float16", "bfloat16", "float", "float32"),
    f"{A}.model.fused_kernel_options.impl_backend": ("torch", "triton", "liger"),
    "data.pad_mode": ("no_padding",), "trainer.resume_mode": ("auto", "disable", "resume_path"),
    "trainer.logger": ("console", "file", "wandb", "mlflow", "swanlab", "vemlp_wandb", "tensorboard", "clearml",
                       "trackio", "rl_insight"),
    "trainer.v1.trainer_mode": ("sync", "colocate_async", "separate_async"),
    "trainer.v1.sampler.max_off_policy_strategy": ("drop", "wait"),
    "reward.reward_manager.source": ("register", "importlib"),
    "lab.step_rewards": ("auto", True, False),
}  # fmt: skip
DTYPES = ("fp32", "bf16", "fp16", "float32", "bfloat16", "float16")
CHOICES |= {
    f"{fsdp}.{key}": DTYPES
    for fsdp in (f"{A}.actor.fsdp_config", f"{A}.ref.fsdp_config", "critic.fsdp", "engine")
    for key in ("model_dtype", "mixed_precision.param_dtype", "mixed_precision.reduce_dtype")
}

SHARE = ("above 0 and at most 1", lambda x: 0 < x <= 1)
FROM_0_TO_1 = ("from 0 to 1", lambda x: 0 <= x <= 1)
ABOVE_0, FROM_0 = ("above 0", lambda x: x > 0), ("0 or more", lambda x: x >= 0)
RANGES = {
    f"{A}.rollout.gpu_memory_utilization": SHARE,
    f"{A}.rollout.top_p": SHARE, f"{A}.rollout.val_kwargs.top_p": SHARE,
    f"{A}.rollout.temperature": ("from 0 to 2", lambda x: 0 <= x <= 2),
    f"{A}.rollout.val_kwargs.temperature": ("from 0 to 2", lambda x: 0 <= x <= 2),
    f"{A}.rollout.top_k": ("-1 (all) or more", lambda x: x >= -1),
    f"{A}.rollout.val_kwargs.top_k": ("-1 (all) or more", lambda x: x >= -1),
    f"{A}.actor.clip_ratio_c": ("above 1", lambda x: x > 1),
    f"{A}.actor.policy_loss.clip_cov_ratio": ABOVE_0, f"{A}.actor.policy_loss.kl_cov_ratio": ABOVE_0,
    f"{A}.actor.policy_loss.dro_beta": ABOVE_0,
    f"{A}.actor.optim.lr": FROM_0, "critic.optim.lr": FROM_0, "optim.lr": FROM_0,
    f"{A}.actor.optim.min_lr_ratio": FROM_0_TO_1, "critic.optim.min_lr_ratio": FROM_0_TO_1,
    "optim.min_lr_ratio": FROM_0_TO_1, f"{A}.actor.optim.lr_warmup_steps_ratio": FROM_0_TO_1,
    "optim.lr_warmup_steps_ratio": FROM_0_TO_1,
    "algorithm.gamma": FROM_0_TO_1, "algorithm.lam": FROM_0_TO_1, "algorithm.kl_ctrl.horizon": ABOVE_0,
    "trainer.v1.separate_async.hybrid_rollout.switch_threshold_ratio": SHARE,
}  # fmt: skip


def number(value) -> bool:
    """Whether a value is a number; true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def bad_count(config: DictConfig) -> str | None:
    """A number that is not whole, or too small; arithmetic with it would mean nothing."""
    for key, least in (COUNTS | MAY_BE_NULL).items():
        parent, _, name = key.rpartition(".")
        node = OmegaConf.select(config, parent)
        if node is None or name not in node:
            continue  # of the other trainer
        value = node[name]
        if value is None and key in MAY_BE_NULL:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            return f"{key}={value} must be a whole number, {least} or more."
    return None


def bad_choice(config: DictConfig) -> str | None:
    """A word that is not in a list of verl's; verl would only ignore some of them."""
    for key, known in CHOICES.items():
        given = OmegaConf.select(config, key)
        for value in given if isinstance(given, ListConfig) else [given]:
            if value is not None and value not in known:
                return unknown(key, str(value), known)
    return None


def out_of_range(config: DictConfig) -> str | None:
    """A number outside of what it can mean."""
    for key, (words, holds) in RANGES.items():
        value = OmegaConf.select(config, key)
        if value is not None and not (number(value) and holds(value)):
            return f"{key}={value} must be {words}."
    return None


def unusable(config: DictConfig) -> str | None:
    """What is wrong with single values, with which nobody can calculate; None if nothing is."""
    return bad_count(config) or bad_choice(config) or out_of_range(config)
