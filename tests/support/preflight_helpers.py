"""Rows of every kind of data, and all checks by name, for the tests of preflight."""

import inspect

import pytest

from preflight.checks import DEFAULT, SLOW, Note, checks
from preflight.mistakes import Mistake
from preflight.preparation import Preparation

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


def message_of(name: str, config) -> str | None:
    """What the check `name` says of a config."""
    check = all_checks()[name]
    if "expected" in inspect.signature(check).parameters:
        return Preparation(config).look(name, check).message
    try:
        return check(config)
    except Mistake as mistake:
        return str(mistake)


def caught(name: str, config) -> str:
    """The line with which the check `name` refuses a config; fails if it does not, or says it in several lines.

    test_every_check_catches_something looks for the calls of this function, and of `noted`.
    """
    line = message_of(name, config)
    assert line is not None and not isinstance(line, Note), f"{name} says {line!r}"
    assert "\n" not in line
    return line


def noted(name: str, config) -> str:
    """The Note that the check `name` has about a config, for a check that never refuses; fails if it has none."""
    line = message_of(name, config)
    assert isinstance(line, Note) and "\n" not in line, f"{name} says {line!r}"
    return line


def each(mistakes: dict[str, list], *always: str):
    """A test of each case of {check: [(overrides, what its line has), ...]}; a case's overrides win over `always`."""
    cases = [(name, *case) for name, some in mistakes.items() for case in some]

    @pytest.mark.parametrize(("name", "overrides", "text"), cases)
    def test_each_mistake_is_found(configure, name, overrides, text):
        assert text in caught(name, configure(*always, *overrides))

    return test_each_mistake_is_found


def said_by(names, config) -> dict[str, str]:
    """What these checks say about a config, those that say something."""
    lines = {name: all_checks()[name](config) for name in names}
    return {name: line for name, line in lines.items() if line and not isinstance(line, Note)}
