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


def test_masked_samples_of_a_prompt_are_each_alone():
    uids = {samples.masked_uid(uid, session) for uid in ("a", "b") for session in (0, 1)}
    assert len(uids) == 4


@pytest.mark.parametrize("key", ["", "a", "a_0", "a_b_c", "0b6d2f5e-6a0c-4d0b-9f0e-3c1d7f1a2b3c"])
def test_what_is_not_a_key(key):
    with pytest.raises(ValueError, match="is not the key of an output: UID_SESSION_OUTPUT"):
        samples.read_key(key)
