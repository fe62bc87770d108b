"""Rows of every kind of data, and all checks by name, for the tests of preflight."""

import pytest

from preflight.checks import DEFAULT, SLOW, checks

RL_ROW = {
    "data_source": "openai/gsm8k", "prompt": [{"role": "user", "content": "q"}], "ability": "x",
    "reward_model": {"style": "rule", "ground_truth": "1"}, "extra_info": {"index": 0, "split": "train"},
}  # fmt: skip
SFT_ROW = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
ASKED, SAID = [[message] for message in SFT_ROW["messages"]]
PAIR = {"prompt": ASKED, "chosen": SAID, "rejected": [SAID[0] | {"content": "b"}]}
CHAIN = {"prompt": ASKED, "steps": ["a", "b"], "labels": [1.0, 0.0]}


def all_checks() -> dict:
    return checks(DEFAULT) | checks(SLOW)


def each(mistakes: dict[str, list]):
    """A test of each case of {check: [(overrides, what it says), ...]}."""
    cases = [(name, *case) for name, some in mistakes.items() for case in some]

    @pytest.mark.parametrize(("name", "overrides", "text"), cases)
    def test_each_mistake_is_found(configure, name, overrides, text):
        line = all_checks()[name](configure(*overrides))
        assert line is not None and text in line
        assert "\n" not in line

    return test_each_mistake_is_found
