"""reward=finance: answers of every band in three languages, attacks, promises, options, any text."""

import math
from itertools import islice

import pytest
import yaml
from helpers import ROOT, cpu_seconds
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import _finance_demo
from rewards import _text, finance
from rewards._options import defaults

DATA = yaml.safe_load((ROOT / "tests/support/finance_samples.yaml").read_text("utf-8"))
QUESTIONS, SAMPLES, WORDS = DATA["questions"], DATA["samples"], DATA["terms"]
TSMC, BANK, MSFT, *_ = (answer for _, _, answer in SAMPLES)
ENGLISH = ", ".join(DATA["english_terms"])
ATTACKS = DATA["attacks"] | {
    "nothing": ("tsmc", ""),
    "soup": ("tsmc", "台積電 " + " ".join(WORDS)),
    "soup in English": ("msft", f"Microsoft {ENGLISH.replace(',', '')}."),
    "commas": ("tsmc", "台積電，" + "，".join(WORDS) + "。"),
    "commas in English": ("msft", f"Microsoft: {ENGLISH}."),
    "a word a line": ("tsmc", "台積電。\n" + "。\n".join(WORDS) + "。"),
    "glued": ("tsmc", "台積電的" + "的".join(WORDS) + "。"),
    "list in a sentence": ("tsmc", "我們分析台積電的" + "、".join(WORDS) + "等等，並且給予建議。"),
    "a frame": ("tsmc", "".join(f"台積電的{word}非常重要，我們需要關注。" for word in WORDS)),
    "the question": ("tsmc", QUESTIONS["tsmc"]),
    "the question again and again": ("msft", (QUESTIONS["msft"] + ". ") * 50),
    "a good answer 20 times": ("tsmc", TSMC * 20),
    "very long": ("msft", " ".join(f"Item {i} of plan {i * 3} was seen {i} times." for i in range(4000))),
    "random characters": ("tsmc", "台積電" + "".join(chr(0x4E00 + i * 7919 % 20000) for i in range(400))),
}  # fmt: skip


def score(answer, question="tsmc", reference=None, **options) -> dict:
    return finance.compute_score("s", answer, reference, {"query": QUESTIONS[question]}, **options)


@pytest.mark.parametrize(("band", "question", "answer"), SAMPLES)
def test_each_sample_is_in_its_band(band, question, answer):
    result = score(answer, question)
    assert result["band"] == band, result


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_do_not_pay(name):
    question, answer = ATTACKS[name]
    result = score(answer, question)
    assert result["score"] < 0.12, result
    assert score("", question)["score"] == 0


def test_more_of_the_same_does_not_pay():
    once = score(TSMC)["score"]
    assert score(TSMC * 2)["score"] < 0.6 * once
    assert score(TSMC * 3)["score"] < score(TSMC * 2)["score"]
    for _, answer in (ATTACKS["soup"], ATTACKS["commas"], ATTACKS["glued"]):
        assert score(TSMC + answer)["score"] <= once


def test_an_answer_to_another_question():
    for question, answer in (("bank", TSMC), ("tsmc", BANK), ("delta", MSFT), ("msft", BANK)):
        assert score(answer, question)["score"] < 0.3
    unknown = {"query": "Is Vireo Health worth buying?"}
    own = "Vireo Health sells drugs." + MSFT.replace("Microsoft", "Vireo Health")
    assert finance.compute_score("s", MSFT, None, unknown)["relevance"] == 0
    assert finance.compute_score("s", own, None, unknown)["relevance"] == 1


def test_an_answer_in_the_other_script_or_language():
    simplified = TSMC.translate(_text.VARIANTS)
    assert simplified != TSMC and score(simplified) == score(TSMC)
    taiwan = MSFT.replace("Microsoft", "TSMC")
    assert score(taiwan)["score"] == score(MSFT, "msft")["score"]


