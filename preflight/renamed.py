"""Keys as earlier releases of verl called them, and what verl 0.9.1 calls them.

Most keys only moved: the same last names stand at another place of verl's tree, and `moved` finds them there. RENAMED
has those that got another name, by the config trees of verl 0.3 to 0.9.1; GONE those without a successor.
"""

from collections.abc import Iterable

A = "actor_rollout_ref"
LEGACY = (
    "custom_reward_function",
    "reward_model",
    "sandbox_fusion",
)  # roots that verl has, and never reads
RENAMED = {  # an old key, or the start of one → the new one
    "custom_reward_function": "reward.custom_reward_function",
    "reward_model.model.path": "reward.reward_model.model_path",
    "reward_model.reward_manager": "reward.reward_manager.name",
    "reward_model.reward_kwargs": "reward.reward_kwargs",
    "reward_model.sandbox_fusion": "reward.sandbox_fusion",
    "reward_model.num_workers": "reward.num_workers",
    "reward_model.inference": "reward.reward_model.rollout",
    "reward_model": "reward.reward_model",
    "sandbox_fusion": "reward.sandbox_fusion",
    "ray_init": "ray_kwargs.ray_init",
    f"{A}.actor.checkpoint.contents": f"{A}.actor.checkpoint.save_contents",
    "critic.checkpoint.contents": "critic.checkpoint.save_contents",
    f"{A}.rollout.multi_turn.max_turns": f"{A}.rollout.multi_turn.max_assistant_turns",
    f"{A}.model.torch_dtype": f"{A}.actor.fsdp_config.model_dtype",
    f"{A}.model.fsdp_config": f"{A}.actor.fsdp_config",
    f"{A}.actor.fsdp_config.torch_dtype": f"{A}.actor.fsdp_config.model_dtype",
    "critic.model.fsdp_config": "critic.fsdp",
    "trainer.val_generations_to_log_to_wandb": "trainer.log_val_generations",
    "trainer.profile_steps": "global_profiler.steps",
    "trainer.resume_path": "trainer.resume_from_path",
    # of the SFT trainer
    "data.micro_batch_size": "data.micro_batch_size_per_gpu",
    "model.partial_pretrain": "model.path",
    "model.fsdp_config.cpu_offload": "engine.param_offload",
    "model.fsdp_config.offload_params": "engine.param_offload",
    "model.fsdp_config": "engine",
    "optim.lr_scheduler": "optim.lr_scheduler_type",
    "optim.warmup_steps_ratio": "optim.lr_warmup_steps_ratio",
    "optim.warmup_style": "optim.lr_scheduler_type",
    "model.strategy": "engine.strategy",
}  # fmt: skip
CONVERSATIONS = (
    "SFT reads conversations now (data.messages_key): `python -m data_prep jsonl FILE` makes them"
)
BRANCH = (
    "reward_model"  # of this one many keys have no successor: the others are those that are there
)
GONE = {  # an old key, or the start of one → why there is none in its place
    "trainer.use_legacy_worker_impl": "there is one kind of worker",
    "trainer.controller_nsight_options": "", "trainer.worker_nsight_options": "", "trainer.npu_profile": "",
    f"{A}.actor.use_gpg_loss": f"set {A}.actor.policy_loss.loss_mode=gpg",
    f"{A}.rollout.chat_scheduler": "agents take its place", f"{A}.rollout.use_fire_sampling": "",
    f"{A}.actor.router_replay": "", f"{A}.ref.router_replay": "",
    f"{A}.rollout.multi_turn.interaction_config_path": "agents take its place",
    f"{A}.rollout.multi_turn.completion_callback": "agents take its place",
    "reward_model.strategy": "vLLM serves the reward model", "reward_model.use_dynamic_bsz": "vLLM serves it",
    "reward_model.micro_batch_size": "vLLM serves it", "reward_model.micro_batch_size_per_gpu": "vLLM serves it",
    "reward_model.forward_max_token_len_per_gpu": "vLLM serves it", "reward_model.max_length": "vLLM serves it",
    "reward_model.ulysses_sequence_parallel_size": "vLLM serves it", "reward_model.profiler": "",
    "reward_model.model": "vLLM serves the reward model", "reward_model.launch_reward_fn_async": "it always does",
    "reward_model.use_reward_loop": "it always does",
    "data.prompt_dict_keys": CONVERSATIONS, "data.response_dict_keys": CONVERSATIONS,
    "data.prompt_key": CONVERSATIONS, "data.response_key": CONVERSATIONS, "data.multiturn.enable": CONVERSATIONS,
    "data.chat_template": "set lab.model.path to a model with the template",
}  # fmt: skip


def _longest(key: str, table: dict[str, str]) -> str | None:
    """The longest entry that is the key, or the start of it."""
    fitting = [old for old in table if key == old or key.startswith(f"{old}.")]
    return max(fitting, key=len, default=None)


def renamed(key: str, known: Iterable[str] = ()) -> str | None:
    """The name in RENAMED of a key of an earlier release; None if it is not there.

    Args:
        key: dotted, as `critic.model.fsdp_config.param_offload`.
        known: keys that there are; without them nobody looks whether the new one is among them.
    """
    known = set(known)
    old, gone = _longest(key, RENAMED), _longest(key, GONE)
    if old is None or (gone and len(gone) > len(old)):
        return None
    new = RENAMED[old] + key.removeprefix(old)
    if old != BRANCH or not known or new in known:
        return new
    return moved(new, known)


def moved(key: str, known: Iterable[str]) -> str | None:
    """The one key with the same last name that has most of the other names, too; None if two have as many.

    A name alone says little (`path`, `mode`): the one above it must be there as well, or it must be a long one.
    """
    known = set(known)
    *above, last = key.split(".")
    there = [other for other in known if other.rpartition(".")[2] == last and other != key]
    if "_" not in last:
        there = [other for other in there if above and above[-1] in other.split(".")[:-1]]
    shared = {other: len(set(above) & set(other.split(".")[:-1])) for other in there}
    most = max(shared.values(), default=0)
    best = [other for other, count in shared.items() if count == most]
    is_root_gone = not above or above[0] not in {other.partition(".")[0] for other in known}
    return best[0] if len(best) == 1 and (most or is_root_gone) else None


def why_gone(key: str) -> str | None:
    """Why a key of verl has no equivalent ("" if there's nothing to say); None if it isn't such a key."""
    if "megatron" in key.split("."):
        return "this project trains with FSDP"
    old, gone = _longest(key, RENAMED), _longest(key, GONE)
    return GONE[gone] if gone and (old is None or len(gone) > len(old)) else None
