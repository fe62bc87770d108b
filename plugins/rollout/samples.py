"""Names of prompts and samples in verl's queue, made and read here alone.

verl names a prompt by its uid (a uuid4), and the outputs of its sessions (the n answers to a prompt) by
keys `{uid}_{session}_{output}` (verl/trainer/ppo/v1/replay_buffer.py:69, 0.9.1). Estimators group
answers by their field `uid`.

The way of a sample that could not be graded (broken data, a broken grader, a stopped call):
1. its reward is NaN: the function returned that, or was stopped (rewards/_limits/calls.py);
2. agent_loop.py masks it: score 0, a response mask of 0, `masked` = 1 among the parts of its reward,
   and `masked_uid` in its field `uid`: alone in its group, it is in nobody's mean;
3. patches/reward_infos.py counts it (`reward/masked`), leaves it out of the means of a validation, and ends
   a run whose step has no graded answer.
"""

import re
from typing import NamedTuple

MASKED = re.compile(r"(.*)-masked-\d+", re.DOTALL)


class Key(NamedTuple):
    """What a key says of an output."""

    uid: str
    session: int
    output: int


def make_key(uid: str, session: int, output: int = 0) -> str:
    """The key of an output; an agent of one turn has one output, 0."""
    return f"{uid}_{session}_{output}"


def read_key(key: str) -> Key:
    """What `make_key` was given.

    Raises:
        ValueError: it is not the key of an output.
    """
    try:
        uid, session, output = key.rsplit("_", 2)
        return Key(uid, int(session), int(output))
    except ValueError:
        raise ValueError(f"{key!r} is not the key of an output: UID_SESSION_OUTPUT") from None


def masked_uid(uid: str, session: int) -> str:
    """The group of a sample that could not be graded: its own."""
    return f"{uid}-masked-{session}"


def prompt_uid(uid: str) -> str:
    """The uid of the prompt of a sample, masked or not."""
    found = MASKED.fullmatch(uid)
    return found[1] if found else uid
