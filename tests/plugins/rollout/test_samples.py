"""Names of samples are read as they were made."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.rollout import samples

UIDS = st.uuids(version=4).map(str) | st.uuids().map(lambda x: f"pad{x.hex}") | st.text()
NUMBERS = st.integers(0, 10**6)


@given(uid=UIDS, session=NUMBERS, output=NUMBERS)
def test_keys(uid, session, output):
    assert samples.read_key(samples.make_key(uid, session, output)) == (uid, session, output)


@given(uid=UIDS, session=NUMBERS)
def test_uids_of_masked_samples(uid, session):
    assert samples.prompt_uid(samples.masked_uid(uid, session)) == uid


@given(uid=st.uuids(version=4).map(str))
def test_uids_of_other_samples(uid):
    assert samples.prompt_uid(uid) == uid


def test_keys_are_those_of_verl():
    """Its own way to write them (agent_loop_tq.py), and both of its ways to read them (replay_buffer.py,
    trainer_base.py)."""
    uid = str(uuid.uuid4())
    key = samples.make_key(uid, 3)
    assert key == f"{uid}_3_0"
    assert key.split("_")[0] == key.rsplit("_", 2)[0] == uid == samples.read_key(key).uid


def test_names_of_prompts_have_the_order_of_the_data():
    uids = [samples.make_uid("train", step, n) for step in (1, 9, 10) for n in (0, 2, 11)]
    keys = [samples.make_key(uid, session) for uid in uids for session in (0, 2, 10)]
    assert uids == sorted(set(uids))
    assert keys == sorted(set(keys), key=samples.read_key)
    assert not any("_" in uid for uid in uids)  # where verl cuts a key


def test_each_answer_has_a_seed_of_its_own():
    """Of a group, of a prompt that stands in a step twice, of another step, of a validation, of another run."""
    uids = [samples.make_uid("train", step, number) for step in range(3) for number in range(8)]
    asked = [
        (seed, uid, session, validate)
        for seed in (0, 1) for uid in uids for session in range(16) for validate in (False, True)
    ]  # fmt: skip
    seeds = [samples.answer_seed(*one) for one in asked]
    assert len(set(seeds)) == len(seeds)
    assert seeds == [samples.answer_seed(*one) for one in asked]
    # the same in each process, and in each version of this project
    assert samples.answer_seed(0, "train-000001-000000", 3, False) == 2446148646


@given(
    ids=st.lists(st.integers(0, 2**31), max_size=9),
    seeds=st.sets(st.integers(0, 2**32 - 1), max_size=9),
)
def test_seeds_of_requests(ids, seeds):
    """Answers to one prompt differ; so do the turns of one answer; without a seed there is none."""
    of = [samples.seed_request({"seed": seed, "top_p": 1}, ids) for seed in seeds]
    assert len({params["seed"] for params in of}) == len(seeds)
    assert all(params["top_p"] == 1 and 0 <= params["seed"] < 2**32 for params in of)
    for seed in seeds:
        turns = [samples.seed_request({"seed": seed}, ids + [5] * more) for more in range(4)]
        assert len({params["seed"] for params in turns}) == 4
    assert samples.seed_request({"temperature": 0}, ids) == {"temperature": 0}


def test_masked_samples_of_a_prompt_are_each_alone():
    uids = {samples.masked_uid(uid, session) for uid in ("a", "b") for session in (0, 1)}
    assert len(uids) == 4


@pytest.mark.parametrize("key", ["", "a", "a_0", "a_b_c", "0b6d2f5e-6a0c-4d0b-9f0e-3c1d7f1a2b3c"])
def test_what_is_not_a_key(key):
    with pytest.raises(ValueError, match="is not the key of an output: UID_SESSION_OUTPUT"):
        samples.read_key(key)
