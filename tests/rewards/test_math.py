"""reward=math: pairs that are equal and that aren't, marks, options, hostile answers."""

import asyncio
import itertools
import json
import math
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers import ROOT, cpu_seconds
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards import math as reward
from rewards._limits.calls import Limits, call

KINDS = {  # what must be kept apart and what is the same: (reference answer, answer)
    "numbers": (
        [("8", "2³"), ("2^{10}", "2¹⁰"), ("1.6e-19", r"1.6 \times 10^{-19}"), ("1.6e-19", "1.6×10⁻¹⁹"),
         ("1/12", "0.083333"),
         ("2 1/2", "5/2"), ("2.5", "2½"), (r"0.1\overline{6}", "1/6"), ("1000000000000", "10^{12}"),
         ("2^{2024}", "4^{1012}"),
         (r"\frac{1}{1004!}", r"\frac{1005}{1005!}"), ("1,234", r"1{,}234"), ("0.00001", "1e-5"),
         (r"\frac{7}{2}", r"3 \frac12")],
        [("23", "2³"), ("22", "2²"), ("21/2", "2½"), ("6.63e-34", "1.6e-19"), ("1.6e-19", "1.61e-19"),
         ("0.0000001", "0.0"),
         ("0.00000003", "0.00000005"), (r"\frac{1}{1004!}", r"\frac{1}{1006!}"), ("10^{40}", "10^{40}+1"),
         ("2^{2024}", "2^{2024}+1"), ("1.5", "15"), ("1/2", "12"), (r"(0.00000001, 2)", "(0.00000003, 2)"),
         (r"\{0.00000001, 2\}", r"\{0.00000003, 2\}"), ("2^{50}", r"\log_2 3")],
    ),
    "signs": (
        [("-5", "−5"), ("-5", "-$5"), ("-5", r"-\$5"), ("3", "+3"), (r"-\sqrt{2}", "−√2"), (r"-\infty", "-∞"),
         ("3,-3", "±3")],
        [("5", "-5"), ("-5", "5"), (r"\infty", r"-\infty"), ("3", r"\pm 3"), ("x+y", "x-y"), ("x-y", "y-x")],
    ),
    "sizes and units": (
        [("5000000", r"5\text{ million}"), ("5 million dollars", r"\$5{,}000{,}000"), ("50000", "5万"),
         ("300", "3 hundred"),
         ("12", r"12 \text{ m/s}"), ("12 m/s", "12"), ("25", r"25\,\text{cm}^2"), ("25", "25 cm²"),
         ("25", "25°C"), ("18", "18 元"),
         ("25平方米", "25"), ("18", "18 pens"), ("4", r"4\,\mathrm{m\,s^{-1}}"), ("5", "€5"), ("5", "5 USD"),
         ("12", "12 (twelve)"),
         ("15", "15 min"), (r"\frac{1}{2}", r"\frac{1}{2}\text{ cup}"), ("10", r"10\text{th}"),
         ("5", r"\text{5 apples}")],
        [("5", "5 million"), ("5", r"5\text{ billion}"), ("5", "5万"), ("3", "3 xy"), ("3", "3 abc"),
         ("2", "2 ln x"), ("2", r"2 sin x"),
         ("3", r"3\mathrm{i}"), ("2", r"2\mathrm{e}"), ("5", "5 or more"), ("5", r"5 \text{ or less}"),
         ("2", "2 sqrt 3")],
    ),
    "relations": (
        [("x<y", "y>x"), (r"x \le 3", "x≤3"), ("(0, 4.5)", "0<x<4.5"), (r"(2,\infty)", "x>2"),
         ("x>2", r"(2,\infty)"),
         (r"(-\infty, -1) \cup (1, \infty)", "|x|>1"), ("5", "2+3=5"), ("5", "x = 2+3 = 5"),
         ("3.14", r"x \approx 3.14"), ("f(2)=3", "3")],
        [("x<y", "x>y"), (r"x \le 3", "x<3"), (r"x\neq 3", "x=3"), ("5", "4=5"), ("5", "x>5"),
         ("3", r"3 \approx 4"), (r"(2,\infty)", r"x\ge 2")],
    ),
    "sets and pairs": (
        [("x=2, y=3", "(2,3)"), ("(2,3)", r"y=3, x=2"), ("x=2, y=3", "y=3, x=2"), ("x=1, x=2", r"\{2,1\}"),
         (r"\emptyset", r"\varnothing"),
         (r"\emptyset", "∅"), (r"\emptyset", r"\{\}"), ("(1,2,3)", r"\langle 1,2,3 \rangle"),
         (r"\{1/3, 2\}", r"\{2, 0.333333\}"), (r"\mathbb{R}", "ℝ")],
        [("x=2, y=3", "(3,2)"), ("(3,2)", "x=2, y=3"), ("x=2, y=3", "x=3, y=2"), ("x=5, y=2, z=1", "(2,5,1)"),
         ("[0,1)", "(0,1]"), ("0", r"\emptyset")],
    ),
    "bases": (
        [("1011_2", "11"), ("1011_2", "1011_{2}"), ("(1011)_2", "1011_2"), ("2F_{16}", "47")],
        [("1011_2", "1011"), ("1011_2", "1011_3"), ("19_2", "19")],
    ),
    "complex numbers": (
        [("-1", "i^2"), ("3i", r"3\mathrm{i}"), ("2i+3", "3+2i"), ("-1", r"e^{i\pi}"),
         (r"2-\frac{1}{\mathrm{e}}", r"2-\frac1e")],
        [("3", "3i"), ("2i+3", "3-2i")],
    ),
    "choices": (
        [("A", a) for a in ("(A)", "A.", "**A**", r"\textbf{A}", r"\text{(A)}", "A: 12 cm", "(A) 12",
         "Option A", "The answer is A", r"\textbf{(A)}\ 5")]
        + [("E", r"\text{E: a long text}"), ("(C)", "C")],
        [("A", "B"), ("A", "A, B"), ("A", r"A \text{ and } B"), ("B", "A. B"), ("C", "C+1")],
    ),
    "text that is no mathematics to SymPy": (
        [(r"k\pi, k\in\mathbb{Z}", r"k\pi, k \in \mathbb Z"), (r"p \to q", r"p \rightarrow q"),
         (r"p \land q", "p ∧ q"), ("甲", "甲"), ("11:00", "11:00"),
         (r"x \equiv 3 \pmod{7}", r"x \equiv 3 \pmod 7"), (r"AB \parallel CD", "AB ∥ CD"),
         (r"\text{Mg}^{2+}", r"\mathrm{Mg}^{2+}")],
        [(r"p \land q", r"p \lor q"), ("甲", "乙"), ("11:00", "12:00"),
         (r"x \equiv 3 \pmod{7}", r"x \equiv 3 \pmod{5}"), (r"\text{Mg}^{2+}", r"\text{Ca}^{2+}")],
    ),
    "wrappers": (
        [("5", a) for a in ("**5**", "$5$", r"\(5\)", r"\[5\]", "`5`", r"5 \checkmark", "{5}",
         r"\color{red}{5}", "5 \\\\", "5;", r"\therefore 5", "=5", r"\boxed{5}",
                            r"\text{Answer: }5", r"\text{the answer is } 5", r"\max = 5")]
        + [("so x is 5", "5"), ("The answer is 5", "5"), ("5 (five)", "5")],
        [("5", "**6**")],
    ),
}  # fmt: skip
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


