"""reward=sql: shapings, options, and any text that a model may write."""

import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sql_helpers import MODES, outcome, score

from rewards._sql.shaping import DATA_FAULTS, OUTCOMES, SHAPINGS, score_of


def test_formats(db):
    good, reference = "```sql\nSELECT 5\n```", "SELECT count(*) FROM item"
    two = f"<think>x</think>{good}{good}"
    assert outcome(two, reference, db, fence=False) == "match"
    assert outcome(two, reference, db, fence=False, strict_format=True) == "format"
    assert (
        outcome("</think></think>" + good, reference, db, fence=False, strict_format=True)
        == "format"
    )
    assert outcome("x</think>" + good, reference, db, fence=False, strict_format=True) == "match"
    assert outcome("SELECT 5", reference, db, fence=False) == "no_sql"
    assert outcome("SELECT 5", reference, db, fence=False, bare_select=True) == "match"
    assert outcome(None, reference, db, fence=False) == "no_sql"


@pytest.mark.parametrize("shaping", SHAPINGS)
def test_a_non_match_scores_below_every_match(shaping):
    shares = [0.0, 0.3, 0.5, 0.99, 1.0]
    best = max(
        score_of(shaping, outcome, share)
        for outcome in OUTCOMES
        for share in shares
        if outcome != "match" and outcome not in DATA_FAULTS
    )
    assert all(score_of(shaping, "match", share) > best for share in shares)
    assert all(math.isnan(score_of(shaping, outcome)) for outcome in DATA_FAULTS)


@pytest.mark.parametrize(
    ("shaping", "match", "wrong", "broken", "no_sql"),
    [
        ("arctic", 1.0, 0.1, 0.0, 0.0),
        ("binary", 1.0, 0.0, 0.0, 0.0),
        ("skyrl", 1.0, 0.0, 0.0, -1.0),
        ("sql_r1", 6.0, 0.0, -1.0, -1.0),
        ("soft_f1", 1.0, 0.0, 0.0, 0.0),
    ],
)
def test_shaping(db, shaping, match, wrong, broken, no_sql):
    reference = "SELECT count(*) FROM item"
    options = {"shaping": shaping}
    assert score("SELECT 5", reference, db, **options)["score"] == match
    assert score("SELECT 6", reference, db, **options)["score"] == wrong
    assert score("SELECT nosuch", reference, db, **options)["score"] == broken
    assert score("DROP TABLE item", reference, db, **options)["score"] == broken
    assert score("nothing", reference, db, fence=False, **options)["score"] == no_sql


def test_soft_f1_pays_for_partial_answers(db):
    reference = "SELECT id, name, price FROM item"

    def soft(sql, reference=reference, **options):
        return score(sql, reference, db, shaping="soft_f1", **options)["score"]

    assert 0 < soft("SELECT id, name, 'x' FROM item") <= 0.5
    assert (
        soft("SELECT id, name FROM item ORDER BY id DESC", "SELECT id, name FROM item ORDER BY id")
        == 0.5
    )
    assert soft("SELECT id, name, price FROM item WHERE id < 2") < 0.5
    assert (
        soft("SELECT id, name, price FROM item WHERE id < 4") > soft("SELECT 'a', 'b', 'c'") == 0.0
    )
    assert soft("SELECT id FROM item", ["SELECT 'x', 'y'", reference], mode="bird") > 0


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "spyder"}, {"mode": None}, {"mode": ["bird"]}, {"shaping": "dense"},
        {"shaping": ["arctic"]},
        {"timeout_s": "2"}, {"timeout_s": 0}, {"timeout_s": float("nan")}, {"timeout_s": True},
        {"grace_s": -1}, {"workers": 0}, {"workers": 1.5}, {"keep_distinct": 1},
        {"keep_distinct": "false"}, {"max_rows": 0}, {"memory_mib": 1}, {"max_bytes": [8]},
        {"bare_select": None}, {"shapping": "arctic"}, {"time_out_s": 2},
    ],
)  # fmt: skip
def test_bad_options_are_named(db, options):
    with pytest.raises(ValueError, match=next(iter(options)).replace("shapping", "shaping")[:4]):
        score("SELECT 1", "SELECT 1", db, **options)


def test_arguments_of_verl_are_left_alone(db):
    options = {"reward_router_address": None, "reward_model_tokenizer": object()}
    assert score("SELECT 1", "SELECT 1", db, **options)["acc"] == 1.0


SQL_PIECES = st.sampled_from(
    ["SELECT ", "id", "*", " FROM item", " WHERE ", "(", ")", "'", '"', "--", "/*", ";", "1", ",",
     " UNION ", "DROP TABLE item", "```", "```sql\n", "\n```", "<answer>", "</answer>", "</think>"]
)  # fmt: skip


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.one_of(st.text(), st.lists(SQL_PIECES, max_size=12).map("".join)),
    st.booleans(),
    st.sampled_from(list(MODES)),
    st.sampled_from(list(SHAPINGS)),
)
def test_any_text_gets_a_finite_score_in_range(db, text, fence, mode, shaping):
    options = {**MODES[mode], "shaping": shaping}
    result = score(text, "SELECT id, name FROM item", db, fence=fence, **options)
    low, high = {"sql_r1": (-1, 6), "skyrl": (-1, 1)}.get(shaping, (0, 1))
    assert low <= result["score"] <= high
    assert result["outcome"] in OUTCOMES
    json.dumps(result, allow_nan=False)
