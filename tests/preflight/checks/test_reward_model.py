"""What preflight says about the reward model of a run, and what becomes of `lab.reward_model`."""

import json

import pytest
from helpers import resolved
from preflight_helpers import caught

from preflight.checks import reward_model as checks

RM = "Qwen2ForSequenceClassification"
PRM = "Qwen2ForTokenClassification"


@pytest.fixture
def served(tmp_path):
    """`served(architecture, ...)` → the folder of a model; only its config.json is looked at."""

    def make(architecture=RM, **config) -> str:
        config = {"architectures": [architecture], "id2label": {"0": "LABEL_0"}, **config}
        (tmp_path / "config.json").write_text(json.dumps(config))
        return f"lab.reward_model.path={tmp_path}"

    return make


def test_good_ones_pass(composer, served):
    cases = [("reward=model", served()), ("reward=model", served(PRM)), ("reward=sql",), ("algo=sft",),
             ("reward=model", "lab.reward_model.path=org/name")]  # fmt: skip
    for overrides in cases:
        config = composer(*overrides)
        assert checks.check_reward_model(config) is None, overrides
        assert checks.check_steps_are_used(config) is None, overrides
        assert checks.check_gpus_of_reward_model(config) is None, overrides


def test_a_model_that_gives_no_score(composer, served):
    def said(*overrides):
        return checks.check_reward_model(composer(*overrides))

    assert "needs a reward model: train one (`python launch.py algo=rm`)" in said("reward=model")
    assert "algo=prm" in caught("check_reward_model", composer("reward=prm"))
    assert "no reward model at /nowhere" in said("reward=model", "lab.reward_model.path=/nowhere")
    assert "Qwen2ForCausalLM, which gives no scores" in said(
        "reward=model", served("Qwen2ForCausalLM")
    )
    assert "which gives no scores" in said("reward=prm", served(RM))  # not one a token
    assert "has 2 labels" in said("reward=model", served(id2label={"0": "a", "1": "b"}))
    short = served(max_position_embeddings=200)
    assert "context is 200" in said("reward=model", short)
    assert said("reward=model", short, "lab.reward_model.max_tokens=200") is None
    # a model of another kind, with a function that knows it
    mine = "reward.custom_reward_function.path=mine.py"
    assert said("reward=model", served("Qwen2ForCausalLM"), mine) is None


def test_step_scores_that_nobody_sees(composer, served):
    def said(*overrides):
        return checks.check_steps_are_used(composer("reward=prm", served(PRM), *overrides))

    config = composer("reward=prm", served(PRM), "algo=grpo")
    assert "aggregate=min" in caught("check_steps_are_used", config)
    assert said("algo=grpo", "reward.custom_reward_function.reward_kwargs.aggregate=min") is None
    assert said("algo=grpo", "lab.step_rewards=true") is None
    assert said("algorithm.adv_estimator=grpo_process") is None
    assert "needs a GPU of its own" in said("lab.reward_model.gpus=0", "lab.step_rewards=true")


def test_gpus_for_both(composer, served, tool):
    tool("nvidia-smi", *(f"NVIDIA H100 80GB HBM3, 81559, 9.0, GPU-{n}" for n in range(2)))

    def said(*overrides):
        return checks.check_gpus_of_reward_model(composer(served(PRM), *overrides))

    assert said("hw=h200", "reward=prm") is None
    both = composer(served(PRM), "hw=h100x8", "reward=model", "lab.reward_model.gpus=1")
    line = caught("check_gpus_of_reward_model", both)
    assert "8 GPUs for the policy and 1 for the reward model, and there are 2" in line
    assert "trainer.n_gpus_per_node=1 or lab.reward_model.gpus=0" in line
    assert "it needs one more" in said("hw=h200", "reward=prm", "lab.reward_model.gpus=2")


def test_a_gpu_profile_takes_turns(composer):
    """One GPU serves both in turn; where there are more, the reward model may have its own."""
    shared = resolved(composer("reward=model", "hw=h200", "lab.reward_model.path=org/model"))
    rm = shared["reward"]["reward_model"]
    assert (rm["enable_resource_pool"], rm["rollout"]["free_cache_engine"]) == (False, True)
    own = resolved(composer("reward=model", "hw=h100x8", "lab.reward_model.path=org/model",
                            "lab.reward_model.gpus=2", "trainer.n_gpus_per_node=4"))  # fmt: skip
    rm = own["reward"]["reward_model"]
    assert (rm["enable_resource_pool"], rm["n_gpus_per_node"]) == (True, 2)
    assert rm["rollout"]["free_cache_engine"] is False  # verl wakes up only one that shares
    assert own["ray_kwargs"]["ray_init"]["num_gpus"] is None
    cpu = resolved(composer("reward=model", "lab.reward_model.path=org/model", "hw=cpu_x2"))
    assert cpu["ray_kwargs"]["ray_init"]["num_gpus"] == 3
