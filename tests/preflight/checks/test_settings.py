"""What preflight says about values, schedules, corrections, adapters, and keys that nobody reads."""

import json

import pytest
from checkpoints import save_step
from omegaconf import OmegaConf
from preflight_helpers import all_checks, caught, each, noted, said_by

from preflight.checks.knobs import HARMLESS, HARMLESS_TO_SFT, UNREAD, UNREAD_BY_SFT

A = "actor_rollout_ref"
ROLLOUT, ACTOR = f"{A}.rollout", f"{A}.actor"
CORRECT = "algorithm.rollout_correction"
ASYNC = ["trainer.v1.trainer_mode=separate_async", "trainer.v1.separate_async.parameter_sync_step=2",
         f"{ACTOR}.ppo_mini_batch_size=8", f"{ROLLOUT}.nnodes=1",
         f"{ROLLOUT}.checkpoint_engine.backend=nccl"]  # fmt: skip
RM = [
    "reward=model",
    "lab.reward_model.path=org/x",
    "reward.reward_model.enable_resource_pool=false",
]
# check → cases: overrides, and what the line must say
MISTAKES = {
    "check_values": [
        ([f"{ACTOR}.loss_agg_mode=token-mena"], "Did you mean token-mean?"),
        ([f"{ACTOR}.kl_loss_type=full"], "There is: "),
        ([f"{ACTOR}.checkpoint.save_contents=[model,optimiser]"], "Did you mean optimizer?"),
        (["algo=sft", "data.pad_mode=right"], "There is: no_padding"),
        (["algo=sft", "optim.lr_scheduler_type=linear"], "There is: constant, cosine"),
        (["lab.hw.weights_dtype=fp8"], "unknown lab.hw.weights_dtype 'fp8'"),
        (["trainer.logger=[console,wandbb]"], "Did you mean wandb?"),
        (["lab.step_rewards=sometimes"], "There is: False, True, auto"),
        ([f"{ACTOR}.clip_ratio_c=1"], "must be above 1"),
        (["lab.hw.rollout_memory=50"], "must be above 0 and at most 1"),
        ([f"{ROLLOUT}.top_p=0"], "top_p=0 must be above 0"),
        ([f"{ACTOR}.optim.lr=fast"], "lr=fast must be a number"),
    ],
    "check_frequencies": [
        (["algo=sft", "trainer.save_freq=0"], "-1 (never) or after_each_epoch"),
        (["trainer.test_freq=after_each_epoch"], "must be a number of steps, or -1"),
    ],
    "check_steps_are_reached": [
        (["trainer.total_training_steps=100", "trainer.total_epochs=2"], "2 of 200 rows end after 24"),
        (["algo=sft", "trainer.total_training_steps=100", "trainer.total_epochs=1"], "end after 6"),
    ],
    "check_validation": [
        (["lab.dataset.val=null"], "verl always reads validation rows"),
        (["algo=sft", "lab.dataset.sft_val=null"], "set it to -1"),
        (["trainer.val_only=true", "trainer.val_before_train=false"], "needs trainer.val_before_train=true"),
    ],
    "check_resume": [
        (["trainer.resume_mode=resume_path"], "needs trainer.resume_from_path"),
        (["trainer.resume_from_path=/x/global_step_3"], "does nothing with trainer.resume_mode=auto"),
        (["trainer.resume_mode=resume_path", "trainer.resume_from_path=/x/global_step_3"],
         "is not the folder of a checkpoint"),
    ],
    "check_v1": [(["trainer.use_v1=false"], "verl's old trainer")],
    "check_async": [
        ([*ASYNC, f"{ACTOR}.ppo_mini_batch_size=16"], "needs data.train_batch_size=16 to be"),
        ([*ASYNC, f"{ROLLOUT}.nnodes=0"], "nodes of its own"),
        ([*ASYNC, f"{ROLLOUT}.checkpoint_engine.backend=naive"], "backend=nccl"),
        ([*ASYNC, *RM], "lab.reward_model.gpus=1"),
    ],
    "check_filter_groups": [
        (["algo=dapo", "algorithm.filter_groups.metric=null"], "needs algorithm.filter_groups.metric"),
        (["algo=dapo", *RM], "this reward model scores later"),
        (["algo=dapo", f"{ROLLOUT}.n=1"], "as always with actor_rollout_ref.rollout.n=1: set n=8"),
        (["algo=dapo", "trainer.v1.sampler.custom_sampler.path=x.py"], "leave one of the two out"),
    ],
    "check_profile": [
        (["algo=sft", "trainer.profile_interval=[5,2]"], "the first and the last step"),
        (["algo=sft", "trainer.profile_interval=[-1,2]"], "the first and the last step"),
    ],
    "check_statistics": [([f"{ROLLOUT}.prometheus.enable=true"], "disable_log_stats=false")],
    "check_squares": [
        (["algo=otb", f"{A}.model.use_fused_kernels=true"], "use_fused_kernels=true: set one to false"),
    ],
    "check_overlong": [
        (["algo=dapo", "reward.reward_kwargs.overlong_buffer_cfg.len=100"], "must be from 1 to"),
    ],
    "check_optional_packages": [
        ([f"{ACTOR}.optim.optimizer_impl=bitsandbytes.optim"], "needs the package bitsandbytes"),
        (["algo=sft", "model.use_liger=true"], "needs the package liger_kernel"),
    ],
    "check_devices": [
        (["trainer.device=cuda"], "the profile is for cpu: choose another hw="),
        (["algo=sft", "trainer.n_gpus_per_node=2"], "lab.hw.gpus_per_node=1 workers start"),
    ],
    "check_weights": [
        ([f"{CORRECT}.rollout_is=tokens"], "Did you mean token?"),
        ([f"{CORRECT}.rollout_is=token", f"{CORRECT}.rollout_is_threshold=-1"], "a number above 0, or two"),
        ([f"{CORRECT}.rollout_is=token", f"{CORRECT}.rollout_is_threshold='2.0_0.5'"], "or two: 0.5_2.0"),
    ],
    "check_rejections": [
        ([f"{CORRECT}.rollout_rs=token_k4"], "unknown algorithm.rollout_correction.rollout_rs"),
        ([f"{CORRECT}.rollout_rs=token_k2"], "rollout_rs_threshold=None must be"),
        ([f"{CORRECT}.rollout_rs=token_k2", f"{CORRECT}.rollout_rs_threshold='0.5_2'"], "takes one number"),
        ([f"{CORRECT}.rollout_rs=seq_mean_k1", f"{CORRECT}.rollout_rs_threshold=0.5"], "must be 1 or more"),
        ([f"{CORRECT}.rollout_rs='token_k1,token_k2'", f"{CORRECT}.rollout_rs_threshold='2,2,2'"], "one for each of"),
    ],
    "check_corrections_act": [
        ([f"{CORRECT}.bypass_mode=true", f"{ROLLOUT}.calculate_log_probs=false"], "calculate_log_probs=true"),
        ([f"{CORRECT}.rollout_is=token", f"{CORRECT}.bypass_mode=true"], "does nothing with bypass_mode=true"),
        ([f"{ACTOR}.policy_loss.loss_mode=bypass_mode"], "set algorithm.rollout_correction.bypass_mode=true"),
    ],
    "check_unread": [
        ([f"{ACTOR}.grad_clip=0.5"], f"set {ACTOR}.optim.clip_grad"),
        ([f"{ROLLOUT}.val_kwargs.do_sample=true"], "val_kwargs.temperature"),
        (["algo=sft", "data.balance_dp_token=true"], "does nothing: verl 0.9.1 never reads it."),
        (
            [f"{ACTOR}.grad_clip=0.5", f"{ACTOR}.use_prefix_grouper=true"],
            f"2 settings do nothing: {ACTOR}.grad_clip (set {ACTOR}.optim.clip_grad); {ACTOR}.use_prefix_grouper (",
        ),
        ([f"{ACTOR}.ppo_micro_batch_size_per_gpu=4"], "batches are dynamic: lab.hw.tokens_per_gpu"),
        (["algo=sft", "data.micro_batch_size_per_gpu=4"], "batches are dynamic"),
        (["algo=ppo", "critic.ppo_max_token_len_per_gpu=99"], "set critic.ppo_infer_max_token_len_per_gpu"),
        (["data.truncation=left", "data.filter_overlong_prompts=false"], "set data.filter_overlong_prompts=true"),
    ],
    "check_padding": [([f"{ACTOR}.pad_to_length=true"], "it pads only packed sequences")],
    "check_critic": [
        (["critic.optim.lr=1e-3"], "grpo has no critic"),
        (["algo=ppo", "critic.enable=false"], "gae needs the values of a critic"),
        (["trainer.critic_warmup=5"], "only delays the actor"),
    ],
    "check_lora_rank": [
        (["lab.lora_rank=600"], "up to a rank of 512"),
        ([f"{A}.model.lora.rank=8"], "set lab.lora_rank"),
        (["algo=sft", "model.lora.rank=8"], "set lab.lora_rank"),
    ],
    "check_base_weights": [
        (["lab.lora_rank=8", f"{ROLLOUT}.load_format=dummy"], "no base weights for an adapter"),
        ([f"{ROLLOUT}.layered_summon=true"], "does nothing without an adapter"),
    ],
}  # fmt: skip


