"""Patches of verl 0.9.1 that single algorithms need. One function a patch, as in verl.py.

The V1 trainer, verl's default since 0.9, hands an estimator what GAE and GRPO use and nothing else.
"""

import functools
import math
from collections import Counter

from plugins.patches.reward_infos import INFOS
from plugins.rollout import samples

OTB = ("optimal_token_baseline", "tir_optimal_token_baseline")


def gather_advantage_inputs(trainer_base) -> None:
    """verl/trainer/ppo/v1/trainer_base.py:1745, _compute_advantage: reads a fixed list of fields.

    GDPO's parts of the reward and OTB's sum of squared probabilities are not among them, and the
    latter is never asked for (:1634, _compute_old_log_prob), so both fail at an assertion.
    """
    trainer = trainer_base.PPOTrainer
    compute = trainer_base.compute_advantage_for_multi_trajectories
    old_log_prob = trainer._compute_old_log_prob

    @functools.wraps(old_log_prob)
    def _compute_old_log_prob(self, batch, metrics):
        wanted = self.config.actor_rollout_ref.actor.calculate_sum_pi_squared
        batch.extra_info["calculate_sum_pi_squared"] = wanted
        batch = old_log_prob(self, batch, metrics)
        batch.extra_info["calculate_sum_pi_squared"] = False  # the reference and the update: no
        return batch

    @functools.wraps(compute)
    def with_inputs(data, batch_keys, adv_estimator, **kwargs):
        if adv_estimator == "gdpo":
            add_reward_parts(data, INFOS.get(trainer_base.tq, batch_keys, "train"))
        if adv_estimator in OTB:
            add_sum_pi_squared(data, trainer_base, batch_keys)
        return compute(data, batch_keys=batch_keys, adv_estimator=adv_estimator, **kwargs)

    trainer._compute_old_log_prob = _compute_old_log_prob
    trainer_base.compute_advantage_for_multi_trajectories = with_inputs


def add_reward_parts(data, infos: list[dict]) -> None:
    """Give a batch the parts that all its rewards have, as GDPO reads them."""
    import numpy as np
    import torch

    for part in set.intersection(*(set(info) for info in infos)):
        # None: not graded. Such a sample is masked, and alone in its group.
        values = [0.0 if info[part] is None else info[part] for info in infos]
        data.non_tensor_batch[part] = np.array(values)
    # verl puts each part on the answer's last token, to sum it up again: any token will do
    mask_BT = data.batch["response_mask"]
    data.batch["prompts"] = mask_BT[:, :0]
    data.batch["attention_mask"] = torch.ones_like(mask_BT)


def add_sum_pi_squared(data, trainer_base, keys: list[str]) -> None:
    """Give a batch the sums of squared probabilities of each token (B, T), which the actor has computed."""
    found = trainer_base.tq.kv_batch_get(
        keys=keys, partition_id="train", select_fields=["sum_pi_squared", "response_mask"]
    )
    nested = trainer_base.response_from_nested(found["sum_pi_squared"], found["response_mask"])
    data.batch["sum_pi_squared"] = nested.to_padded_tensor(0.0)


class GreedyAnswers:
    """The rewards of the greedy answers to a step's prompts, one a prompt."""

    def __init__(self, trainer_base):
        self.verl = trainer_base
        self.rewards: dict[str, float] = {}  # by the prompt's uid

    def sample(self, trainer, batch) -> None:
        """Sample and score them, as answers of a validation."""
        tq, step, uids = self.verl.tq, trainer.global_steps, list(batch["uid"])
        tags = [{"is_prompt": True, "status": "pending", "global_steps": step} for _ in uids]
        tq.kv_batch_put(keys=uids, partition_id="val", tags=tags)
        self.verl.tu.assign_non_tensor_data(batch, "validate", True)
        self.verl.tu.assign_non_tensor_data(batch, "__rollout_n__", 1)
        trainer.agent_loop_manager.generate_sequences(batch)
        done, _ = trainer.replay_buffer.sample(
            global_steps=step, partition_id="val", batch_size=len(uids)
        )
        data = tq.kv_batch_get(keys=done.keys, partition_id="val", select_fields=["rm_scores"])
        for key, score_T in zip(done.keys, data["rm_scores"], strict=True):
            self.rewards[samples.read_key(key).uid] = score_T.sum().item()
        tq.kv_clear(keys=done.keys, partition_id="val")

    def baselines(self, keys: list[str]):
        """Their rewards (B,) for the samples with these keys; 0 for verl's padding."""
        import torch

        return torch.tensor([self.rewards.get(samples.read_key(key).uid, 0.0) for key in keys])

    def report(self, metrics: dict) -> None:
        """Log their mean and forget them: the step's advantages are computed."""
        if self.rewards:
            metrics["reward/greedy"] = sum(self.rewards.values()) / len(self.rewards)
            self.rewards.clear()