def pairs(which):
    return [
        pytest.param(*pair, id=f"{kind}: {' = '.join(pair)}")
        for kind, both in KINDS.items()
        for pair in both[which]
    ]


@pytest.mark.parametrize(("reference", "answer"), pairs(0))
def test_kinds_of_equal_answers(reference, answer):
    assert boxed(answer, reference) == "right"


@pytest.mark.parametrize(("reference", "answer"), pairs(1))
def test_kinds_of_other_answers(reference, answer):
    assert boxed(answer, reference) in ("wrong", "unparsable")


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


@pytest.mark.parametrize(
    ("response", "reference", "score_of_it"),
    [
        (r"It is \boxed{4}. I put it in \boxed{} as asked.", "4", 1),
        (r"It is \boxed{4}. I put it in `\boxed{...}`, \boxed{answer}", "4", 1),
        (r"$\boxed\frac12$", "1/2", 1),
        (r"So \boxed 12.", "12", 1),
        (r"so \boxed{\boxed{5}}", "5", 1),
        ("The answer is −4.", "-4", 1),
        ("The answer is −4.", "4", 0),
        ("The loss is -$4.", "-4", 1),
        ("The loss is -\\$4.", "4", 0),
        ("It is (-4)", "-4", 1),
        ("6*7\n#### Final Answer\n42", "42", 1),
        ("#### Final Answer: 42\nI hope it helps", "42", 1),
        ("#### Step 1: add 40 and 2\nWe get 42.\n\n#### Conclusion\nSo it is **42**", "42", 1),
        ("#### 42\n\n#### Explanation\n6 * 7 = 42 since 7 is 7", "42", 1),
        ("#### **42**", "42", 1),
        ("#### C", "C", 1),
        (r"So it is $\frac34$", "3/4", 1),
        (r"So it is \frac{3}{4}", "3/4", 1),
        (r"So $x = \frac{3}{4}$.", "4", 0),
        (r"So it is $\frac{\sqrt{3}}{2}$.", r"\frac{\sqrt3}{2}", 1),
        (r"So it is $\frac{\sqrt{3}}{2}$.", "2", 0),
        (r"So it is 2\sqrt{3}", r"2\sqrt3", 1),
        ("It is 2π", "2", 0),
        (r"The total is $9{,}500.", "9500", 1),
        (r"The total is \$9,500.00", "9500", 1),
        ("It is 1 000 000", "1000000", 1),
        ("It is 1 000 000", "0", 0),
        ("It is 5 million", "5", 0),
        ("It is 5 million", "5000000", 1),
        ("It is 1.5e3", "1500", 1),
        ("It is 1.5 × 10^3", "1500", 1),
        ("It takes 4 1/2 hours", "4.5", 1),
        ("It rose by 12.5 percent", "0.125", 1),
        ("It costs $5 and then $10", "10", 1),
        (r"So $\angle ABC = 40^\circ$", "40", 1),
        ("The point is $(3,4)$.", "(3,4)", 1),
        ("We get $5+3=8$ apples", "8", 1),
        (r"\[ x = 42 \]", "42", 1),
    ],
)
def test_the_answer_is_read_whole(response, reference, score_of_it):
    assert score(response, reference)["score"] == score_of_it


