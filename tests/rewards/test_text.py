"""What rewards share about text: forms, sentences, prose, repetition, words in context, negation."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards import _text

LEXICON = _text.Lexicon(
    {"risk": [["波動", "volatility"], ["庫存", "inventory"]], "act": [["stop-loss"], ["庫存"]]}
)


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("保證獲利", "保证获利"),
        ("保证获利", "保证获利"),
        ("保 證\u200b 獲 利", "保证获利"),
        ("Ｐ／Ｅ Ratio！", "p/e ratio!"),
        ("can’t", "can't"),
        (None, ""),
        (7, ""),
    ],
)
def test_one_form(text, folded):
    assert _text.fold(text) == folded


@pytest.mark.parametrize(
    "pair",
    [
        "飆飙", "並并", "佈布", "佔占", "來来", "侷局", "兇凶", "剎刹", "復复", "採采",
        "昇升", "槓杠", "溼湿", "甦苏", "癒愈", "週周", "臺台", "檯台", "颱台", "裡里",
        "裏里", "託托", "証证", "鉅巨", "鑑鉴", "髮发", "發发", "齊齐", "麼么",
    ],
)  # fmt: skip
def test_both_scripts_have_one_form(pair):
    traditional, simplified = pair
    assert _text.fold(traditional) == _text.fold(simplified) == simplified


def test_a_variant_is_one_character_for_another():
    variants = {chr(code): to for code, to in _text.VARIANTS.items() if chr(code) != "’"}
    assert len(variants) > 2500
    assert all(
        _text.is_han(of) and _text.is_han(to) and len(to) == 1 for of, to in variants.items()
    )
    again = {of for of, to in variants.items() if to in variants}
    assert again <= {"薴"}  # what is simplified stays as it is; this one is a mineral's


def test_sentences():
    text = "# 標題\n\n1. **本益比**為18.5倍（U.S. peers）。真的！Acme Inc. grew 5%. It may\nfall vs. 2023? - 是"
    assert _text.sentences(_text.fold(text)) == [
        "标题", "本益比为18.5倍(u.s. peers)。", "真的!", "acme inc. grew 5%.", "it may fall vs. 2023?", "- 是",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "prose"),
    [
        ("營收穩定而且毛利率很高", True),
        ("The company has a strong position in its market", True),
        ("若現金流持續為正，可以考慮持有", True),
        ("電腦手機平板汽車飛機", False),
        ("Computer phone tablet car plane boat", False),
        ("the of and to in is for on with as by at", False),
        ("很好", False),
        ("", False),
    ],
)
def test_prose(text, prose):
    assert _text.is_prose(_text.tokens(_text.fold(text))) is prose


def test_length_is_comparable():
    assert _text.units(_text.tokens("台积电 has 3 fabs" + _text.MASK)) == 3 + 3 * 2


def test_repetition():
    seen = _text.Seen(_text.tokens("the price may fall when demand is weak"))
    assert seen.share(_text.tokens("the price may fall when demand is weak")) == 1
    assert seen.share(_text.tokens("margins have been rising for three years")) == 0
    new = _text.tokens("margins have been rising")
    seen.add(new)
    assert seen.share(new) == 1


def test_words_stand_for_ideas():
    text = _text.fold("波動 and Volatility; stop losses; 库存; inventoryx")
    names, masked = LEXICON.read(text)
    found = [sorted(ideas) for _, ideas in names]
    assert found == [
        [("risk", 0)],
        [("risk", 0)],
        [("act", 0)],
        [("act", 1), ("risk", 1)],
    ]
    assert [text[start] for start, _ in names] == ["波", "v", "s", "库"]
    assert masked.replace(_text.MASK, "_") == "_ and _; _; _; inventoryx"


@pytest.mark.parametrize(
    ("text", "word", "back"),
    [
        ("本基金不保證獲利", "保证", True),
        ("任何人都無法保證股價", "保证", True),
        ("過去績效不代表未來獲利的保證", "保证", True),
        ("號稱保證獲利的產品", "保证", True),
        ("保證獲利多半是詐騙", "保证", True),
        ("不用擔心，保證獲利", "保证", False),
        ("不用擔心保證獲利", "保证", False),
        ("不得不保證獲利", "保证", False),
        ("無疑保證獲利", "保证", False),
        ("特別保證獲利", "保证", False),
        ("保證獲利不是詐騙", "保证", False),
        ("returns are not guaranteed", "guaranteed", True),
        ("there is no guarantee", "guarantee", True),
        ("nobody can guarantee it", "guarantee", True),
        ("a guarantee is a red flag", "guarantee", True),
        ("no doubt guaranteed", "guaranteed", False),
        ("not only safe but guaranteed", "guaranteed", False),
        ("don't miss this guaranteed win", "guaranteed", False),
        ("no, guaranteed", "guaranteed", False),
        ("guaranteed and not a scam", "guaranteed", False),
    ],
)
def test_negation(text, word, back):
    folded = _text.fold(text)
    at = folded.index(word)
    assert _text.taken_back(folded, at, at + len(word)) is back


@settings(deadline=None)
@given(st.text())
def test_any_text(text):
    folded = _text.fold(text)
    assert _text.fold(folded) == folded or not text.isascii()
    sentences = _text.sentences(folded)
    assert all(sentence.strip() for sentence in sentences)
    words = [word for sentence in sentences for word in _text.tokens(sentence)]
    assert 0 <= _text.Seen().share(words) <= 1
    names, masked = LEXICON.read(folded)
    assert masked.count(_text.MASK) == len(names)


def test_combining_marks_take_linear_time():
    """They are sorted; an adversary can have that take quadratic time."""

    def seconds(size: int) -> float:
        text = "\u0315" * (size // 2) + "\u0300\u0316" * (size // 4)
        begin = time.perf_counter()
        _text.fold(text)
        return time.perf_counter() - begin

    assert seconds(200_000) < 30 * max(seconds(20_000), 0.01)
