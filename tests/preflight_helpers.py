"""Rows of every kind of data, and all checks by name, for the tests of preflight."""

from preflight import DEFAULT, SLOW, checks

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
