"""Every algorithm of conf/algo makes two real steps on this CPU. By glob: a new file is run without
anyone adding it to a list.

The model is warmed up by SFT, so that answers differ in their rewards: what is asserted is that they
reach the weights (a gradient that is finite, and not 0), and that verl's parts work together.
"""

import math

import pytest
import yaml

from preflight import names

pytestmark = pytest.mark.real
FILES = {path.stem: path.read_text() for path in (names.CONF / "algo").glob("*.yaml")}


def options(name: str) -> list[str]:
    """Of a short run: RL without validation, and with a reward that differs between wrong answers, too.

    A few answers of a model so small may all be wrong, and the partial credit of soft_f1 nothing: their
    lengths differ. GDPO takes parts of reward=sql by name.
    """
    text = FILES[name]
    if "/trainer:" in text:
        return []
    key = "reward.custom_reward_function.reward_kwargs"
    graded = [
        "reward=composite",
        f"{key}.parts={{sql: 1, length: 0.2}}",
        f"{key}.options={{sql: {{shaping: soft_f1}}, length: {{max_length: 100, cache: 100}}}}",
    ]
    if "/reward:" in text:
        graded = []
    elif name == "gdpo":
        graded = [f"{key}.shaping=soft_f1"]
    return ["trainer.val_before_train=false", "trainer.test_freq=-1", *graded]


def check_learning(result, steps=(1, 2)) -> None:
    """Each step was made, every number of it is one, and at least one moved the weights."""
    assert set(steps) <= set(result.metrics)
    numbers = {
        (step, key): value
        for step in steps
        for key, value in result.metrics[step].items()
        if isinstance(value, int | float)
    }
    broken = {at: value for at, value in numbers.items() if not math.isfinite(value)}
    assert not broken
    norms = [v for (_, key), v in numbers.items() if key.endswith("grad_norm")]
    assert max(norms) > 0


@pytest.mark.parametrize("name", sorted(FILES))
def test_two_steps(run, warm, name):
    result = run(f"algo={name}", f"lab.model.path={warm.folder}", *options(name))
    check_learning(result)
    config = yaml.safe_load((result.folder / "resolved.yaml").read_text())
    if "actor_rollout_ref" not in config or "/trainer:" in FILES[name]:
        return
    if not config["algorithm"]["rollout_correction"]["bypass_mode"]:
        # vLLM samples from the very weights that the actor has
        assert all(result.at(step, "training/rollout_probs_diff_max") < 1e-4 for step in (1, 2))
    if name == "ppo":
        assert result.at(1, "critic/grad_norm") > 0
    if name == "remax":  # greedy answers were scored
        assert result.at(1, "reward/greedy") != 0
    if name == "dapo":
        check_dapo(result)


def check_dapo(result) -> None:
    """Groups were replaced, and long answers punished: the rest of the reward is the function's."""
    assert (
        sum(m.get("training/filter_groups/evicted_samples", 0) for m in result.metrics.values()) > 0
    )
    for step in (1, 2):
        penalty = result.at(step, "reward/overlong_reward")
        score = result.at(step, "reward/score") + penalty
        assert result.at(step, "critic/score/mean") == pytest.approx(score, abs=1e-5)
        assert (penalty < 0) == (result.at(step, "reward/overlong") > 0)
    assert any(result.at(step, "reward/overlong") > 0 for step in (1, 2))


def test_dapo_goes_on_where_no_group_has_both(run):
    """Random weights get nothing right: verl alone would sample its first batch for ever."""
    result = run("algo=dapo", "trainer.total_training_steps=1", *options("dapo"))
    # 2 prompts a batch, 10 batches: when 20 prompts are drawn, what is there is taken
    assert 2 <= result.at(1, "training/filter_groups/evicted_samples") <= 20
    assert result.at(1, "reward/acc") == 0
