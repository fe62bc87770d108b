"""Reference answers of every type that a file holds, and what an answer says after its thinking."""

import json
import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT
from hypothesis import given
from hypothesis import strategies as st

from rewards import exact
from rewards import math as reward_math
from rewards._references import after_thinking, references


@pytest.mark.parametrize(
    ("truth", "texts"),
    [
        (4.0, ["4"]),
        (np.float64(4), ["4"]),
        (np.float32(0.1), ["0.1"]),
        (np.int64(3), ["3"]),
        (np.array(4), ["4"]),
        (np.array("4"), ["4"]),
        (np.array([4.0, 0.5]), ["4", "0.5"]),
        (pd.Series([1.0, None])[0], ["1"]),
        (-4.0, ["-4"]),
        (1e300, ["1e+300"]),
        (Decimal("4.50"), ["4.50"]),
        (Fraction(1, 2), ["1/2"]),
        (["4", 5.0, None, math.nan, " "], ["4", "5"]),
        ("4.0", ["4.0"]),  # a text is what somebody wrote
    ],
)
def test_types(truth, texts):
    assert references(truth) == texts


@pytest.mark.parametrize(
    "missing",
    [None, math.nan, np.nan, np.float32("nan"), pd.NA, pd.NaT, Decimal("nan"), "", [], {}, b"4", True, np.True_,
     [math.nan], np.array(math.nan)],
)  # fmt: skip
def test_what_is_missing_masks_the_row_and_is_told(missing):
    for reward in (exact, reward_math):
        result = reward.compute_score("s", "4", missing)
        assert result["outcome"] == "gold_error" and math.isnan(result["score"])
        assert [f["index"] for f in reward.row_faults([{"gts": missing}, {"gts": "4"}])] == [0]


def test_a_missing_number_as_text_is_no_mathematics():
    for text in ("nan", "NaN"):
        assert reward_math.compute_score("s", r"\\boxed{n^2a}", text)["outcome"] == "gold_error"


@given(st.integers(-(2**53), 2**53))
def test_a_whole_float_is_the_integer(number):
    assert references(float(number)) == references(number) == [str(number)]


@pytest.mark.parametrize(
    ("response", "said"),
    [
        ("a", "a"),
        ("<think>a</think>b", "b"),
        ("a</think>b", "b"),
        ("<think>a", ""),
        ("a<think>b", "a"),
        ("<think>a</think>b<think>c", "b"),
        ("<think>a</think>b</think>c", "c"),
        ("<thinking>a</thinking>b", "b"),
        ("<Think>a", ""),
        (None, ""),
    ],
)
def test_thinking(response, said):
    assert after_thinking(response) == said


CASES = ROOT.parent / "shared/cases/rewards.jsonl"


@pytest.mark.skipif(not CASES.exists(), reason="the file of reported cases is not here")
@pytest.mark.parametrize("name", ["math", "exact"])
def test_reported_cases(name):
    score = {"math": reward_math, "exact": exact}[name].compute_score
    wrong, rows = [], [json.loads(line) for line in CASES.read_text().splitlines()]
    for row in rows:
        given = row["input"]
        if row["reward"] != name or "cli" in given:
            continue
        truth = given["ground_truth"]
        truth = np.array("4") if isinstance(truth, str) and truth.startswith("array(") else truth
        got = score("s", given["solution_str"], truth, given["extra_info"], **given["options"])[
            "score"
        ]
        wanted = row["expected"] if isinstance(row["expected"], list) else [row["expected"]]
        if ("nan" if math.isnan(got) else got) not in wanted:
            wrong.append((given["solution_str"], truth, wanted, got))
    assert not wrong
