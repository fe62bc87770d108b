"""reward=composite: sums of real rewards, parts in the log, masks, errors, the data check."""

import asyncio
import json
import math
import subprocess
import sys
import time

import pytest
from helpers import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from rewards import composite
from rewards._limits.calls import Limits, RewardError, call

PARTS = {"exact": 0.9, "length": 0.1}
OPTIONS = {"length": {"max_length": 20, "cache": 10}}


def score(answer, reference="Paris", info=None, **options):
    options = {"parts": PARTS} | options
    if "length" in (options["parts"] or ()):
        options.setdefault("options", OPTIONS)
    return asyncio.run(composite.compute_score("s", answer, reference, info, **options))


@pytest.mark.parametrize(
    ("answer", "exact", "length"),
    [
        ("Paris", 1.0, 0.0),
        ("x" * 15, 0.0, -0.5),
        ("Paris" + "!" * 10, 1.0, -0.5),
        ("x" * 99, 0, -1),
    ],
)
def test_the_sum_and_its_parts(answer, exact, length):
    result = score(answer)
    assert result["score"] == pytest.approx(0.9 * exact + 0.1 * length)
    assert (result["exact/score"], result["length/score"]) == (exact, length)
    assert result["acc"] == result["exact/acc"] == exact
    assert result["exact/outcome"] == ("match" if exact else "mismatch")
    assert result["length/length"] == len(answer)
    assert result["stopped"] == result["exact/stopped"] == "no"
    assert all(isinstance(value, float | str) for value in result.values())


def test_sql_in_a_sum(db):
    answer, info = "```sql\nSELECT 1\n```", {"db": db}
    parts = {"sql": 0.9, "length": 0.1}
    right = score(answer, "SELECT 1", info, parts=parts, options={})
    assert (right["score"], right["acc"], right["sql/outcome"]) == (0.9, 1.0, "match")
    wrong = score(answer, "SELECT 2", info, parts=parts, options={"sql": {"shaping": "skyrl"}})
    assert wrong["score"] == wrong["sql/score"] == 0.0
    faulty = score(answer, "SELECT nosuch", info, parts=parts, options={})
    assert math.isnan(faulty["score"]) and math.isnan(faulty["acc"])
    assert faulty["sql/outcome"] == "gold_error" and faulty["length/score"] == 0.0


def test_steps_of_a_part(db):
    answer = "```sql\nWITH a AS (SELECT * FROM item) SELECT COUNT(*) FROM a\n```"
    reference, info = "SELECT COUNT(*) FROM item", {"db": db}
    alone = score(answer, reference, info, parts={"sql_process": 1.0}, options={})
    half = score(answer, reference, info, parts={"sql_process": 0.5, "length": 1.0}, options={})
    [(start, end, whole)] = alone["steps"]
    assert whole > 0 and half["steps"] == [(start, end, 0.5 * whole)]
    assert half["score"] == 0.5 * alone["score"] and "sql_process/steps" not in half


def test_whose_acc_it_is():
    parts = {"length": 5.0, "exact": 0.5, "math": 1.0}
    answer = "Lyon"
    assert (
        score(r"\boxed{4}", ["5", "boxed4"], parts=parts)["acc"] == 1.0
    )  # of exact, the first with one
    assert score(r"\boxed{4}", ["5", "boxed4"], parts=parts, main="math")["acc"] == 0.0
    assert "acc" not in score(answer, parts=parts, main="length")
    assert "acc" not in score(answer, parts={"length": 1.0})


def test_weights():
    assert score("Paris", parts={"exact": -2})["score"] == -2.0
    logged = score(
        "x" * 99, None, parts={"exact": 0, "length": 1.0}
    )  # no reference answer: exact is NaN
    assert logged["score"] == -1.0 and math.isnan(logged["exact/score"])
    assert math.isnan(score("x", None)["score"])


def test_options_of_a_config_are_as_good_as_plain_ones():
    config = OmegaConf.create({"parts": {"math": 1}, "options": {"math": {"accept": ["hashes"]}}})
    assert score("#### 0.5", "1/2", **dict(config))["score"] == 1.0
    assert score("0.5", "1/2", **dict(config))["score"] == 0.0


