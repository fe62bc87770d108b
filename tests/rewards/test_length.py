"""reward=length: equation 13 of arXiv:2503.14476, units, options."""

import pytest
from helpers import cpu_seconds
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from rewards import length


def score(text, **options):
    return length.compute_score("s", text, None, **options)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, 0.0),
        (1, 0.0),
        (60, 0.0),
        (61, -0.025),
        (80, -0.5),
        (100, -1.0),
        (101, -1.0),
        (10**6, -1.0),
    ],
)
def test_the_papers_equation(size, expected):
    result = score("x" * size, max_length=100, cache=40)
    assert result["score"] == pytest.approx(expected)
    assert result["length"] == size and result["overlong"] == float(size > 60)


def test_longer_never_pays():
    scores = [score("word " * n, max_length=100, cache=100)["score"] for n in range(40)]
    assert scores == sorted(scores, reverse=True) and scores[0] == 0.0 and scores[-1] == -1.0


def test_units(tiny_model):
    text = "SELECT name FROM item\n\tWHERE id = 1 é東"
    assert score(text)["length"] == len(text)
    assert score(text, unit="words")["length"] == 10
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    known = len(tokenizer(text, add_special_tokens=False)["input_ids"])
    for path in (tiny_model, tiny_model / "tokenizer.json"):
        assert score(text, unit="tokens", tokenizer=str(path))["length"] == known > 5
    assert score("a\ud800b", unit="tokens", tokenizer=str(tiny_model))["length"] > 0
    for no_text in (None, 5):
        assert score(no_text)["length"] == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        (" \n\t", 0),
        ("One, two-three  four.", 3),
        ("internationalisation", 1),
        ("a" * 21, 2),
        ("a" * 10_000, 500),  # nobody saves by leaving out blanks
        ("中文" * 50, 100),
        ("中文 and 日本語", 6),
        ("東京タワーへ", 6),
        ("ภาษาไทย" * 20, 7),
        ("한국어 문장", 2),
    ],
)
def test_words(text, words):
    assert score(text, unit="words")["length"] == words


def test_words_without_blanks_are_long():
    for text in ("a" * 1000, "中文" * 20):
        assert score(text, unit="words", max_length=4, cache=2)["score"] == -1.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"unit": "token"}, "Did you mean tokens\\?"),
        ({"unit": "tokens"}, "needs a tokenizer"),
        ({"tokenizer": "x/y"}, "no other unit does"),
        ({"max_length": 0}, "max_length must be"),
        ({"max_length": 1.5}, "whole number"),
        ({"cache": 0}, "cache must be"),
        ({"max_length": 100, "cache": 101}, "at most 100"),
        ({"max_len": 100}, "Did you mean max_length\\?"),
        ({"unit": "tokens", "tokenizer": "/no/such/folder"}, "no tokenizer at '/no/such/folder'"),
    ],
)
def test_bad_options(options, words):
    for refuses in (lambda: score("x", **options), lambda: length.bars(**options)):
        with pytest.raises(ValueError, match=words):
            refuses()


def test_bars_hold():
    bars = length.bars(max_length=10, cache=5)
    assert (
        score(length.reference_answer("x", {}))["score"]
        >= bars["reference"]
        == bars["range"][1]
        == 0.0
    )
    assert score("x" * 10, max_length=10, cache=5)["score"] == bars["range"][0]
    assert score("")["score"] <= bars["empty"]


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=300), st.sampled_from(["characters", "words"]), st.integers(1, 300))
def test_any_text_gives_a_score(text, unit, size):
    assert -1.0 <= score(text, unit=unit, max_length=size, cache=size)["score"] <= 0.0


@pytest.mark.parametrize("piece", ["a", "a ", "\n", "\u0301", "\ud800"])
def test_linear_time(piece, tiny_model):
    def seconds(size):
        text, tokens = (
            piece * (size // len(piece)),
            {"unit": "tokens", "tokenizer": str(tiny_model)},
        )
        return cpu_seconds(lambda: [score(text, **unit) for unit in ({"unit": "words"}, tokens)])

    assert seconds(200_000) < 30 * max(seconds(20_000), 0.02)
