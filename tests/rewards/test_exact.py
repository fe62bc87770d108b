"""reward=exact: each step of the normalisation, where the answer is looked for, reference answers, any text."""

import math
import unicodedata
from typing import get_args

import pytest
from helpers import cpu_seconds
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards import exact


def score(answer, reference, **options):
    return exact.compute_score("s", answer, reference, **options)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("Paris", "Paris"),
        ("  the PARIS.\n", "Paris"),
        ("an apple", "Apple!"),
        ("New   York\tCity", "new york city"),
        ("Ｐａｒｉｓ", "Paris"),  # full width
        ("「東京」。", "東京"),
        ("Straße", "STRASSE"),
        ("<think>Lyon?</think>\nParis", "Paris"),
        ("Paris", ["Lyon", "Paris"]),
        ("42", 42),
    ],
)
def test_equal(answer, reference):
    assert score(answer, reference) == {"score": 1.0, "acc": 1.0, "outcome": "match"}


@pytest.mark.parametrize(
    ("answer", "reference", "outcome"),
    [
        ("Paris, France", "Paris", "mismatch"),
        ("Paris Paris Paris", "Paris", "mismatch"),
        ("London Paris Berlin Rome Madrid", "Paris", "mismatch"),
        ("theatre", "atre", "mismatch"),  # an article is a word
        ("", "Paris", "no_answer"),
        (None, "Paris", "no_answer"),
        ("Paris</think> ", "Paris", "no_answer"),
        (
            "?!",
            "The",
            "mismatch",
        ),  # a reference answer that normalisation empties isn't matched by nothing
        ("a", "The", "mismatch"),
    ],
)
def test_not_equal(answer, reference, outcome):
    assert score(answer, reference) == {"score": 0.0, "acc": 0.0, "outcome": outcome}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("C", "C++"), ("C", "C#"), ("x<y", "x>y"), ("x+y", "x-y"), ("xy", "x-y"), ("12", "1/2"), ("12", "½"),
        ("105", "10.5"),
        ("1000", "1.000"), ("110", "1:10"), ("5", "-5"), ("5", "−5"), ("$5", "-$5"), ("p", "~p"), ("p", "!p"),
        ("p", "¬p"),
        ("AC", "A/C"), ("5", "5%"), ("22", "2²"), ("35", "3–5"), ("53", "5*3"), ("A", "A-"), ("A", "A+"),
        ("12", "1,2"),
    ],
)  # fmt: skip
def test_marks_that_say_something_stay(one, other):
    for answer, reference in ((one, other), (other, one)):
        assert score(answer, reference)["score"] == 0.0
    for text in (one, other):
        assert score(f"**{text}**", text)["score"] == 1.0


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("1,000", "1000"), ("U.S.", "US"), ("e-mail", "email"), ("twenty-one", "twentyone"), ("−5", "-5"),
        ("H₂O", "H2O"),
        ("don't", "dont"), ("> Paris", "Paris"), ("<Paris>", "Paris"), ("`Paris`", "Paris"), ("$5", "5"),
        ("3.14.", "3.14"),
        ("2²", "2^2"), ("½", "1/2"), ("A:", "A"), ("**A**", "A"), ('"A"', "A"), ("A.", "a"), ("(A)", "A"),
        ("A. Paris", "A"),
        ("(B) Paris", "B"), ("E: a long text", "E"), ("4", 4.0), ("_Paris_", "Paris"),
    ],
)  # fmt: skip
def test_marks_around_a_text_go(answer, reference):
    assert score(answer, reference)["score"] == 1.0


WRITTEN = ["{}", "{}.", "**{}**", "({})", " {}\n"]


@settings(deadline=None, max_examples=100)
@given(
    st.integers(-(10**6), 10**6),
    st.integers(-(10**6), 10**6),
    st.sampled_from(WRITTEN),
)
def test_numbers_are_the_same_or_not(one, other, written):
    assert score(written.format(one), str(one))["score"] == 1.0
    assert score(written.format(one), str(other))["score"] == float(one == other)
    assert score(written.format(one / 100), str(one / 100))["score"] == 1.0