def sample_greedy_baselines(trainer_base) -> None:
    """verl/trainer/ppo/v1/trainer_base.py:1745, _compute_advantage: nobody samples ReMax's greedy answers.

    verl's old trainer did (ray_trainer.py:1493). Here they are asked for as a validation's would be,
    one a prompt, while the sampled ones are on their way; `val_kwargs.temperature` has to be 0, its
    default. An answer that could not be graded is a baseline of 0. Metric: `reward/greedy`. Not
    covered: the async trainers, and a reward model that shares the actor's GPUs.
    """
    greedy, trainer = GreedyAnswers(trainer_base), trainer_base.PPOTrainer
    submit, advantage = trainer._submit_batch_to_rollout, trainer._compute_advantage
    compute = trainer_base.compute_advantage_for_multi_trajectories

    @functools.wraps(submit)
    def _submit_batch_to_rollout(self, batch):
        count = submit(self, batch)
        if self.config.algorithm.adv_estimator == "remax":
            greedy.sample(self, batch)
        return count

    @functools.wraps(compute)
    def with_baselines(data, batch_keys, adv_estimator, **kwargs):
        if adv_estimator == "remax":
            data.batch["reward_baselines"] = greedy.baselines(batch_keys)
        return compute(data, batch_keys=batch_keys, adv_estimator=adv_estimator, **kwargs)

    @functools.wraps(advantage)
    def _compute_advantage(self, batch, metrics):
        batch = advantage(self, batch, metrics)
        greedy.report(metrics)
        return batch

    trainer._submit_batch_to_rollout = _submit_batch_to_rollout
    trainer._compute_advantage = _compute_advantage
    trainer_base.compute_advantage_for_multi_trajectories = with_baselines


class BoundedFilter:
    """A replay buffer's group filter, up to a number of batches of prompts a step.

    Once so many were drawn, groups are no longer sorted out: they fill the batch up.
    """

    def __init__(self, buffer, batches: int):
        self.batches, self.drawn, self.limit = (
            batches,
            0,
            0,
        )  # drawn and limit: prompts in this step
        self.verls_sample, self.verls_refill = buffer.sample, buffer.refill_fn
        self.verls_filter = buffer._dapo_filtered_keys
        self.verls_select = buffer._select_prompt_uids
        buffer.sample, buffer.refill_fn = self.sample, self.refill
        buffer._dapo_filtered_keys, buffer._select_prompt_uids = self.filter, self.select

    def sample(self, global_steps, partition_id, batch_size):
        if partition_id != "val":
            self.drawn, self.limit = batch_size, self.batches * batch_size
        return self.verls_sample(
            global_steps=global_steps, partition_id=partition_id, batch_size=batch_size
        )

    def refill(self, num_prompts):
        self.drawn += num_prompts
        return self.verls_refill(num_prompts)

    def filter(self, partition_id):
        return self.verls_filter(partition_id) if self.drawn < self.limit else (set(), Counter())

    def select(self, partition_id, uids, batch_size):
        """Groups with a difference first, then the others."""
        flat, _ = self.verls_filter(partition_id)
        chosen, *snapshots = self.verls_select(partition_id, uids - flat, batch_size)
        more, *_ = self.verls_select(partition_id, uids & flat, batch_size - len(chosen))
        return chosen + more, *snapshots


def bound_group_filter(trainer_base) -> None:
    """verl/trainer/ppo/v1/trainer_base.py:207: DAPO's max_num_gen_batches is ignored.

    Where every group is all right or all wrong, one step samples for ever.
    """
    build = trainer_base.PPOTrainer._build_replay_buffer

    @functools.wraps(build)
    def _build_replay_buffer(self):
        buffer = build(self)
        bound = self.config.algorithm.filter_groups.max_num_gen_batches
        if bound > 0 and getattr(buffer, "filter_groups_metric", None) is not None:
            BoundedFilter(buffer, bound)
        return buffer

    trainer_base.PPOTrainer._build_replay_buffer = _build_replay_buffer


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
