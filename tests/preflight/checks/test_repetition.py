"""What preflight says about settings that are to make a run the same each time."""

import pytest
from preflight_helpers import each, message_of

ROLLOUT = "actor_rollout_ref.rollout"
SEEDS = "lab.hw.answer_seeds=true"
MISTAKES = {
    "check_full_determinism": [
        ([f"{ROLLOUT}.full_determinism=true"], "lab.hw.answer_seeds=true gives each answer its own."),
        (["hw=rtx4090", f"{ROLLOUT}.full_determinism=true"], "and +lab.env.VLLM_BATCH_INVARIANT=1 makes"),
        (
            ["reward=model", "reward.reward_model.rollout.full_determinism=true"],
            "kernels that are for GPUs",
        ),
    ],
    "check_answer_seeds": [
        (["algo=sft", SEEDS], "nothing is sampled"),
        (["hw=h100", f"{ROLLOUT}.name=sglang", SEEDS], "it is for vLLM"),
        (["trainer.v1.trainer_mode=colocate_async", SEEDS], "depends on time"),
    ],
}  # fmt: skip
test_each_mistake_is_found = each(MISTAKES)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        [SEEDS],
        ["hw=rtx4090", SEEDS],
        ["algo=self_play", SEEDS],
        ["algo=sft"],
        ["trainer.v1.trainer_mode=colocate_async"],
        ["actor_rollout_ref.actor.fsdp_config.full_determinism=true"],
        ["hw=h100", "reward=model", "reward.reward_model.rollout.full_determinism=true"],
    ],
)
def test_what_does_something(configure, overrides):
    for check in MISTAKES:
        assert message_of(check, configure(*overrides)) is None


def test_who_has_seeds(configure):
    """The CPU, where they cost little; a GPU if it is asked for."""
    found = {
        hw: configure(f"hw={hw}").lab.hw.answer_seeds
        for hw in ("cpu", "cpu_x2", "rtx4090", "h100x8")
    }
    assert found == {"cpu": True, "cpu_x2": True, "rtx4090": False, "h100x8": False}