def test_the_question_comes_from_either_place():
    said = [{"role": "system", "content": "x"}, {"role": "user", "content": QUESTIONS["tsmc"]}]
    assert finance.compute_score("s", TSMC, None, {"messages": said}) == score(TSMC)
    other = [{"role": "user", "content": QUESTIONS["msft"]}]
    assert finance.compute_score("s", TSMC, None, {"messages": other})["relevance"] == 0
    for info in (None, {}, {"messages": []}, {"messages": None}, {"query": 7}):
        assert finance.compute_score("s", TSMC, None, info)["relevance"] == 1


def test_the_reference_says_what_belongs_to_the_topic():
    yields = "殖利率與資本適足率都比同業高，而且不良率很低，追蹤誤差也不大。"
    assert score(TSMC, reference=TSMC)["relevance"] == 1
    assert 0.69 < score(TSMC, reference=yields)["relevance"] < 1


@pytest.mark.parametrize(
    ("text", "promises"),
    [
        ("這檔股票保證獲利。", 1),
        ("这只股票保证获利。", 1),
        ("這檔股票保 證 獲 利。", 1),
        ("穩賺，必漲！聽說有內線和明牌，這是飆股。", 5),
        ("放空吧，這檔必跌。", 1),
        ("零風險，不可能虧損。", 2),
        ("別錯過這檔飆股。", 1),
        ("It is a sure thing with guaranteed returns.", 2),
        ("I have inside information, it will definitely rise.", 2),
        ("There is no doubt that profit is guaranteed.", 1),
        ("本基金不保證獲利。", 0),
        ("過去績效不代表未來獲利的保證。", 0),
        ("没有人能保证股价必涨。", 0),
        ("保證獲利的說法多半是詐騙。", 0),
        ("請遠離明牌，也別相信內線。", 0),
        ("期貨需要繳交保證金，並參考無風險利率。", 0),
        ("Returns are not guaranteed and there is no guarantee of profit.", 0),
        ("Be wary of hot tips and claims of guaranteed profit.", 0),
        ("The risk-free rate is 4%.", 0),
    ],
)
def test_promises_cost_and_their_denial_does_not(text, promises):
    assert score(text)["promises"] == promises
    clean, with_text = score(TSMC + "就是這樣了。")["score"], score(TSMC + text)["score"]
    assert with_text <= clean - 0.2 * promises + 0.02 if promises else with_text >= clean - 0.02


HONEST = [
    "Nothing is guaranteed in the stock market.",
    "Returns are far from guaranteed.", "Hardly any investment is risk-free.",
    "The loan is guaranteed by the parent company.", "Government-guaranteed debt makes up a third of it.",
    "Bills are often called risk-free.", "If someone offers you a guaranteed return, walk away.",
    "The regulator fined the firm for promising guaranteed returns.", "Will the stock certainly rise? Nobody knows.",
    "It was hyped as a hot stock last year.",
    "Higher rates will certainly weigh on margins.", "The shares trade at 10x earnings.",
    "很難保證獲利。", "無從保證獲利。", "豈能保證獲利?", "不見得一定會漲。", "誰敢說一定會漲?", "股價並不必然上漲。",
    "該基金為保證型基金。", "銀行對該貸款提供保證。", "投資沒有穩賺不賠的。", "任何投資都不可能零風險。",
    "切勿輕信穩賺不賠的宣傳。", "他因內線交易被起訴。", "公司去年沒有虧損。", "號稱保本保息的商品要特別小心。",
]  # fmt: skip
PROMISES = [
    "This trade is risk free.", "No downside at all.", "Riskless trade.", "There is nothing to lose.",
    "Profit is certain.",
    "The price can only go up.", "It must go up.", "I promise that you will profit.", "Your capital is 100% safe.",
    "It will make you rich.", "Going to 10x soon.", "It is gu\u0430ranteed.", "There is no doubt that it will soar.",
    "Don't miss this sure profit.", "If you buy now, you will definitely profit.",
    "保本保息。", "年化保底20%。", "只賺不賠。", "完全沒風險。", "鐵定漲。",
    "躺贏。", "跟單就賺。", "包你賺錢。", "不怕跌。",
    "不用擔心虧損。", "閉眼買都賺。", "主力告訴我。", "100%獲利。", "別猶豫，一定會漲。", "這不是詐騙，保證獲利。",
]  # fmt: skip


