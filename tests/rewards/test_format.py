"""reward=format: patterns and JSON schemas, whole responses and parts of them, any text."""

import asyncio
import json
import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards import format as reward
from rewards._limits.calls import Limits, call

ANSWER = r"<answer>[^<]+</answer>"
POINT = {
    "type": "object",
    "properties": {"x": {"type": "number"}, "y": {"type": "number"}},
    "required": ["x", "y"],
    "additionalProperties": False,
}
GOOD = '{"x": 1, "y": 2.5}'


def score(text, **options):
    return reward.compute_score("s", text, None, **options)


@pytest.mark.parametrize(
    ("text", "strict", "outcome"),
    [
        ("<answer>4</answer>", True, "valid"),
        (" \n<answer>4</answer>\n", True, "valid"),
        ("It is <answer>4</answer>", True, "mismatch"),
        ("It is <answer>4</answer>", False, "valid"),
        ("<think>x</think><answer>4</answer>", True, "valid"),
        ("<answer>4</answer></think>4", False, "mismatch"),
        ("answer answer answer 4", False, "mismatch"),
        ("", True, "empty"),
        (None, False, "empty"),
    ],
)
def test_a_pattern(text, strict, outcome):
    result = score(text, pattern=ANSWER, strict=strict)
    good = float(outcome == "valid")
    assert result == {"score": good, "found": good, "valid": good, "outcome": outcome}


@pytest.mark.parametrize(
    ("text", "strict", "outcome"),
    [
        (GOOD, True, "valid"),
        (f"\n {GOOD} ", True, "valid"),
        (f"<think>hm</think>{GOOD}", True, "valid"),
        ('{"x": 1}', True, "mismatch"),
        ('{"x": 1, "y": "2"}', True, "mismatch"),
        ('{"x": 1, "y": 2, "z": 3}', True, "mismatch"),
        ('{"x": 1, "y": NaN}', True, "no_json"),
        ("{'x': 1, 'y': 2}", True, "no_json"),
        ("null", True, "mismatch"),
        (f"Here: {GOOD}", True, "no_json"),
        (f"Here: {GOOD}", False, "valid"),
        (f"```json\n{GOOD}\n```\nDone.", False, "valid"),
        (f"In {{this}} case [sic] {GOOD}!", False, "valid"),
        (f'{{"x": 1}} or {GOOD}', False, "valid"),
        (f'{GOOD} or {{"x": 1}}', False, "mismatch"),  # the last counts
        (f'{{"point": {GOOD}}}', False, "mismatch"),  # what stands in another is not the answer
        (f'{GOOD} and {{"x": 1', False, "valid"),
        ('{"x": 1, "y": ' + "9" * 5000 + "}", False, "no_json"),
        ("x y required number object", False, "no_json"),
        ("[" * 100_000, False, "no_json"),
        ('{"x":' * 100_000, False, "no_json"),
        ("", True, "empty"),
        (None, False, "empty"),
    ],
)  # fmt: skip
def test_a_schema(text, strict, outcome):
    result = score(text, schema=POINT, strict=strict)
    assert result["outcome"] == outcome
    assert result["score"] == result["valid"] == float(outcome == "valid")
    assert result["found"] == float(outcome in ("valid", "mismatch"))


def test_null_can_be_the_answer():
    assert score("null", schema={"type": "null"})["score"] == 1.0
    assert score("7", schema={"type": "integer"})["score"] == 1.0


def test_options(tmp_path):
    file = tmp_path / "point.json"
    file.write_text(json.dumps(POINT))
    assert score(GOOD, schema=str(file))["score"] == 1.0
    assert score("<think>x</think>y", pattern="y", thinking=True)["score"] == 0.0
    both = {"pattern": "y", "good": 0.2, "bad": -1}
    assert (score("y", **both)["score"], score("n", **both)["score"]) == (0.2, -1.0)


def test_draft_2020_12():
    schema = {"prefixItems": [{"const": 1}], "items": False}
    assert (
        score("[1]", schema=schema)["score"] == 1.0 and score("[1, 2]", schema=schema)["score"] == 0
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "one of the two"),
        ({"pattern": "x", "schema": {}}, "one of the two"),
        ({"pattern": "("}, "unterminated"),
        ({"pattern": 5}, "pattern must be text or null, not 5"),
        ({"schema": {"type": "obj"}}, "'obj' is not valid"),
        ({"schema": "/no/such.json"}, "No such file"),
        ({"pattern": "x", "good": math.nan}, "good must be a number"),
        ({"pattern": "x", "bad": 2}, "bad must be at most 1"),
        ({"pattern": "x", "strict": 1}, "strict must be true or false"),
        ({"patern": "x"}, "Did you mean pattern\\?"),
    ],
)
def test_bad_options(options, words):
    for refuses in (lambda: score("x", **options), lambda: reward.bars(**options)):
        with pytest.raises(ValueError, match=words):
            refuses()


def test_nothing_is_fetched_for_a_schema():
    with pytest.raises(ValueError, match="nothing at"):
        score("1", schema={"$ref": "http://x.invalid/schema.json"})


def test_a_schema_without_end_fits_nothing():
    assert score("1", schema={"$ref": "#"})["score"] == 0.0


def test_bars_hold():
    bars = reward.bars(pattern=ANSWER, good=0.5, bad=-0.5)
    assert bars == {"range": (-0.5, 0.5), "reference": 0.5, "empty": -0.5}
    assert reward.bars(pattern=".*")["empty"] == 1.0  # such a form asks for nothing
    assert reward.reference_answer("x", {}) is None


def test_a_pattern_without_end_is_stopped():
    async def ask(text, timeout_s):
        row, options = ("s", text, None, {}), {"pattern": "(a+)+b"}
        limits = Limits(timeout_s=timeout_s)
        return await call("pkg://rewards.format", "compute_score", row, options, limits)

    async def both():
        return await ask("a" * 60, 1), await ask("aab", 60)

    stopped, good = asyncio.run(both())
    assert stopped["stopped"] == "timeout" and math.isnan(stopped["score"])
    assert (good["stopped"], good["score"]) == ("no", 1.0)


VALUES = st.none() | st.booleans() | st.text(max_size=5)
JSONS = st.recursive(VALUES, lambda s: st.lists(s) | st.dictionaries(st.text(max_size=3), s))
NESTED = JSONS.filter(lambda value: isinstance(value, dict | list))


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=200) | JSONS.map(json.dumps), st.integers(0, 9), st.booleans())
def test_any_text_gives_a_score(text, times, strict):
    assert score(text * times, schema=POINT, strict=strict)["score"] in (0.0, 1.0)
    assert score(text * times, pattern=ANSWER, strict=strict)["score"] in (0.0, 1.0)


@settings(deadline=None, max_examples=100)
@given(NESTED, st.sampled_from(["", "so: ", "```json\n", "a } b ] "]))
def test_json_is_found_in_prose(value, before):
    text = before + json.dumps(value) + "\n``` done"
    assert score(text, schema={"const": value}, strict=False)["score"] == 1.0


HOSTILE = ["{", "[", '{"', '{"a":', '{"\\"', "[1,", "{}", '["a', "NaN[", "```json\n", "\ud800"]


@pytest.mark.parametrize("piece", HOSTILE)
def test_linear_time(piece):
    def seconds(size):
        start = time.process_time()
        score(piece * (size // len(piece)), schema=POINT, strict=False)
        score(piece * (size // len(piece)), pattern=ANSWER, strict=False)
        return time.process_time() - start

    seconds(1000)
    assert seconds(100_000) < 30 * max(seconds(10_000), 0.02)
