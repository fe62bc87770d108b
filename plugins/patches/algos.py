"""Patches of verl 0.9.1 that single algorithms need. One function a patch, as in verl.py.

The V1 trainer, verl's default since 0.9, hands an estimator what GAE and GRPO use and nothing else.
tests/plugins/patches/test_algos.py fails when a patch is no longer needed.
"""

import functools
import math

import wrapt

OTB = ("optimal_token_baseline", "tir_optimal_token_baseline")


def gather_advantage_inputs(trainer_base) -> None:
    """verl/trainer/ppo/v1/trainer_base.py:1745, _compute_advantage: reads a fixed list of fields.

    GDPO's parts of the reward and OTB's sum of squared probabilities are not among them, and the
    latter is never asked for (:1634, _compute_old_log_prob), so both fail at an assertion.
    """
    import numpy as np
    import torch

    cls, compute = trainer_base.PPOTrainer, trainer_base.compute_advantage_for_multi_trajectories
    old_log_prob = cls._compute_old_log_prob

    @functools.wraps(old_log_prob)
    def _compute_old_log_prob(self, batch, metrics):
        wanted = self.config.actor_rollout_ref.actor.calculate_sum_pi_squared
        batch.extra_info["calculate_sum_pi_squared"] = wanted
        batch = old_log_prob(self, batch, metrics)
        batch.extra_info["calculate_sum_pi_squared"] = False  # the reference and the update: no
        return batch

    @functools.wraps(compute)
    def with_inputs(data, batch_keys, adv_estimator, **kwargs):
        def fetch(*names):
            return trainer_base.tq.kv_batch_get(
                keys=batch_keys, partition_id="train", select_fields=list(names)
            )

        mask_BT = data.batch["response_mask"]
        if adv_estimator == "gdpo":
            infos = [f.get("reward_extra_info", {}) for f in fetch("extra_fields")["extra_fields"]]
            for part in set.intersection(*(set(info) for info in infos)):
                # None: not graded. Such a sample is masked, and alone in its group.
                values = [0.0 if info[part] is None else info[part] for info in infos]
                data.non_tensor_batch[part] = np.array(values)
            # verl puts each part on the answer's last token, to sum it up again: any token will do
            data.batch["prompts"] = mask_BT[:, :0]
            data.batch["attention_mask"] = torch.ones_like(mask_BT)
        if adv_estimator in OTB:
            found = fetch("sum_pi_squared", "response_mask")
            nested = trainer_base.response_from_nested(
                found["sum_pi_squared"], found["response_mask"]
            )
            data.batch["sum_pi_squared"] = nested.to_padded_tensor(0.0)
        return compute(data, batch_keys=batch_keys, adv_estimator=adv_estimator, **kwargs)

    cls._compute_old_log_prob = _compute_old_log_prob
    trainer_base.compute_advantage_for_multi_trajectories = with_inputs


def sample_greedy_baselines(trainer_base) -> None:
    """verl/trainer/ppo/v1/trainer_base.py: nobody samples ReMax's greedy answers.

    verl's old trainer did (ray_trainer.py:1493). Here they are asked for as a validation's would be,
    one a prompt, while the sampled ones are on their way; `val_kwargs.temperature` has to be 0, its
    default. An answer that could not be graded is a baseline of 0. Metric: `reward/greedy`. Not
    covered: the async trainers, and a reward model that shares the actor's GPUs.
    """
    import torch

    cls, compute = trainer_base.PPOTrainer, trainer_base.compute_advantage_for_multi_trajectories
    submit, advantage = cls._submit_batch_to_rollout, cls._compute_advantage
    rewards: dict[str, float] = {}  # of the greedy answers to this step's prompts

    @functools.wraps(submit)
    def _submit_batch_to_rollout(self, batch):
        count = submit(self, batch)
        if self.config.algorithm.adv_estimator != "remax":
            return count
        tq, step, uids = trainer_base.tq, self.global_steps, list(batch["uid"])
        tags = [{"is_prompt": True, "status": "pending", "global_steps": step} for _ in uids]
        tq.kv_batch_put(keys=uids, partition_id="val", tags=tags)
        trainer_base.tu.assign_non_tensor_data(batch, "validate", True)
        trainer_base.tu.assign_non_tensor_data(batch, "__rollout_n__", 1)
        self.agent_loop_manager.generate_sequences(batch)
        done, _ = self.replay_buffer.sample(
            global_steps=step, partition_id="val", batch_size=len(uids)
        )
        data = tq.kv_batch_get(keys=done.keys, partition_id="val", select_fields=["rm_scores"])
        for key, score_T in zip(done.keys, data["rm_scores"], strict=True):
            rewards[key.split("_")[0]] = score_T.sum().item()
        tq.kv_clear(keys=done.keys, partition_id="val")
        return count

    @functools.wraps(compute)
    def with_baselines(data, batch_keys, adv_estimator, **kwargs):
        if adv_estimator == "remax":
            found = [rewards.get(key.split("_")[0], 0.0) for key in batch_keys]  # 0: verl's padding
            data.batch["reward_baselines"] = torch.tensor(found)
        return compute(data, batch_keys=batch_keys, adv_estimator=adv_estimator, **kwargs)

    @functools.wraps(advantage)
    def _compute_advantage(self, batch, metrics):
        batch = advantage(self, batch, metrics)
        if rewards:
            metrics["reward/greedy"] = sum(rewards.values()) / len(rewards)
            rewards.clear()
        return batch

    cls._submit_batch_to_rollout, cls._compute_advantage = (
        _submit_batch_to_rollout,
        _compute_advantage,
    )
    trainer_base.compute_advantage_for_multi_trajectories = with_baselines


