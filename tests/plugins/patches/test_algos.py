"""Each patch of plugins/patches/algos.py is still needed, and does what it says. A test here that fails
after an upgrade means: delete the patch. Real runs of each algorithm: tests/real/test_algos.py."""

import inspect

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf


@pytest.fixture(scope="module")
def core_algos():
    from verl.trainer.ppo import core_algos  # verl loads plugins.register by its entry point

    return core_algos


def upstream(function):
    """The function before it was patched."""
    assert hasattr(function, "__wrapped__"), "not patched"
    return inspect.unwrap(function)


def geo_mean_of(core_algos, function, sizes):
    """The loss of a mini-batch of four answers, in micro-batches of `sizes`."""
    from verl.workers.config import FSDPActorConfig

    config = FSDPActorConfig(strategy="fsdp2", rollout_n=1, use_dynamic_bsz=True)
    config.global_batch_info.update(dp_size=1, global_batch_size=4)
    torch.manual_seed(0)
    old, new, mask = torch.randn(4, 3), torch.randn(4, 3), torch.ones(4, 3)
    advantages = torch.tensor([1.0, -2.0, 3.0, 4.0]).unsqueeze(-1).expand(4, 3)
    parts = zip(*[tensor.split(sizes) for tensor in (old, new, advantages, mask)], strict=True)
    return sum(
        function(o, n, a, m, config=config, loss_agg_mode="token-mean")[0].item()
        for o, n, a, m in parts
    )


def test_the_loss_of_gmpo_depends_on_the_size_of_micro_batches(core_algos):
    patched = core_algos.POLICY_LOSS_REGISTRY["geo_mean"]
    theirs = upstream(patched)
    whole = geo_mean_of(core_algos, theirs, [4])
    assert geo_mean_of(core_algos, patched, [4]) == pytest.approx(whole)
    assert geo_mean_of(core_algos, patched, [1, 3]) == pytest.approx(whole)
    assert geo_mean_of(core_algos, theirs, [1, 3]) != pytest.approx(whole)


def test_passk_refuses_a_group_of_one(core_algos):
    patched = core_algos.ADV_ESTIMATOR_REGISTRY["grpo_passk"]
    config = {"norm_adv_by_std_in_grpo": False}
    rewards = torch.tensor([[0.0, 1.0], [0.0, 0.4], [0.0, 0.1], [0.0, 7.0]])
    mask = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    index = np.array(["a", "a", "a", "a-masked-3"], dtype=object)
    with pytest.raises(ValueError, match="at least 2"):
        upstream(patched)(rewards.clone(), mask, index, config=config)
    advantages, returns = patched(rewards.clone(), mask, index, config=config)
    assert advantages.tolist() == [[pytest.approx(0.6)] * 2, [0, 0], [0, 0], [0, 0]]
    assert torch.equal(advantages, returns)
    alone, _ = patched(rewards[3:].clone(), mask[3:], index[3:], config=config)
    assert alone.tolist() == [[0, 0]]


@pytest.fixture
def queue(monkeypatch, core_algos):
    """Finished groups with the `acc` of their samples, in place of TransferQueue."""
    from verl.trainer.ppo.v1 import replay_buffer

    groups: dict[str, list] = {}

    class Queue:
        @staticmethod
        def kv_list():
            prompts = {
                g: {"is_prompt": True, "status": "finished", "global_steps": 1} for g in groups
            }
            samples = {f"{g}_{i}_0": {} for g, accs in groups.items() for i in range(len(accs))}
            return {"train": prompts | samples}

        @staticmethod
        def kv_batch_get(keys, partition_id, select_fields):
            places = [key.split("_") for key in keys]
            infos = [{"acc": groups[group][int(i)]} for group, i, _ in places]
            return {"extra_fields": [{"reward_extra_info": info} for info in infos]}

        @staticmethod
        def kv_clear(keys, partition_id):
            for key in keys:
                groups.pop(key, None)

    monkeypatch.setattr(replay_buffer, "tq", Queue)
    return groups


