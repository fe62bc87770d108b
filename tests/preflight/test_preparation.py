"""prepare(config): its order, and that nothing is made twice."""

import sys
from collections import Counter

import pytest

from preflight import prepare, values
from preflight.memory import plan, sizes
from preflight.mistakes import Mistake
from preflight.preparation import Preparation

ONCE = (plan.plan, sizes.setup_of, values.faults)


def calls(function, config) -> dict[str, int]:
    """How often those of ONCE run in `function(config)`, by whatever name they are called."""
    names, found = {each.__code__: each.__name__ for each in ONCE}, Counter()

    def note(frame, event, _):
        if event == "call" and frame.f_code in names:
            found[names[frame.f_code]] += 1

    sys.setprofile(note)
    try:
        function(config)
    finally:
        sys.setprofile(None)
    return dict(found)


@pytest.mark.parametrize("algo", ["grpo", "ppo", "sft"])
def test_the_plan_and_the_checks_of_values_are_made_once_in_a_start(configure, algo):
    assert calls(prepare, configure(f"algo={algo}")) == {each.__name__: 1 for each in ONCE}


def test_nobody_calculates_with_unusable_values(configure):
    """Not even where their check is left out."""
    wrong = ["data.train_batch_size=x", "lab.plan=auto"]
    with pytest.raises(Mistake, match=r"^data\.train_batch_size=x must be a whole number"):
        prepare(configure(*wrong))
    for skip in ("lab.preflight.skip=[]", "lab.preflight.skip=[values]"):
        found = calls(Preparation, configure(*wrong, skip))
        assert found == {"faults": 1}
    expected = Preparation(configure(*wrong)).expected
    assert expected.text().startswith("no plan: data.train_batch_size=x must be")


def test_the_checks_see_what_was_chosen(configure):
    def check_fit(*more):
        config = configure("hw=a100", "lab.model.path=Qwen/Qwen2.5-7B-Instruct", *more)
        preparation = Preparation(config)
        fit = next(f for f in preparation.findings(("memory",)) if f.name == "check_fit")
        return config, preparation.expected, fit

    _, expected, fit = check_fit()
    assert not expected.plan.fits and fit.is_wrong and "lab.lora_rank=32" in fit.message
    config, expected, fit = check_fit("lab.plan=auto")
    assert expected.plan.fits and fit.message is None
    assert "lab.lora_rank=32" in expected.chosen
    assert config.lab.lora_rank == config.actor_rollout_ref.model.lora_rank == 32