def bound_group_filter(trainer_base) -> None:
    """verl/trainer/ppo/v1/trainer_base.py:207: DAPO's max_num_gen_batches is ignored.

    Where every group is all right or all wrong, one step samples for ever. Here, once so many
    batches of prompts were drawn in a step, groups are no longer sorted out: they fill the batch up.
    """
    from collections import Counter

    cls = trainer_base.PPOTrainer
    build = cls._build_replay_buffer

    @functools.wraps(build)
    def _build_replay_buffer(self):
        buffer = build(self)
        bound = self.config.algorithm.filter_groups.max_num_gen_batches
        if bound <= 0 or getattr(buffer, "filter_groups_metric", None) is None:
            return buffer
        sample, refill, filtered = buffer.sample, buffer.refill_fn, buffer._dapo_filtered_keys
        select = buffer._select_prompt_uids
        drawn, limit = 0, 0  # prompts in this step

        def bounded_sample(global_steps, partition_id, batch_size):
            nonlocal drawn, limit
            if partition_id != "val":
                drawn, limit = batch_size, bound * batch_size
            return sample(
                global_steps=global_steps, partition_id=partition_id, batch_size=batch_size
            )

        def counted_refill(num_prompts):
            nonlocal drawn
            drawn += num_prompts
            return refill(num_prompts)

        def bounded_filter(partition_id):
            return filtered(partition_id) if drawn < limit else (set(), Counter())

        def select_best(partition_id, uids, batch_size):
            flat, _ = filtered(partition_id)
            chosen, *snapshots = select(partition_id, uids - flat, batch_size)
            more, *_ = select(partition_id, uids & flat, batch_size - len(chosen))
            return chosen + more, *snapshots

        buffer.sample, buffer.refill_fn = bounded_sample, counted_refill
        buffer._select_prompt_uids = select_best
        buffer._dapo_filtered_keys = bounded_filter
        return buffer

    cls._build_replay_buffer = _build_replay_buffer


def skip_ungraded(replay_buffer) -> None:
    """verl/trainer/ppo/v1/replay_buffer.py:302: float() of a metric that may be None.

    None is what a sample has that could not be graded (agent_loop.py). A group is judged by its
    others; one without any grade stays, with a mask of 0.
    """
    from types import SimpleNamespace

    import numpy as np

    replay_buffer.float = lambda value: math.nan if value is None else float(value)

    def spread(values):
        graded = [value for value in values if not math.isnan(value)]
        return np.std(graded) if graded else math.nan

    replay_buffer.np = SimpleNamespace(array=np.array, std=spread)


def normalize_geo_mean(core_algos) -> None:
    """verl/trainer/ppo/core_algos.py:2000, geo_mean: a mean over the micro-batch.

    All other losses divide by the size of the mini-batch; here the gradient grows with the number of
    micro-batches, and answers in small ones weigh more.
    """
    loss = core_algos.POLICY_LOSS_REGISTRY["geo_mean"]

    @functools.wraps(loss)
    def geo_mean(old_log_prob, *args, config, **kwargs):
        value, metrics = loss(old_log_prob, *args, config=config, **kwargs)
        info = config.global_batch_info
        if total := info.get("global_batch_size"):
            value = value * len(old_log_prob) * info["dp_size"] / total
        return value, metrics

    core_algos.POLICY_LOSS_REGISTRY["geo_mean"] = geo_mean


def passk_of_pairs(core_algos) -> None:
    """verl/trainer/ppo/core_algos.py:517, grpo_passk: raises where a group has one answer.

    Such are the answers that could not be graded (agent_loop.py), and verl's padding. Their
    advantage is 0.
    """
    import numpy as np

    estimate = core_algos.ADV_ESTIMATOR_REGISTRY["grpo_passk"]

    @functools.wraps(estimate)
    def grpo_passk(token_level_rewards, response_mask, index, **kwargs):
        _, group, size = np.unique(
            np.asarray(index, dtype=str), return_inverse=True, return_counts=True
        )
        rows = np.flatnonzero(size[group] > 1)
        advantages = token_level_rewards.new_zeros(token_level_rewards.shape)
        if len(rows):
            index = np.asarray(index, dtype=object)[rows]
            advantages[rows], _ = estimate(
                token_level_rewards[rows], response_mask[rows], index, **kwargs
            )
        return advantages, advantages

    core_algos.ADV_ESTIMATOR_REGISTRY["grpo_passk"] = grpo_passk


def apply() -> None:
    """Apply each patch when its module is imported."""
    for patch, module in {
        gather_advantage_inputs: "verl.trainer.ppo.v1.trainer_base",
        sample_greedy_baselines: "verl.trainer.ppo.v1.trainer_base",
        bound_group_filter: "verl.trainer.ppo.v1.trainer_base",
        skip_ungraded: "verl.trainer.ppo.v1.replay_buffer",
        normalize_geo_mean: "verl.trainer.ppo.core_algos",
        passk_of_pairs: "verl.trainer.ppo.core_algos",
    }.items():
        wrapt.when_imported(module)(patch)