test_each_mistake_is_found = each(MISTAKES)


@pytest.mark.parametrize(
    "overrides",
    [
        ASYNC,
        ["algo=dapo", "algorithm.filter_groups.metric=acc"],
        ["algo=ppo", "trainer.critic_warmup=5", "trainer.total_training_steps=100"],
        ["algo=sft", "lab.dataset.sft_val=null", "trainer.test_freq=-1"],
        ["algo=dpo", "lab.dataset.pref_val=null"],
        ["trainer.total_training_steps=100", "trainer.total_epochs=9"],
        [f"{CORRECT}.rollout_is=token", f"{CORRECT}.rollout_is_threshold='0.5_2.0'"],
        [f"{CORRECT}.rollout_rs='token_k1,seq_mean_k3'", f"{CORRECT}.rollout_rs_threshold='0.5_2.0,0.1'"],
        [f"{CORRECT}.bypass_mode=true", f"{ACTOR}.policy_loss.loss_mode=bypass_mode"],
        ["lab.lora_rank=8"],
        ["lab.lora_rank=8", f"{A}.model.lora.merge=true", f"{ROLLOUT}.load_format=dummy"],
        [f"{ACTOR}.kl_loss_type=low_var_kl+", f"{ROLLOUT}.val_kwargs.temperature=1"],
    ],
)  # fmt: skip
def test_good_settings_pass(configure, overrides):
    config = configure(*overrides)
    assert said_by(MISTAKES, config) == {}