def test_references_of_words_that_dont_count():
    assert score("the", "The")["score"] == 1.0 and score("?!", "?!")["score"] == 1.0


@pytest.mark.parametrize(
    ("option", "answer", "reference"),
    [
        ("ignore_case", "paris", "Paris"),
        ("ignore_punctuation", "Paris.", "Paris"),
        ("ignore_articles", "the Paris", "Paris"),
        ("ignore_spaces", "New  York", "New York"),
        ("nfkc", "Ｐaris", "Paris"),
    ],
)
def test_each_step_is_an_option(option, answer, reference):
    assert score(answer, reference)["score"] == 1.0
    assert score(answer, reference, **{option: False})["score"] == 0.0


@pytest.mark.parametrize(
    ("where", "answer", "outcome"),
    [
        ("tags", "<think>hm <answer>Paris</answer>", "no_answer"),
        ("thinking", "<think>Paris", "no_answer"),
        ("line", "The answer is:\nParis\n```", "match"),
        ("line", "Paris\n---\n", "match"),
        ("whole", "<think>x</think>Paris", "mismatch"),
        ("thinking", "<think>x</think>Paris", "match"),
        ("tags", "x <answer>Lyon</answer> <answer> Paris </answer> y", "match"),
        ("tags", "<answer>Paris</answer></think>", "no_answer"),
        ("tags", "Paris", "no_answer"),
        ("tags", "<answer>Paris", "no_answer"),
        ("tags", "</answer>Paris<answer>", "no_answer"),
        ("line", "I think it is\n\nParis\n\n", "match"),
        ("line", "Paris\nI think", "mismatch"),
        ("line", "\n\n", "no_answer"),
    ],
)
def test_where_the_answer_is(where, answer, outcome):
    assert score(answer, "Paris", where=where)["outcome"] == outcome


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"where": "tag"}, "Did you mean tags\\?"),
        ({"nfkc": 1}, "true or false"),
        ({"ignore_cases": True}, "Did you mean ignore_case\\?"),
    ],
)
def test_bad_options(options, words):
    for refuses in (lambda: score("x", "x", **options), lambda: exact.bars(**options)):
        with pytest.raises(ValueError, match=words):
            refuses()


def test_rows_without_a_reference():
    for bad in (None, "", " ", [], {"a": "b"}):
        result = score("x", bad)
        assert result["outcome"] == "gold_error" and math.isnan(result["score"] + result["acc"])
    rows = [
        {"gts": "x"},
        {"gts": []},
        {"output": "x"},
        {"reward_model": {"ground_truth": ["x", "y"]}},
    ]
    assert [fault["index"] for fault in exact.row_faults(iter(rows))] == [1, 2]


@pytest.mark.parametrize("where", get_args(exact.Place))
def test_bars_hold(where):
    bars = exact.bars(where=where)
    answer = exact.reference_answer(["Paris", "Lyon"], {}, where=where)
    assert score(answer, ["Paris", "Lyon"], where=where)["score"] >= bars["reference"]
    assert score("", "Paris", where=where)["score"] <= bars["empty"]
    assert exact.reference_answer(None, {}) is None


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=200), st.integers(0, 30), st.sampled_from(get_args(exact.Place)))
def test_any_text_gives_a_score(text, times, where):
    assert score(text * times + "</answer>", "reference of it", where=where)["score"] in (0.0, 1.0)


def test_a_text_equals_itself_in_both_forms():
    text = "e\u0301" * 1000 + " caf\u00e9"
    assert score(unicodedata.normalize("NFD", "café Zoë"), "Café Zoë")["score"] == 1.0
    assert score(text, text)["score"] == 1.0


@pytest.mark.parametrize(
    "piece", ["a ", "\u0301", "the", "<answer>", "</answer>", "\n", "\u3000", "\ud800"]
)
def test_linear_time(piece):
    def seconds(size):
        text = piece * (size // len(piece))
        return cpu_seconds(lambda: [score(text, "Paris", where="tags"), score(text, "Paris")])

    assert seconds(200_000) < 30 * max(seconds(20_000), 0.02)