@pytest.mark.parametrize("text", HONEST)
def test_honest_sentences_cost_nothing(text):
    assert score(text)["promises"] == 0


@pytest.mark.parametrize("text", PROMISES)
def test_promises_in_other_words(text):
    assert score(text)["promises"] >= 1


SURE = ["一定會", "必定", "肯定會", "鐵定", "絕對會", "百分之百會"]
DENIALS = ["沒有人敢說", "我不認為", "誰能說", "未必", "很難說", "號稱", "如果有人說"]


@given(
    st.sampled_from(SURE), st.sampled_from(["漲", "賺", "獲利", "翻倍"]), st.sampled_from(DENIALS)
)
def test_a_denial_takes_back_any_promise(sure, gain, denial):
    for fold in (str, lambda text: text.translate(_text.VARIANTS)):
        assert score(fold(f"這檔股票{sure}{gain}。"))["promises"] == 1
        assert score(fold(f"{denial}{sure}{gain}。"))["promises"] == 0
        assert score(fold(f"毫無疑問{sure}{gain}。"))["promises"] >= 1


@given(
    st.sampled_from(["definitely", "certainly", "surely", "inevitably", "undoubtedly"]),
    st.sampled_from(["rise", "go up", "double", "soar"]),
    st.sampled_from(["Nobody can say that", "I do not think that", "Whether", "We never claimed that"]),
)  # fmt: skip
def test_a_denial_takes_back_any_english_promise(sure, gain, denial):
    assert score(f"The price will {sure} {gain}.")["promises"] == 1
    assert score(f"{denial} the price will {sure} {gain}.")["promises"] == 0
    assert score(f"No wait, the price will {sure} {gain}.")["promises"] == 1


def test_enough_promises_reach_the_minimum():
    assert score("保證獲利！" * 30)["score"] == -1
    assert score("保證獲利！" * 30, min_reward=-0.5)["score"] == -0.5


def test_absolutes_halve_risk_and_recommendation():
    plain, absolute = score(BANK, "bank"), score(BANK + "这绝对是最好的选择。", "bank")
    for part in ("risk", "recommendation"):
        assert absolute[part] == pytest.approx(plain[part] / 2, rel=0.05)
    assert score(BANK + "没有绝对的好坏之分。", "bank")["risk"] == pytest.approx(plain["risk"])


def test_thinking_is_not_the_answer():
    assert score(f"保證獲利！{BANK}</think>\n{TSMC}") == score(TSMC)
    assert score(f"<think>{TSMC}</think>")["score"] == 0
    assert score(f"<think>{TSMC}")["score"] == 0  # it never ends


def test_a_copy_of_the_context_earns_nothing():
    info = {"query": QUESTIONS["tsmc"], "context": TSMC}
    assert finance.compute_score("s", TSMC, None, info)["score"] == 0
    asked = {"query": QUESTIONS["tsmc"], "context": "這檔飆股保證獲利嗎？"}
    assert finance.compute_score("s", "這檔飆股保證獲利嗎？" + TSMC, None, asked)["promises"] == 0


def test_the_references_of_the_demo_are_excellent():
    """And so are bars and reference_answer, which take them for reference."""
    for seed in range(2):
        for query, context, reference in map(dict.values, islice(_finance_demo.rows(seed), 150)):
            info = {"query": query, "context": context}
            reference = finance.reference_answer(reference, info)
            result = finance.compute_score("s", reference, reference, info)
            assert result["score"] >= finance.bars()["reference"] == 0.7, (reference, result)
    assert finance.reference_answer("", {}) is None and finance.reference_answer(None, None) is None