def test_a_checkpoint_to_go_on_from(configure, tmp_path):
    save_step(tmp_path / "global_step_3")
    path = f"trainer.resume_from_path={tmp_path}/global_step_3"
    assert all_checks()["check_resume"](configure("trainer.resume_mode=resume_path", path)) is None


def test_an_adapter_to_start_from(configure, tmp_path):
    key = f"{A}.model.lora_adapter_path={tmp_path}"
    check = all_checks()["check_adapter"]
    no_rank = configure(key, "lab.lora_rank=8")
    assert "no adapter_config.json there" in caught("check_adapter", no_rank)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 8}))
    assert check(configure(key, "lab.lora_rank=8")) is None
    assert "set lab.lora_rank=8, the adapter's" in check(configure(key))
    assert "has a rank of 8: set that rank" in check(configure(key, "lab.lora_rank=16"))
    assert check(configure()) is None


def test_keys_that_nobody_reads_are_keys(configure):
    """A typing error here would let a dead knob pass."""
    sft = UNREAD_BY_SFT | HARMLESS_TO_SFT
    for config, keys in ((configure(), UNREAD | HARMLESS), (configure("algo=sft"), sft)):
        parents = {key: OmegaConf.select(config, key.rpartition(".")[0]) for key in keys}
        assert [key for key, node in parents.items() if key.rpartition(".")[2] not in node] == []


@pytest.mark.parametrize("key", ["trainer.balance_batch=false", "data.return_raw_chat=false"])
def test_a_dead_key_whose_effect_nobody_misses_is_a_note(configure, key):
    said = noted("check_harmless", configure(key, "data.truncation=left"))
    assert f"{key.partition('=')[0]} (" in said and "2 settings do nothing" in said


def test_dead_keys_at_verls_own_values_say_nothing(said, configure):
    """They stand in nearly every script of verl."""
    usual = ["trainer.balance_batch=true", "data.truncation=error", f"{ACTOR}.grad_clip=1.0",
             f"{ROLLOUT}.do_sample=true", "critic.grad_clip=1.0", f"{ROLLOUT}.val_kwargs.do_sample=false",
             f"{ACTOR}.use_kl_loss=false", f"{ACTOR}.kl_loss_coef=0.001"]  # fmt: skip
    config = configure("algo=gspo", *usual)
    checks = all_checks()
    assert [checks[f"check_{name}"](config) for name in ("unread", "harmless", "kl")] == [None] * 3
    sampled = [f"{ROLLOUT}.val_kwargs.do_sample=true", f"{ROLLOUT}.val_kwargs.temperature=0.6"]
    assert checks["check_unread"](configure(*sampled)) is None
