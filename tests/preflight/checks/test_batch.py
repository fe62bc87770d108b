"""What preflight says about batches, micro-batches, and how work is spread over GPUs."""

import pytest
from preflight_helpers import all_checks, each, noted, said_by

A = "actor_rollout_ref"
ROLLOUT, ACTOR = f"{A}.rollout", f"{A}.actor"
NODE = ["hw=h100x8", "lab.model.path=Qwen/Qwen2.5-7B-Instruct"]  # 28 heads, 4 for keys
FIXED = [f"{ACTOR}.use_dynamic_bsz=false", f"{ACTOR}.ppo_micro_batch_size_per_gpu=4",
         f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu=16", f"{A}.ref.log_prob_micro_batch_size_per_gpu=8"]  # fmt: skip
# check → cases: overrides, and what the line must say
MISTAKES = {
    "check_rl_batch": [
        ([f"{ACTOR}.ppo_mini_batch_size=7"], "doesn't divide data.train_batch_size=16: 8 does"),
        (
            ["hw=cpu_x2", "data.train_batch_size=3", f"{ROLLOUT}.n=3"],
            "3 × rollout.n=3 answers don't divide by 2 workers: 4 does, with data.train_batch_size=4",
        ),
        (
            [*NODE, f"{ROLLOUT}.n=6", "data.train_batch_size=18", f"{ACTOR}.ppo_mini_batch_size=18"],
            "by 8 workers: 16 does, with data.train_batch_size=16",
        ),
        (["data.train_batch_size=256"], "has 200 rows, fewer than data.train_batch_size=256"),
        (["data.train_batch_size=256"], "Set lab.hw.samples_per_step=1600 or less"),
        (["data.train_max_samples=8"], "has 8 rows, fewer than data.train_batch_size=16"),
        (
            ["algo=ppo", "critic.ppo_mini_batch_size=100"],
            "critic.ppo_mini_batch_size=100 doesn't divide",
        ),
    ],
    "check_sft_batch": [
        (
            ["algo=sft", "hw=cpu_x2", "data.train_batch_size=33"],
            "doesn't divide by 2 workers: 32 does",
        ),
        (["algo=sft", "data.train_batch_size=400"], "fewer than one batch"),
        (["algo=sft", "lab.dataset.val_max_samples=16"], "has 16 rows, fewer than one batch"),
        (
            ["algo=dpo", "lab.dataset.val_max_samples=3"],
            "Set lab.hw.sft_batch_size=3, or have more of them (data_prep's --val-share)",
        ),
        (
            ["algo=sft", "hw=cpu_x2", "data.train_max_samples=5"],
            "Set lab.hw.sft_batch_size=4, or have more of them.",
        ),
        (["algo=sft", "hw=cpu_x2", "lab.dataset.val_max_samples=1"], "all. Have more of them"),
    ],
    "check_samples_per_step": [
        (["lab.hw.samples_per_step=100"], "=100 doesn't divide by rollout.n=8: a step has 96 answers. Set"),
        (["lab.hw.samples_per_step=4"], "Set lab.hw.samples_per_step=8, or data.train_batch_size"),
        ([f"{ROLLOUT}.n=200"], "=128 doesn't divide by rollout.n=200: a step has 200 answers"),
    ],
    "check_mini_batches": [
        (["lab.mini_batches=32"], "16 prompts a step make 16 mini-batches, not lab.mini_batches=32"),
        (["lab.mini_batches=6"], "make 8 mini-batches, not lab.mini_batches=6. Set data.train_batch_size=18"),
    ],
    "check_lengths": [
        ([f"{ROLLOUT}.max_model_len=100"], "is less than max_prompt_length + max_response_length"),
        (["data.max_response_length=100000"], "the model's context is"),
        ([f"{ROLLOUT}.max_model_len=1000"], "the model's context is 512 tokens: leave it out"),
    ],
    "check_weight_bucket": [(["lab.hw.weight_bucket_mib=0"], "smaller than the model's embedding")],
    "check_refills": [
        (["data.gen_batch_size=5"], "doesn't divide data.train_batch_size=16: leave it out, or set 4")
    ],
    "check_queue_room": [
        ([f"{ROLLOUT}.val_kwargs.n=600"], "val_kwargs.n = 120000, more than the queue"),
        (["transfer_queue.backend.SimpleStorage.total_storage_size=100"], "total_storage_size=256"),
    ],
    "check_micro_batches": [
        ([*FIXED, f"{ACTOR}.ppo_micro_batch_size_per_gpu=null"], "ppo_micro_batch_size_per_gpu is needed"),
        ([*FIXED, f"{ACTOR}.ppo_micro_batch_size_per_gpu=24"],
         "=24 doesn't divide the 128 sequences that a worker gets: 16 does"),
        ([*FIXED, "hw=cpu_x2", f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu=96"],
         "divide the 64 sequences that a worker gets: 64"),
        ([*FIXED, f"{A}.ref.log_prob_micro_batch_size_per_gpu=null"],
         f"{A}.ref.log_prob_micro_batch_size_per_gpu is needed"),
        (["algo=sft", "data.use_dynamic_bsz=false", "data.micro_batch_size_per_gpu=5"],
         "doesn't divide the 32 sequences"),
        (["algo=sft", "data.use_dynamic_bsz=false", "data.micro_batch_size_per_gpu=null"], "is needed"),
    ],
    "check_old_micro_batches": [
        ([f"{ACTOR}.ppo_micro_batch_size=4"], f"set {ACTOR}.ppo_micro_batch_size_per_gpu instead"),
        ([f"{ACTOR}.ppo_micro_batch_size=4", f"{ROLLOUT}.log_prob_micro_batch_size=4"],
         f"{ACTOR}.ppo_micro_batch_size, {ROLLOUT}.log_prob_micro_batch_size are keys of old releases"),
        (["algo=ppo", "critic.ppo_micro_batch_size=4"], "set critic.ppo_micro_batch_size_per_gpu instead"),
    ],
    "check_dynamic_batches": [
        ([f"{ROLLOUT}.log_prob_use_dynamic_bsz=false"], f"must be the same as {ACTOR}.use_dynamic_bsz"),
    ],
    "check_critic_batches": [
        (["algo=ppo", *FIXED], "critic.use_dynamic_bsz=false needs"),
    ],
    "check_token_budget": [
        (["lab.hw.tokens_per_gpu=10"], "is less than one prompt and answer (128 tokens): set 128 or more"),
        ([f"{A}.ref.log_prob_max_token_len_per_gpu=null"],
         "ref.log_prob_max_token_len_per_gpu=None is less than"),
        (["algo=ppo", "critic.ppo_infer_max_token_len_per_gpu=100"],
         "critic.ppo_infer_max_token_len_per_gpu=100 is less"),
        (["algo=sft", "lab.hw.tokens_per_gpu=100"], "is less than data.max_length=128"),
    ],
    "check_sequence_parallel": [
        ([*NODE, f"{ACTOR}.ulysses_sequence_parallel_size=3"],
         "ulysses_sequence_parallel_size=3 doesn't divide the 8 workers: 2 does"),
        ([*NODE, f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size=8"],
         "it has 28 attention heads and 4 for keys. 4 does"),
        ([*NODE, f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size=4", "lab.hw.remove_padding=false"],
         "needs packed sequences"),
        ([*NODE, f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size=4", "lab.hw.attention=sdpa"],
         "works only with flash-attn"),
        ([*NODE, "algo=sft", "engine.ulysses_sequence_parallel_size=8"], "28 attention heads"),
        ([*NODE, "algo=ppo", "critic.fsdp.ulysses_sequence_parallel_size=5"],
         "critic.fsdp.ulysses_sequence_parallel_size=5"),
    ],
    "check_shards": [
        ([*NODE, f"{ACTOR}.fsdp_config.fsdp_size=3"], "doesn't divide the 8 workers: 2 does, -1 is all"),
        ([*NODE, "algo=sft", "engine.fsdp_size=0"], "engine.fsdp_size=0"),
    ],
    "check_cpu_engines": [
        ([f"{ACTOR}.strategy=fsdp"], "on a CPU only fsdp2 works"),
        (["algo=sft", "engine.offload_policy=true"], "leave it out"),
    ],
    "check_replicas": [
        ([*NODE, "lab.hw.tensor_parallel=3"],
         "=3 doesn't divide the 8 GPUs (lab.hw.tensor_parallel): 2 does"),
        ([*NODE, "lab.hw.gpus_per_node=6", "lab.hw.nodes=2", "lab.hw.tensor_parallel=4"],
         "lie across nodes of 6 GPUs (lab.hw.tensor_parallel): 2 doesn't"),
        ([*NODE, f"{ROLLOUT}.pipeline_model_parallel_size=2"], "verl takes only 1"),
        (["hw=cpu_x2", "lab.hw.tensor_parallel=2"], "vLLM has one process"),
        ([*NODE, "reward=model", "lab.reward_model.path=org/x", "lab.reward_model.gpus=2",
          "reward.reward_model.rollout.tensor_model_parallel_size=4"], "doesn't divide the 2 GPUs"),
    ],
    "check_heads": [
        ([*NODE, "lab.hw.tensor_parallel=8"], "28 attention heads and 4 for keys. 4 does"),
    ],
    "check_experts": [
        ([*NODE, f"{ROLLOUT}.expert_parallel_size=2"],
         "must be the GPUs of a copy, tensor × data parallel: 1"),
        ([*NODE, "lab.hw.tensor_parallel=2", f"{ROLLOUT}.expert_parallel_size=2"],
         "the model has no experts"),
    ],
    "check_server_batch": [
        (["lab.hw.max_num_seqs=20000"], "must be at least max_num_seqs=20000"),
        ([f"{ROLLOUT}.enable_chunked_prefill=false", "lab.hw.max_num_batched_tokens=100", "lab.hw.max_num_seqs=8"],
         "max_model_len=128"),
    ],
    "check_sleep": [
        ([*NODE, f"{ROLLOUT}.enable_sleep_mode=false"], "needs enable_sleep_mode=true"),
        (["lab.hw.free_cache=true"], "vLLM can't sleep on a CPU"),
    ],
}  # fmt: skip


test_each_mistake_is_found = each(MISTAKES)


def test_what_does_not_come_out_even_is_noted(configure):
    """Where an algorithm or a profile asks for it, and nobody on the command line does."""
    for name, overrides, words in (
        ("check_samples_per_step", [f"{ROLLOUT}.n=7"], "a step has 126 answers"),
        (
            "check_mini_batches",
            ["algo=dapo"],
            "8 prompts a step make 8 mini-batches, not lab.mini_batches=16",
        ),
    ):
        assert words in noted(name, configure(*overrides))
    for overrides in (
        [],
        ["data.train_batch_size=5"],
        [f"{ACTOR}.ppo_mini_batch_size=2"],
        ["algo=sft"],
    ):
        config = configure(*overrides)
        assert all_checks()["check_samples_per_step"](config) is None
        assert all_checks()["check_mini_batches"](config) is None


MOE = [*NODE, "lab.model.path=Qwen/Qwen3-30B-A3B"]


@pytest.mark.parametrize(
    "overrides",
    [
        FIXED,
        [*NODE, *FIXED],
        ["algo=sft", "data.use_dynamic_bsz=false", "data.micro_batch_size_per_gpu=8"],
        ["data.gen_batch_size=8"],
        [*NODE, f"{ACTOR}.ulysses_sequence_parallel_size=4", "lab.hw.tokens_per_gpu=32"],
        [*NODE, f"{ACTOR}.ulysses_sequence_parallel_size=2"],
        [*NODE, f"{ACTOR}.fsdp_config.fsdp_size=4", "lab.hw.tensor_parallel=4"],
        [*NODE, "lab.hw.gpus_per_node=4", "lab.hw.nodes=2", "lab.hw.tensor_parallel=4"],
        [*MOE, "lab.hw.tensor_parallel=8", f"{ROLLOUT}.expert_parallel_size=8"],
        ["algo=ppo", "critic.ppo_infer_max_token_len_per_gpu=4096"],
        [f"{ROLLOUT}.enable_chunked_prefill=false"],
    ],
)  # fmt: skip
def test_good_numbers_pass(configure, overrides):
    config = configure(*overrides)
    assert said_by(MISTAKES, config) == {}
