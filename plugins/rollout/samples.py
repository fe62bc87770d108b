"""Names of prompts and samples in verl's queue, made and read here alone, and the seeds that come of them.

verl names the outputs of a prompt's sessions (the n answers to it) by keys `{uid}_{session}_{output}`
(verl/trainer/ppo/v1/replay_buffer.py:69, 0.9.1). Estimators group answers by their field `uid`. A uid says
here where the prompt stands in the run (`make_uid`; verl's own is a uuid4): sorted by it, answers have the
order of the data, and the seed of an answer that is made of it is the same in each run of one seed, and
another one in another step or for the same prompt a second time.

The way of a sample that could not be graded (broken data, a broken grader, a stopped call):
1. its reward is NaN: the function returned that, or was stopped (rewards/_limits/calls.py);
2. agent_loop.py masks it: score 0, a response mask of 0, `masked` = 1 among the parts of its reward,
   and `masked_uid` in its field `uid`: alone in its group, it is in nobody's mean;
3. patches/reward_infos.py counts it (`reward/masked`), leaves it out of the means of a validation, and ends
   a run whose step has no graded answer.
"""

import re
import zlib
from array import array
from collections.abc import Iterable
from typing import NamedTuple

MASKED = re.compile(r"(.*)-masked-\d+", re.DOTALL)


class Key(NamedTuple):
    """What a key says of an output."""

    uid: str
    session: int
    output: int


def make_uid(partition: str, step: int, number: int) -> str:
    """The name of a prompt: the `number`th that was taken in a step. verl wants no "_" in it."""
    return f"{partition}-{step:06d}-{number:06d}"


def seed_of(*parts: int | str) -> int:
    """A seed from 0 to 2**32 - 1 that comes of these alone: the same in each process."""
    return zlib.crc32(" ".join(map(str, parts)).encode())


def answer_seed(seed: int, uid: str, session: int, validate: bool) -> int:
    """Of all that one answer draws."""
    return seed_of(seed, "val" if validate else "train", uid, session)


def seed_request(params: dict, prompt_ids: Iterable[int]) -> dict:
    """Sampling parameters of one request for an answer: with a seed of its own, if the answer has one.

    In each turn of a conversation the prompt is another one, so that no turn draws what the last one drew.
    Of two answers to one prompt the seeds differ if those of the answers do.
    """
    if params.get("seed") is None:
        return params
    return params | {"seed": zlib.crc32(array("q", prompt_ids).tobytes(), params["seed"])}


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