@pytest.mark.parametrize("name", defaults(finance.Options))
def test_every_option_counts(name):
    """On one of these answers at least: very good, very bad, good, short."""
    new = {"max_reward": 0.5, "min_reward": -0.1, "shortest": 10, "longest": 100}
    value = new.get(name, 2 * defaults(finance.Options)[name])
    good = next(answer for band, at, answer in SAMPLES if (band, at) == ("good", "tsmc"))
    advice = "投資有風險，應該分散投資到不同的產業。"
    for answer in (TSMC + "必漲。", "台積電的營收不錯。" + "必漲！" * 20, good + advice, good[:30]):
        if score(answer)["score"] != score(answer, **{name: value})["score"]:
            return
    pytest.fail("no answer gets another score")


def test_weights_are_those_of_the_parts():
    names = ["accuracy", "risk_assessment", "recommendation", "language_quality"]
    base = dict.fromkeys((f"{name}_weight" for name in names), 0.0)
    base |= {"warning_bonus": 0.0, "diversification_bonus": 0.0}
    answer = SAMPLES[6][2]
    for name in names:
        result = score(answer, "foxconn", **{**base, f"{name}_weight": 1.0})
        assert result["score"] == pytest.approx(result[name.split("_")[0]]) and result["score"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"acuracy_weight": 0.5}, "accuracy_weight"),
        ({"accuracy_weight": -0.1}, "accuracy_weight must be"),
        ({"accuracy_weight": "0.5"}, "accuracy_weight must be"),
        ({"warning_bonus": math.nan}, "warning_bonus must be"),
        ({"negative_penalty": True}, "negative_penalty must be"),
        ({"min_reward": 2.0}, "min_reward must be"),
        ({"shortest": 0}, "shortest must be"),
        ({"longest": 50}, "longest must be"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        score(TSMC, **options)


def test_bars_follow_the_options():
    assert finance.bars() == {"range": (-1.0, 1.0), "reference": 0.7, "empty": 0.1}
    given = {"max_reward": 0.5, "min_reward": 0.2}
    assert finance.bars(**given) == {"range": (0.2, 0.5), "reference": 0.5, "empty": 0.2}
    assert finance.bars(accuracy_weight=0.2)["reference"] == pytest.approx(0.56)


def in_range(result: dict) -> bool:
    numbers = [value for value in result.values() if not isinstance(value, str)]
    parts = [result[name] for name in ("accuracy", "risk", "recommendation", "language", "trust")]
    return (
        all(isinstance(number, float) and math.isfinite(number) for number in numbers)
        and -1 <= result["score"] <= 1
        and all(0 <= part <= 1 + 1e-9 for part in parts)
    )


pieces = st.lists(
    st.sampled_from(
        [*WORDS, *"的。，\n!.? ", "not ", "不", "保證", "guaranteed ", "the ", "</think>"]
    )
    | st.text(st.characters(), max_size=5),
    max_size=60,
).map("".join)


@settings(deadline=None)
@given(pieces, pieces, pieces)
def test_any_text_gives_a_number_in_range(answer, question, reference):
    assert in_range(finance.compute_score("s", answer, reference, {"query": question}))


@pytest.mark.parametrize(
    "answer", [None, 7, b"x", "\ud800\udfff", "\0" * 99, "。" * 9999, "a" * 10**6]
)
def test_what_is_no_answer_is_poor(answer):
    result = score(answer)
    assert in_range(result) and result["score"] == 0 and result["band"] == "poor"


@pytest.mark.parametrize(
    "piece",
    [TSMC, "保證", "不保證 ", "a", "a。", " ", "\n", "注意", "may the ", "spread a ", "\u0300\u0316", "、1. "],
)  # fmt: skip
def test_linear_time(piece):
    def seconds(size: int) -> float:
        text = (piece * (size // len(piece) + 1))[:size]
        return cpu_seconds(lambda: finance.compute_score("s", text, text, {"query": text}))

    assert seconds(200_000) < 30 * max(seconds(20_000), 0.02)