@pytest.mark.parametrize("answer", [r"\boxed{7}", "7", "#### 7"])
@pytest.mark.parametrize(
    "opened", ["<think>", "Hm <think>", "<think>a</think>Well <think>", "<THINK>"]
)
def test_thinking_that_never_ends_is_no_answer(opened, answer):
    assert score(f"{opened}\nmaybe {answer}", "7") == {"score": 0, "acc": 0, "outcome": "no_answer"}


NUMBERS = st.integers(-(10**12), 10**12) | st.fractions(max_denominator=1000)
UNLIKE = st.tuples(NUMBERS, NUMBERS).filter(lambda pair: pair[0] != pair[1])
WRITTEN = [  # ways to write a number
    str, "$ {} $".format, r"\text{{the answer is }} {}".format, "**{}**".format, "{}.".format,
    r"{} \text{{ km}}".format,
    lambda x: str(x).replace("-", "−"), lambda x: f"x = {x}", lambda x: f"{x} apples",
]  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(NUMBERS, st.sampled_from(WRITTEN), st.sampled_from(WRITTEN))
def test_a_number_is_itself_however_it_is_written(number, write, write_too):
    assert boxed(write(number), write_too(number)) == "right"


@settings(deadline=None, max_examples=60)
@given(UNLIKE, st.sampled_from(WRITTEN), st.sampled_from(WRITTEN))
def test_two_numbers_are_two(pair, write, write_too):
    assert boxed(write(pair[0]), write_too(pair[1])) == "wrong"


@settings(deadline=None, max_examples=60)
@given(st.floats(1, 9.99), st.floats(1, 9.99), st.integers(-300, 300))
def test_a_tolerance_is_relative(one, other, exponent):
    far = abs(one - other) > 1e-3
    found = boxed(rf"{one:.6f} \times 10^{{{exponent}}}", f"{other:.6f}e{exponent}")
    assert found == ("wrong" if far else found)
    assert boxed(rf"{one:.6f} \times 10^{{{exponent}}}", f"{one:.6f}e{exponent}") == "right"


def test_what_takes_long_is_a_verdict(monkeypatch):
    start = time.monotonic()
    assert boxed("2^{2024}", r"\sum_{k=0}^{2024} \binom{2024}{k}") == "right"
    assert boxed("10^{10^{10}}", "5") == "wrong"
    monkeypatch.setattr(reward, "TIME_S", 0.1)
    assert boxed(r"\sum_{k=1}^{4000} \frac{1}{k}", "5") == "undecided"
    assert boxed("5", "5") == "right"
    assert time.monotonic() - start < 30


def test_an_alarm_of_another_goes_on():
    rang = []
    before = signal.signal(signal.SIGALRM, lambda *_: rang.append(1))
    left = signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        assert boxed("4", "4") == "right"
        time.sleep(0.6)
    finally:
        signal.setitimer(signal.ITIMER_REAL, *left)
        signal.signal(signal.SIGALRM, before)
    assert rang


def test_a_thread_has_no_alarm():
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(boxed, r"\frac12", "0.5").result() == "right"


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
        return await ask("10^{10^{10}}!", 2), await ask("5", 60)

    stopped, right = asyncio.run(both())
    assert stopped["stopped"] in ("timeout", "memory") and math.isnan(stopped["score"])
    assert (right["stopped"], right["score"]) == ("no", 1.0)


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=300) | st.from_regex(r"#### [0-9a-z.,/%$ ]{1,12}"), st.integers(0, 40))
def test_any_text_gives_a_score(text, times):
    result = score(text * times, "x^2")
    assert result["score"] in (0.0, 1.0)


@pytest.mark.parametrize(
    "piece",
    [
        r"\boxed{",
        r"\boxed{1}",
        r"\boxed{}",
        "#### ",
        "#### a\n",
        "1,",
        "1 ",
        "-",
        "12",
        "{",
        "</think>",
        "<think>",
        "$1",
        r"\(1",
        r"\[1",
        r"\frac{a{b}",
        r"\sqrt{",
        "1^",
        "é\ud800",
    ],
)
def test_linear_time(piece):
    new = itertools.count()  # words are kept in a cache

    def seconds(size):
        text = piece * (size // len(piece))
        return cpu_seconds(lambda: score(f"{text}{next(new)}", "5"))

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
