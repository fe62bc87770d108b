"""reward=math: pairs that are equal and that aren't, marks, options, hostile answers."""

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

from rewards import math as reward
from rewards._limits.calls import Limits, call

SAME = [  # (reference answer, answer)
    ("1/2", r"\frac{1}{2}"), ("0.5", "1/2"), (r"\dfrac12", "0.5"), ("1/3", "0.333333"), ("½", "0.5"),
    (r"2\frac12", "2.5"), ("-0.5", r"-\frac12"), ("−5", "-5"), ("7", "7."), ("0", "0.0"),
    ("72,000", "72000"), ("1 234 567", "1234567"), ("1234", r"1\,234"), ("1234.5", "1{,}234.5"),
    ("50%", r"50\%"), ("50%", "0.5"), ("50", "50%"), ("0.125", "12.5%"), ("12.5%", "12.5 percent"),
    (r"\{1,2,3\}", r"\{3,2,1\}"), (r"\{1,2\}", "2, 1"), ("1,2", r"2 \text{ and } 1"), (r"\pm 3", "3,-3"),
    ("(1,2]", "(1,2]"), (r"(-\infty,3)", r"(-\infty, 3)"), (r"[0,1] \cup [2,3]", r"[2,3]\cup[0,1]"),
    ("1<x<2", "(1,2)"), ("x<3", "3>x"), ("(1,2)", r"\left(1, 2\right)"),
    (r"5 \text{ cm}", "5"), ("5", "5 cm"), ("18", "18 dollars"), ("18", r"\$18.00"), ("30", r"30~\text{km}^2"),
    (r"5^\circ", "5°"), ("Paris", r"\text{Paris}"), ("paris", "Paris"), ("C", r"\text{(C)}"),
    ("no real solutions", r"\text{No real solutions}"), ("x=5", "5"), ("5", "x=5"), ("y=2x+1", "2x+1"),
    ("2x+y=4", "y=4-2x"), ("x^2+2x+1", "(x+1)^2"), (r"\sqrt{8}", r"2\sqrt{2}"), ("xy", "yx"),
    (r"\frac{1}{\sqrt2}", r"\frac{\sqrt2}{2}"), ("2^{10}", "1024"), ("1e5", "100000"),
    (r"3 \times 10^{-2}", "0.03"), (r"2\pi", "6.283185"), ("3+2i", "2i+3"), ("10!", "3628800"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix}1\\2\end{bmatrix}"),
]  # fmt: skip
OTHER = [
    ("72", "73"), ("1/3", "0.33"), ("5%", "6%"), (r"\{1,2\}", r"\{1,3\}"), ("3", r"3 \text{ or } 4"),
    ("(1,2]", "[1,2]"), ("(1,2)", "(2,1)"), ("5 million", "5"), ("2c", "2"), ("Paris", "London"),
    ("silent", "listen"), ("A", "B"), ("x=5", "y=5"), ("x", "y"), ("x^2+2x+1", "(x-1)^2"), ("2", r"2\pi"),
    ("8", "2, 4, 6, 8"), ("x>3", "x<3"),
]  # fmt: skip
HOSTILE = ["9" * 100_000, "{" * 240 + "1" + "}" * 240, "(" * 240 + "1" + ")" * 240, "=" * 400, "$" * 499,
           "1=" * 200 + "1", ",".join(["1"] * 240), "100000!", "\\" * 499, r"\frac{1}{" * 60,
           r"\begin{pmatrix}" * 20, "answer " * 70]  # fmt: skip


def score(answer, reference, **options):
    return reward.compute_score("s", answer, reference, **options)


def boxed(answer, reference, **options):
    return score(rf"So it is $\boxed{{{answer}}}$.", reference, **options)["outcome"]


@pytest.mark.parametrize(("reference", "answer"), SAME)
def test_equal(reference, answer):
    assert boxed(answer, reference) == "right"


@pytest.mark.parametrize(("reference", "answer"), OTHER)
def test_not_equal(reference, answer):
    assert boxed(answer, reference) == "wrong"


@pytest.mark.parametrize(
    ("response", "outcome"),
    [
        (r"\boxed{3}, no, \boxed{\frac{8}{2}}", "right"),
        (r"\boxed{4} then \boxed{3}", "wrong"),  # the last counts
        (r"\fbox{4}", "right"),
        (r"\boxed{4", "no_answer"),  # never closed, and inside is only a part of it
        ("2 + 2\n#### 4\n", "right"),
        ("#### 4\nbecause 2 + 2 = 5", "right"),
        ("#### 4 apples", "right"),
        (r"\boxed{4} #### 5", "right"),  # boxed before hashes
        ("2 + 2 = 4, that's all", "right"),
        ("it is 3-4", "right"),  # a minus between two numbers is no sign
        ("it is -4", "wrong"),
        (r"<think>\boxed{4}</think> I don't know", "no_answer"),
        (r"<think>\boxed{5}</think> \boxed{4}", "right"),
        (r"\boxed{}", "no_answer"),
        (r"\boxed{\oops{}", "no_answer"),
        (r"\boxed{\frac{1}}", "unparsable"),
        ("", "no_answer"),
        (None, "no_answer"),
        ("1 2 3 4 5 6 7 8 9 10", "wrong"),
        ("equals solution therefore answer boxed", "no_answer"),
    ],
)
def test_where_the_answer_is(response, outcome):
    accept = ["boxed", "hashes"] if response == r"\boxed{4" else list(reward.MARKS)
    result = score(response, "4", accept=accept)
    right = float(outcome == "right")
    assert result == {"score": right, "acc": right, "outcome": outcome}


