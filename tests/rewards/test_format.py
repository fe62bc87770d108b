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
        ("<answer> \n</answer>", True, "mismatch"),  # nothing is said
        ("<answer> 4 </answer>", True, "valid"),
        ("<think><answer>4</answer>", False, "empty"),  # cut off while it thinks
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
        (f"{GOOD}\n\nSources: [1], [2]", False, "valid"),  # a citation is of another kind
        (f"As in [1]: {GOOD}", False, "valid"),
        ("[1]", False, "mismatch"),
        ('{"x": 1e999, "y": 2}', False, "mismatch"),
        ('{"x": 1e999, "y": 2}', True, "mismatch"),
        ('{"x": -' + "9" * 400 + ', "y": 2}', True, "mismatch"),
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


@pytest.mark.parametrize(
    ("schema", "text", "good"),
    [
        ({"type": "array"}, '[1] as in {"a": 1}', True),
        ({"type": "array", "minItems": 2}, '[1, 2] as in {"a": 1} and [3]', False),  # the last array
        ({"type": ["object", "null"]}, '{"a": 1} [1]', True),
        ({"$ref": "#/$defs/p", "$defs": {"p": {"type": "object"}}}, '{"a": 1} [1]', True),
        ({"allOf": [{"type": "object"}, {"required": ["a"]}]}, '{"a": 1} [1]', True),
        ({"anyOf": [{"type": "object"}, {"$ref": "#/$defs/p"}], "$defs": {"p": POINT}}, '{"a": 1} [1]', True),
        ({"anyOf": [{"type": "object"}, {"type": "array", "minItems": 2}]}, '{"a": 1} [1]', False),
        ({"const": {"a": 1}}, '{"a": 1} [1]', False),  # no kind is named
        ({"required": ["a"], "type": "object"}, '{"a": {"a": 1}} {"b": [1]}', False),
    ],
)  # fmt: skip
def test_the_last_of_the_schemas_kind(schema, text, good):
    assert score(text, schema=schema, strict=False)["score"] == float(good)


NUMBERS = st.sampled_from(
    ["1e999", "-1e999", "1e308", "5e-324", "9" * 309, "9" * 400, "9" * 5000, "0.1", "-0", "1E-400"]
)


@settings(deadline=None, max_examples=150)
@given(
    NUMBERS,
    st.sampled_from([0.01, 0.5, 3, 1e-300, 1e300]),
    st.sampled_from(["{}", "[{}]", '{{"x": {}}}']),
)
def test_no_number_makes_the_library_raise(number, divisor, around):
    each = {
        "multipleOf": divisor,
        "maximum": 1e307,
        "exclusiveMinimum": -1e307,
        "uniqueItems": True,
    }
    schema = each | {"items": each, "properties": {"x": each}}
    for strict in (True, False):
        result = score(around.format(number), schema=schema, strict=strict)
        assert result["score"] in (0.0, 1.0)
        assert result["score"] == 0.0 or abs(float(number)) < 1e307


def test_a_number_that_no_double_holds_fits_nothing():
    for text in ("1e999", "[1e999]", "9" * 400, '{"a": [{"b": -1e999}]}'):
        assert score(text, schema={})["score"] == 0.0
    assert score("1e308", schema={"multipleOf": 0.01})["outcome"] in ("valid", "mismatch")


def test_deep_nesting_is_a_verdict():
    schema = {"type": "array", "items": {"$ref": "#"}}
    for depth in (300, 900, 50_000):
        assert score("[" * depth + "]" * depth, schema=schema)["score"] in (0.0, 1.0)


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
        ({"schema": {"pattern": r"\p{L}"}}, "is not a 'regex'"),
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