def filter_of(queue):
    from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

    buffer = ReplayBuffer("sync", {}, None, "drop", {}, refill_fn=len, filter_groups_metric="acc")
    buffer._sync_metadata_from_transfer_queue()
    return buffer


def test_the_group_filter_stumbles_over_an_ungraded_sample(queue, monkeypatch):
    from verl.trainer.ppo.v1 import replay_buffer

    queue |= {
        "right": [1.0, 1.0, 1.0],
        "wrong": [0.0, 0.0, 0.0],
        "both": [1.0, 0.0, 0.0],
        "right-but-one": [1.0, None, 1.0],
        "both-but-one": [None, 0.0, 1.0],
        "none": [None, None, None],
    }
    out, counts = filter_of(queue)._dapo_filtered_keys("train")
    assert out == {"right", "wrong", "right-but-one"}
    assert sum(counts.values()) == 3
    monkeypatch.delattr(replay_buffer, "float")
    monkeypatch.setattr(replay_buffer, "np", np)
    with pytest.raises(TypeError, match="NoneType"):
        filter_of(queue)._dapo_filtered_keys("train")


def test_the_group_filter_has_no_bound(queue):
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

    trainer = PPOTrainerSync.__new__(PPOTrainerSync)
    trainer.trainer_mode = "sync"
    bounds = {"max_num_gen_batches": 3, "max_inflight_gen_batches": 1}
    sampler = {
        "max_off_policy_threshold": None,
        "max_off_policy_strategy": "drop",
        "sampler_kwargs": {},
    }
    trainer.config = OmegaConf.create({
        "algorithm": {"filter_groups": {"enable": True, "metric": "acc", **bounds}},
        "data": {"train_batch_size": 4},
        "reward": {"reward_model": {"enable": False, "enable_resource_pool": False}},
        "trainer": {"v1": {"sampler": sampler}},
    })  # fmt: skip
    drawn = []

    def draw(num_prompts):
        drawn.extend(range(num_prompts))
        queue.update({f"wrong{len(drawn)}-{i}": [0.0, 0.0] for i in range(num_prompts)})
        if len(drawn) > 99:
            raise RecursionError

    trainer._add_prompts_to_generate = draw
    build = PPOTrainer._build_replay_buffer
    ask = {"global_steps": 1, "partition_id": "train", "batch_size": 4}

    theirs = upstream(build)(trainer)
    draw(4)
    with pytest.raises(RecursionError):
        theirs.sample(**ask)

    ours = build(trainer)
    for _step in range(2):  # each begins anew
        queue.clear()
        drawn.clear()
        draw(3)
        queue["both"] = [0.0, 1.0]
        batch, metrics = ours.sample(**ask)
        assert len(batch.keys) == 4 * 2
        assert "both_1_0" in batch.keys
        assert len(drawn) - 3 == 2 * 4  # three batches of prompts in all
        assert metrics["training/filter_groups/evicted_samples"] == 3 + 4


def test_gdpo_does_not_get_the_parts_of_the_reward(without, patched):
    """Of `score` and `work`, which are equal: each normalised in its group, then all in the batch."""
    assert "prompts" in without["gdpo"]
    *answers, masked, pad, _ = patched["gdpo"]["advantages"]
    assert answers == [0.943, -1.061, 0.649] and masked == pad == 0


def test_otb_does_not_get_its_sums(without, patched):
    assert "requires sum_pi_squared" in without["otb"]
    better, worse, *_, masked = patched["otb"]["advantages"]
    assert better > 0 > worse and masked == 0


def test_nobody_samples_the_greedy_answers_of_remax(without, patched):
    """They score 0.25 here; the last sample is verl's padding."""
    assert "reward_baselines" in without["remax"]
    advantages, greedy, asked = patched["remax"]
    assert advantages == [0.75, -0.25, 0.25, 0.0, 0.0]
    assert greedy == 0.25
    prompts = {"prompts": ["a", "b"]}
    assert asked == [prompts, prompts | {"validate": True, "__rollout_n__": 1}]