def test_a_part_that_is_stopped_masks_the_sum():
    async def ask():
        row = ("s", "a" * 60, "Paris", {})
        options = {"parts": {"exact": 1, "format": 1}, "options": {"format": {"pattern": "(a+)+b"}}}
        return await call(
            "pkg://rewards.composite", "compute_score", row, options, Limits(timeout_s=4)
        )

    result = asyncio.run(ask())
    assert math.isnan(result["score"]) and result["stopped"] == "timeout"
    assert (result["format/stopped"], result["exact/stopped"]) == ("timeout", "no")
    assert result["exact/score"] == result["acc"] == 0.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"parts": None}, "needs parts"),
        ({"parts": {"exact": 0}}, "needs parts"),
        ({"parts": ["exact"]}, "parts must be a mapping or null, not a list"),
        ({"parts": {"exakt": 1}}, r"'exakt'.*Did you mean exact.*There is: .*length.*sql"),
        ({"parts": {"composite": 1}}, "unknown name in parts 'composite'"),
        ({"parts": {"prm": 1}}, "prm can't be in parts"),
        ({"parts": {"exact": "1"}}, "weight of exact must be a number"),
        ({"parts": {"exact": True}}, "weight of exact must be a number"),
        ({"parts": {"exact": 1e308, "math": 1e308}}, "weight of exact must be a number from -1e"),
        ({"parts": {"exact": float("nan")}}, "weight of exact must be a number"),
        ({"parts": {"exact": -(10**400)}}, "weight of exact must be a number"),
        ({"options": {"math": {}}}, "'math'.*There is: exact, length"),
        ({"options": ["length"]}, "options must be a mapping, not a list"),
        ({"options": {"length": {"max_len": 9}}}, "Did you mean max_length\\?"),
        ({"options": {"length": {"cache": 0}}}, "cache must be"),
        ({"main": "math"}, "'math'.*There is: exact, length"),
        ({"part": {}}, "Did you mean parts\\?"),
    ],
)
def test_bad_options(options, words):
    options = {"parts": PARTS} | options
    for refuses in (lambda: score("x", **options), lambda: composite.Options.of(options)):
        with pytest.raises(ValueError, match=words):
            refuses()


def test_an_error_of_a_part_is_told():
    options = {"format": {"schema": {"$ref": "http://x.invalid/"}}}  # seen only when it is used
    with pytest.raises(RewardError, match=r"rewards\.format raised(?s:.*)nothing at \$ref"):
        score("1", parts={"format": 1}, options=options)


def test_a_number_that_a_library_cannot_bear_is_a_wrong_answer():
    options = {"format": {"schema": {"multipleOf": 0.1}}}
    for answer in ("1e999", "9" * 400):
        result = score(answer, "1", parts={"math": 1, "format": 0.1}, options=options)
        assert result["score"] == 0.0


def test_thinking_without_an_end_is_no_answer():
    assert score("<think>\\boxed{4}", "4", parts={"math": 1, "exact": 1})["score"] == 0.0


def test_bars_hold():
    bars = composite.bars(parts=PARTS, options=OPTIONS)
    assert bars == {
        "range": (pytest.approx(-0.1), 0.9),
        "reference": pytest.approx(0.8),
        "empty": 0.0,
    }
    answer = composite.reference_answer("Paris", {}, parts=PARTS)
    assert answer == "Paris" and score(answer)["score"] >= bars["reference"]
    assert score("")["score"] <= bars["empty"]
    turned = composite.bars(parts={"exact": -1, "length": 0.5})
    assert turned["range"] == (-1.5, 0.0) and turned["empty"] == 0.0
    assert composite.reference_answer("Paris", {}) is None


def test_soup_and_repeated_text_dont_pay():
    assert max(score("Paris " * 50)["score"], score("Paris Lyon Nice")["score"]) <= 0


def test_the_data_of_all_parts_is_checked(db):
    rows = [
        {"gts": "SELECT 1", "db": db},
        {"gts": "SELECT nosuch", "db": db},
        {"gts": "", "db": db},
    ]
    faults = composite.row_faults(iter(rows), parts={"length": 1, "exact": 1, "sql": 1})
    found = [(fault["index"], fault["message"].split(":")[0]) for fault in faults]
    assert found == [(1, "sql"), (2, "exact"), (2, "sql")]
    assert composite.row_faults(iter(rows)) == []


@settings(deadline=None, max_examples=25)
@given(st.text(max_size=200), st.integers(0, 20))
def test_any_text_gives_a_score_in_range(text, times):
    low, high = composite.bars(parts=PARTS, options=OPTIONS)["range"]
    assert low <= score(text * times)["score"] <= high


def test_linear_time():
    def seconds(size):
        start = time.perf_counter()
        score("a " * size)
        return time.perf_counter() - start

    seconds(10)
    assert seconds(100_000) < 30 * max(seconds(10_000), 0.1)


def test_from_the_command_line(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"output": "Paris", "gts": "Paris"}) + "\n")
    command = [sys.executable, "-m", "rewards", "composite", "--file", rows, "--set"]
    parts = [f"parts={json.dumps(PARTS)}", f"options={json.dumps(OPTIONS)}"]
    done = subprocess.run([*command, *parts], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split() == ["scored", "1", "100.0%", "0.9000"]
    wrong = [*command, 'parts={"exakt": 1}']
    done = subprocess.run(wrong, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "Did you mean exact" in done.stderr
    assert len(done.stderr.splitlines()) == 1
