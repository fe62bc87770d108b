"""What preflight says about settings that do nothing, and about what an algorithm can't do without."""

import pytest
from preflight_helpers import each

from plugins import algos
from preflight.checks.knobs import check_group
from preflight.estimators import compares_group, registered

LOSS = "actor_rollout_ref.actor"
ROLLOUT = "actor_rollout_ref.rollout"
VERLS = "reward.reward_manager.source=register"
# check → cases: overrides, and what the line must say
MISTAKES = {
    "check_kl": [
        (["algo=gspo", f"{LOSS}.kl_loss_coef=0.01"], "actor.use_kl_loss=true as well"),
        (
            ["algo=gspo", f"{LOSS}.kl_loss_coef=0.001"],
            "does nothing",
        ),  # verl's default, but asked for
        (["algorithm.kl_ctrl.kl_coef=0.005"], "algorithm.use_kl_in_reward=true as well"),
    ],
    "check_group": [
        ([f"{ROLLOUT}.n=1"], "compares the answers to a prompt"),
        ([f"{ROLLOUT}.temperature=0"], "nothing could be learned"),
        ([f"{ROLLOUT}.val_kwargs.n=4"], "samples the same answer again"),
    ],
    "check_clip": [([f"{LOSS}.clip_ratio=0.3"], "clip_ratio_low and")],
    "check_lora": [(["lab.lora_alpha=32"], "does nothing with lab.lora_rank=0")],
    "check_reward_of_sft": [(["algo=sft", "reward=sql"], "scores nothing")],
    "check_show_samples": [
        (["algo=sft", "lab.show_samples=5"], "does nothing with algo=sft"),
        (
            ["lab.show_samples=5", "trainer.rollout_data_dir=null"],
            "without trainer.rollout_data_dir",
        ),
    ],
    "check_keep_best": [
        (["lab.keep_best=true", "trainer.save_freq=-1"], "leaves only the last one")
    ],
    "check_limits": [
        (["lab.reward_limits.processes=0"], "must be a number above 0"),
        (["lab.reward_limits.failed_share=1.5"], "failed_share=1.5 must be a number from 0 to 1"),
        (["lab.reward_limits.timeout_s=null"], "timeout_s=None must be"),
    ],
    "check_needs": [
        (["algorithm.adv_estimator=optimal_token_baseline"], "calculate_sum_pi_squared=true"),
        (["algo=gdpo", "algorithm.gdpo_reward_keys=null"], "needs algorithm.gdpo_reward_keys"),
    ],
    "check_greedy_baseline": [
        (["algo=remax", f"{ROLLOUT}.val_kwargs.temperature=1"], "val_kwargs.temperature=0"),
        (["algo=remax", "trainer.v1.trainer_mode=colocate_async"], "trainer_mode=sync"),
    ],
    "check_manager": [
        (
            ["algo=dapo", VERLS, "reward.reward_manager.name=naive"],
            "overlong_buffer_cfg does nothing",
        ),
    ],
    "check_self_play": [
        (["algo=self_play", "self_play.pairs_per_prompt=5"], "rollout.n=10 or more"),
        (["algo=self_play", "+self_play.train.dpo.bta=1"], "Did you mean dpo.beta?"),
    ],
    "check_epochs": [
        (["lab.epochs=3", "trainer.total_training_steps=5"], "lab.epochs does nothing"),
    ],
}


test_each_mistake_is_found = each(MISTAKES)


GROUPED = {
    "gdpo", "gpg", "grpo", "grpo_passk", "grpo_process", "grpo_token", "grpo_vectorized", "grpo_weighted", "opo",
    "optimal_token_baseline", "reinforce_plus_plus_baseline", "rloo", "rloo_vectorized", "tir_optimal_token_baseline",
}  # fmt: skip


def test_which_estimators_compare_a_group():
    known = registered("compute_advantage")
    assert {name for name in known if compares_group(name)} == GROUPED
    assert known - GROUPED == {"gae", "reinforce_plus_plus", "remax"}


@pytest.mark.parametrize("name", ["grpo_vectorized", "rloo_vectorized"])
def test_a_group_of_one_by_an_estimator_of_the_command_line(configure, name):
    config = configure(f"algorithm.adv_estimator={name}", f"{ROLLOUT}.n=1")
    assert f"{name} compares" in check_group(config)


def test_an_estimator_of_the_users_own(configure, monkeypatch, tmp_path):
    """Verl gives all of them `index`; who doesn't use it may have one answer to a prompt."""
    monkeypatch.setattr(algos, "FOLDER", tmp_path)
    file, one = tmp_path / "mine.py", ["algorithm.adv_estimator=mine", f"{ROLLOUT}.n=1"]
    for body, grouped in (
        ("return token_level_rewards, index", True),
        ("return token_level_rewards", False),
    ):
        file.write_text(
            f"def compute_advantage(token_level_rewards, response_mask, index, **_):\n    {body}\n"
        )
        assert (check_group(configure(*one)) is not None) == grouped