def test_options():
    assert score("It is 4", "4", accept=["boxed"])["outcome"] == "no_answer"
    assert score(r"\boxed{4} #### 5", "5", accept=["hashes", "boxed"])["outcome"] == "right"
    assert boxed("0.33", "1/3", decimals=2) == "right"
    assert boxed("a+1", "x+1") == "wrong" and boxed("a+1", "x+1", strict=False) == "right"
    assert boxed("5 cm", "5", units=False) == "wrong"
    assert boxed("1 + 1 + 1", "3", max_length=5) == "unparsable"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"accept": ["box"]}, "Did you mean boxed\\?"),
        ({"accept": "boxed"}, "must be a list"),
        ({"accept": []}, "must be a list"),
        ({"decimals": 1.5}, "whole number"),
        ({"decimals": True}, "whole number"),
        ({"max_length": 0}, "at least 1"),
        ({"strict": "yes"}, "true or false"),
        ({"decimal": 3}, "Did you mean decimals\\?"),
    ],
)
def test_bad_options(options, words):
    for refuses in (lambda: score("4", "4", **options), lambda: reward.bars(**options)):
        with pytest.raises(ValueError, match=words):
            refuses()


def test_references():
    assert (
        boxed("4", 4)
        == boxed("4", "The sum is 4.\n#### 4")
        == boxed("4", r"so \boxed{4}")
        == "right"
    )
    assert boxed("4", ["3", "4"]) == "right" and boxed("4", ["{", "4"]) == "right"
    for bad in (None, "", [], r"\frac{1}", {"a": 1}, True):
        result = score("4", bad)
        assert result["outcome"] == "gold_error" and math.isnan(result["score"] + result["acc"])
    rows = [{"ground_truth": reference} for reference in ("4", r"\frac{1}", ["5", "{"], "")] + [{}]
    faults = reward.row_faults(iter(rows))
    assert [fault["index"] for fault in faults] == [1, 2, 3, 4]
    assert {fault["outcome"] for fault in faults} == {"gold_error"} and "frac" in faults[0][
        "message"
    ]


def test_bars_hold():
    bars = reward.bars()
    for reference, _ in SAME[::5]:
        answer = reward.reference_answer(reference, {})
        for accept in (["boxed"], ["hashes"]):
            assert score(answer, reference, accept=accept)["score"] >= bars["reference"]
    assert score("", "4")["score"] <= bars["empty"]
    assert reward.reference_answer(None, {}) is None


@pytest.mark.parametrize("answer", HOSTILE, ids=lambda answer: answer[:12])
def test_hostile_answers_are_quickly_wrong(answer):
    start = time.process_time()
    assert boxed(answer, "5") in ("wrong", "unparsable", "no_answer")
    assert time.process_time() - start < 5


def test_an_answer_without_end_is_stopped():
    async def ask(answer, timeout_s):
        row = ("s", rf"\boxed{{{answer}}}", "5", {})
        return await call(
            "pkg://rewards.math", "compute_score", row, {}, Limits(timeout_s=timeout_s)
        )

    async def both():
        return await ask("10^{10^{10}}", 2), await ask("5", 60)

    stopped, right = asyncio.run(both())
    assert stopped["stopped"] in ("timeout", "memory") and math.isnan(stopped["score"])
    assert (right["stopped"], right["score"]) == ("no", 1.0)


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=300) | st.from_regex(r"#### [0-9a-z.,/%$ ]{1,12}"), st.integers(0, 40))
def test_any_text_gives_a_score(text, times):
    result = score(text * times, "x^2")
    assert result["score"] in (0.0, 1.0)


@pytest.mark.parametrize(
    "piece", [r"\boxed{", r"\boxed{1}", "#### ", "1,", "-", "12", "{", "</think>", "é\ud800"]
)
def test_linear_time(piece):
    def seconds(size):
        text = piece * (size // len(piece))
        start = time.process_time()
        score(text, "5")
        return time.process_time() - start

    seconds(20_000)
    assert seconds(200_000) < 30 * max(seconds(20_000), 0.01)


def test_the_standard_library_keeps_its_name(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"output": r"\boxed{0.5}", "gts": "1/2"}) + "\n")
    command = [sys.executable, "-m", "rewards", "math", "--file", rows]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split() == ["right", "1", "100.0%", "1.0000"]
    code = "import rewards.math, math, cmath; assert math.pi > 3 and math is not rewards.math"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
