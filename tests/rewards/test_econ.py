"""reward=econ: published figures, the decision in any text, the state in any row, options, the best decision."""

import json
import math
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers import ROOT
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rewards import econ
from rewards._options import options_of

STATE = {
    "employed": True, "income": 5000, "wealth": 10000, "dpi": 4500, "buffer_ratio": 3,
    "unemployment_rate": 0.05, "gdp_growth": 2, "wage_inflation": 2, "price_inflation": 2,
}  # fmt: skip
ANNUAL = {"r_okun": -0.894, "r_phillips": -0.676, "u12": 0.095}
PARTS = {"score", "work", "consumption", "micro", "guard", "annual", "reg", "valid_json", "masked"}


def said(work, consumption) -> str:
    return json.dumps({"work": work, "consumption": consumption})


def score(answer, state=STATE, **options) -> dict:
    result = econ.compute_score("econ", answer, json.dumps(state), {}, **options)
    assert set(result) == PARTS | {"outcome"}  # verl wants the same parts of every sample
    return result


GOLDENS = [
    (0.8, 0.6, STATE, 0.357027),
    (0.71, 0.625, STATE, 0.475527),
    (0.71, 0.625, STATE | ANNUAL, 0.731012),
    (0.8, 0.6, STATE | {"employed": False}, 0.460527),
    (0.71, 0.99, STATE, 0.297227),
]


@pytest.mark.parametrize(("work", "consumption", "state", "expected"), GOLDENS)
def test_published_figures(work, consumption, state, expected):
    assert score(said(work, consumption), state)["score"] == pytest.approx(expected, abs=1e-6)


def test_every_part_is_told():
    result = score(said(0.8, 0.99), STATE | ANNUAL)
    assert result["outcome"] == "ok" and result["valid_json"] == 1 and result["masked"] == 0
    assert (result["work"], result["consumption"], result["reg"]) == (0.8, 0.99, -0.5)
    assert result["annual"] == pytest.approx(1)
    assert result["micro"] == pytest.approx(0.3 * -0.2 + 0.7 * 0.27)
    parts = 0.45 * result["annual"] + 0.3 * result["guard"] + 0.2 * result["micro"] - 0.05 * 0.5
    assert result["score"] == pytest.approx(parts)


def test_the_buffer_is_worked_out():
    without = {k: v for k, v in STATE.items() if k != "buffer_ratio"}
    thin = without | {"wealth": 9000}  # (9000 + 4500) / 4500 = 3
    assert score(said(0.7, 0.6), thin)["score"] == score(said(0.7, 0.6))["score"]
    for money, br in {(10**9, 1): 10, (-(10**9), 1): 0, (5, 0): 10, (0, 0): 0, (5, -1): 10}.items():
        state = json.dumps(without | dict(zip(("wealth", "dpi"), money, strict=True)))
        wanted = {"work": 0.95 - 0.08 * min(br, 6), "consumption": 0.25 + 0.5 * br / (1 + br)}
        assert json.loads(econ.reference_answer(state)) == pytest.approx(wanted), money


def test_absent_macro_values_leave_their_weight_to_the_others():
    few = {k: STATE[k] for k in ("employed", "wealth", "dpi", "buffer_ratio")}
    assert math.isnan(score(said(0.71, 0.625), few)["guard"])
    assert score(said(0.71, 0.625), few)["score"] == pytest.approx(0.3)  # micro alone
    for absent in (None, math.nan):
        some = few | {"unemployment_rate": 0.11, "gdp_growth": -5, "wage_inflation": absent}
        assert score(said(0.71, 0.625), some)["guard"] == pytest.approx((0.4 - 0.3) / 0.7)
    u12, okun = {"u12": 0.095}, {"r_okun": -0.769}  # 1 and 0.5
    assert math.isnan(score(said(0.7, 0.6), STATE | u12)["annual"])
    assert score(said(0.7, 0.6), STATE | okun)["annual"] == pytest.approx(0.5)
    both = score(said(0.7, 0.6), STATE | okun | u12)
    assert both["annual"] == pytest.approx((0.4 * 0.5 + 0.2) / 0.6)
    worst = {"r_okun": 1, "r_phillips": 1, "u12": 0.04}  # no term falls below -1
    assert score(said(0.7, 0.6), STATE | worst)["annual"] == pytest.approx(-1)


def test_the_state_may_be_in_either_place():
    answer, wanted = said(0.8, 0.6), score(said(0.8, 0.6))
    typed = {k: np.float32(v) if k == "gdp_growth" else np.array(v)[()] for k, v in STATE.items()}
    for reference, info in (
        (STATE, None),
        ("", STATE),
        (None, typed),
        (json.dumps(STATE), {"wealth": -1, "employed": False, "buffer_ratio": 9}),
        (json.dumps({"buffer_ratio": 3, "wealth": None}), STATE),
    ):
        assert econ.compute_score("econ", answer, reference, info) == pytest.approx(
            wanted, nan_ok=True
        )


FAULTS = {  # what is wrong with the row, and what is said of it
    "employed is missing": {"employed": None},
    "employed is a text": {"employed": "yes"},
    "neither true nor false": {"employed": 0.5},
    "wealth and dpi missing": {"buffer_ratio": None, "wealth": None, "dpi": math.nan},
    "dpi missing": {"buffer_ratio": None, "dpi": None},
    "wealth is inf": {"wealth": math.inf},
    "dpi is inf": {"dpi": 10**400},
    "gdp_growth is of type list": {"gdp_growth": [2]},
    "unemployment_rate is 5.0, not from 0 to 1, a share": {"unemployment_rate": 5},
    "r_okun is -1.5": {"r_okun": -1.5},
}


@pytest.mark.parametrize("message", FAULTS)
def test_a_fault_of_the_data_is_masked_and_reported(message):
    state = STATE | FAULTS[message]
    result = econ.compute_score("econ", said(0.7, 0.6), state)
    assert (
        math.isnan(result["score"]) and result["masked"] == 1 and set(result) == PARTS | {"outcome"}
    )
    rows = [{"ground_truth": STATE}, {"reward_model": {"ground_truth": ""}, "extra_info": state}]
    [fault] = econ.row_faults([*rows, {"extra_info": STATE}])
    assert (fault["index"], fault["outcome"]) == (1, "bad_state") and message in fault["message"]
    assert econ.reference_answer(state) is None


@pytest.mark.parametrize("reference", ["{", "[1]", "7", "[" * 100_000, "text", 5, [], "7" * 5000])
def test_a_ground_truth_that_is_no_object(reference):
    assert econ.compute_score("econ", said(0.7, 0.6), reference, STATE)["outcome"] == "bad_state"


@pytest.mark.parametrize(
    "missing",
    [
        None,
        "",
        " ",
        "nan",
        "NaN",
        "None",
        "null",
        "<NA>",
        math.nan,
        np.float64("nan"),
        np.array(math.nan),
    ],
)
def test_a_ground_truth_that_is_missing(missing):
    """As pandas writes it: the state is in extra_info, or nowhere, which masks the row."""
    assert econ.compute_score("econ", said(0.8, 0.6), missing, STATE)["outcome"] == "ok"
    assert econ.compute_score("econ", said(0.8, 0.6), missing, {})["outcome"] == "bad_state"


def test_a_state_in_an_array_of_one():
    for state in (np.array(json.dumps(STATE)), np.array(STATE, dtype=object)):
        assert econ.compute_score("econ", said(0.8, 0.6), state, {})["outcome"] == "ok"


DEEP = '{"a": ' * 200_000
DECISIONS = {  # answer: outcome in strict, in lenient mode
    said(0.7, 0.6): ("ok", "ok"),
    ' \n{"consumption":6e-1,"why":"{","work":1}\n': ("ok", "ok"),
    '{"work": 0, "consumption": -0.0}': ("ok", "ok"),
    "<think>{hm}</think>" + said(0.7, 0.6): ("ok", "ok"),
    "```json\n" + said(0.7, 0.6) + "\n```": ("prose", "ok"),
    said(0.7, 0.6) + " {": ("prose", "ok"),
    "I say: " + said(0.7, 0.6): ("prose", "ok"),
    said(0.7, 0.6) * 2: ("prose", "ok"),
    "{x} " + said(0.7, 0.6): ("no_json", "no_json"),
    "": ("no_json", "no_json"),
    "work 0.7 consumption 0.6": ("no_json", "no_json"),
    "[0.7, 0.6]": ("no_json", "no_json"),
    '{"work": 0.7, "consumption": 0.6': ("no_json", "no_json"),
    "{'work': 0.7, 'consumption': 0.6}": ("no_json", "no_json"),
    '{"work": .7, "consumption": 0.6}': ("no_json", "no_json"),
    '{"work": 0.7, "consumption": NaN}': ("no_json", "no_json"),
    '{"work": Infinity, "consumption": 0.6}': ("no_json", "no_json"),
    '{"work": 0.7, "work": 0.7, "consumption": 0.6}': ("no_json", "no_json"),
    DEEP: ("no_json", "no_json"),
    "{" * 200_000: ("no_json", "no_json"),
    "{}": ("missing", "missing"),
    '{"work": 0.7}': ("missing", "missing"),
    '{"Work": 0.7, "consumption": 0.6}': ("missing", "missing"),
    '{"decision": {"work": 0.7, "consumption": 0.6}}': ("missing", "missing"),
    '{"work": true, "consumption": 0.6}': ("not_a_number", "not_a_number"),
    '{"work": "0.7", "consumption": 0.6}': ("not_a_number", "not_a_number"),
    '{"work": null, "consumption": 0.6}': ("not_a_number", "not_a_number"),
    '{"work": [0.7], "consumption": 5}': ("not_a_number", "not_a_number"),
    '{"work": 1.0000001, "consumption": 0.6}': ("out_of_range", "out_of_range"),
    '{"work": 0.7, "consumption": -1e-9}': ("out_of_range", "out_of_range"),
    '{"work": 1e999, "consumption": 0.6}': ("out_of_range", "out_of_range"),
    '{"work": ' + "9" * 5000 + ', "consumption": 0.6}': ("out_of_range", "out_of_range"),
}


@pytest.mark.parametrize("answer", DECISIONS, ids=lambda answer: answer[:40])
def test_decisions(answer):
    for mode, outcome in zip(("strict", "lenient"), DECISIONS[answer], strict=True):
        result = score(answer, mode=mode)
        assert result["outcome"] == outcome
        assert result["valid_json"] == float(outcome not in ("no_json", "prose"))
        decided = [not math.isnan(result[part]) for part in ("work", "consumption", "micro", "reg")]
        assert decided == [outcome == "ok"] * 4
        assert (result["score"] == -1) == (outcome != "ok")


@pytest.mark.parametrize("answer", [None, 7, b"{}", {"work": 0.7, "consumption": 0.6}])
def test_an_answer_that_is_no_text_is_empty(answer):
    assert score(answer) == pytest.approx(score(""), nan_ok=True)


def test_good_beats_bad_beats_soup():
    best, fair, poor = (score(said(*d))["score"] for d in ((0.71, 0.625), (0.6, 0.5), (0, 1)))
    soup = "work consumption savings income {work} unemployment decision JSON 0.71 0.625 " * 50
    assert best > fair > poor > score(soup)["score"] == score("")["score"] == -1
    once, often = said(0.6, 0.5), said(0.6, 0.5) * 30
    assert score(often, mode="lenient") == score(once)


def test_only_micro_and_reg_depend_on_the_answer():
    results = [score(said(w, c), STATE | ANNUAL) for w, c in ((0.1, 0), (0.7, 0.6), (1, 1))]
    assert len({(r["guard"], r["annual"]) for r in results}) == 1
    assert len({r["micro"] for r in results}) == 3


pieces = st.sampled_from(
    [
        '{"work":',
        '"consumption":',
        "0.7",
        ",",
        "}",
        "{",
        '"',
        "\\",
        "NaN",
        "1e999",
        "true",
        "</think>",
        "\ud800",
    ]
)
texts = st.one_of(st.text(st.characters()), st.lists(pieces, max_size=12).map("".join))
values = st.one_of(st.floats(), st.integers(), st.booleans(), st.text(max_size=5), st.none())
answers = st.one_of(
    texts,
    st.builds(
        lambda *v: json.dumps(dict(zip(("work", "consumption"), v, strict=True))), values, values
    ),
    st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda d: said(*d)),
)
states = st.fixed_dictionaries(
    {"employed": st.booleans(), "wealth": st.floats(-1e300, 1e300), "dpi": st.floats(-1e300, 1e300)},
    optional=dict.fromkeys(["gdp_growth", "wage_inflation", "price_inflation"], st.floats(-1e300, 1e300))
    | dict.fromkeys(["unemployment_rate", "u12"], st.floats(0, 1))
    | dict.fromkeys(["r_okun", "r_phillips"], st.floats(-1, 1)),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(answers, states, st.sampled_from(["strict", "lenient"]))
@example("\x00\udfff{", STATE, "lenient")
@example(said(0.7, 0.6), {"employed": 1, "wealth": 1e300, "dpi": 1e-300}, "strict")
def test_any_text_gives_a_number_in_range(answer, state, mode):
    result = score(answer, state, mode=mode)
    assert -1 <= result["score"] <= 1
    assert (result["outcome"] == "ok") or result["score"] == -1
    parts = [result[part] for part in ("micro", "guard", "annual")]
    assert all(abs(part) <= 1 + 1e-12 for part in parts if not math.isnan(part))


@settings(max_examples=20, deadline=None)
@given(states)
def test_no_decision_is_better_than_the_best_one(state):
    reference = score(econ.reference_answer(json.dumps(state)), state)
    grid = [i / 16 for i in range(17)]
    assert (
        reference["score"]
        >= max(score(said(w, c), state)["score"] for w in grid for c in grid) - 1e-9
    )
    assert reference["micro"] == pytest.approx(1) and reference["reg"] == 0
    assert reference["score"] >= econ.bars()["reference"] - 1e-9
    for answer in ("", "random words", "{}"):
        assert score(answer, state)["score"] <= econ.bars()["empty"]


@pytest.mark.parametrize(
    "piece",
    [
        "{",
        '{"a":',
        '{"a": [',
        "[{",
        "}",
        '{"work": 0.7, ',
        '\\"',
        "9",
        '{"\\u0041',
        "</think>",
        " ",
        "{} ",
    ],
)
def test_time_grows_with_the_length_alone(piece):
    def seconds(characters):
        text = '{"work": 0.' + piece * (characters // len(piece))
        took = []
        for _ in range(5):
            start = time.perf_counter()
            score(text, mode="lenient")
            score(text.removeprefix('{"work": 0.'))
            took.append(time.perf_counter() - start)
        return min(took)

    assert seconds(200_000) < 30 * max(seconds(20_000), 1e-4)


CHANGED = {
    "mode": "lenient", "annual_weight": 0.1, "guard_weight": 0.1, "micro_weight": 0.9, "reg_weight": 1,
    "alone_guard_weight": 0.1, "alone_micro_weight": 0.9, "work_share": 0.9, "extreme_penalty": 1,
    "okun_target": -0.5, "phillips_target": -0.5,
}  # fmt: skip


@pytest.mark.parametrize("name", options_of(econ))
def test_every_option_changes_a_score_and_is_checked(name):
    answer, option = said(0.65, 0.99), {name: CHANGED[name]}
    if name == "mode":
        answer = f"So: {answer}"
    moved = [
        score(answer, state, **option)["score"] != score(answer, state)["score"]
        for state in (STATE, STATE | ANNUAL)
    ]
    alone, with_annual = name.startswith("alone"), name in ("annual_weight", "guard_weight")
    with_annual |= name in ("micro_weight", "okun_target", "phillips_target")
    assert moved == [not with_annual, not alone]
    for wrong in (1.5, -1.5, math.nan, True, None, "much", [1]):
        with pytest.raises(ValueError):
            score(answer, **{name: wrong})
    with pytest.raises(ValueError, match=name):
        score(answer, **{name[:-1]: 1})
    with pytest.raises(ValueError, match=name):
        econ.bars(**{name[:-1]: 1})


def test_the_bars_follow_the_weights():
    assert econ.bars() == {"range": (-1.0, 1.0), "reference": pytest.approx(-0.55), "empty": -1.0}
    only_micro = dict.fromkeys(["annual_weight", "guard_weight", "alone_guard_weight"], 0)
    assert econ.bars(**only_micro)["reference"] == 0.2
    assert score(said(0.71, 0.625), STATE | ANNUAL, **only_micro)["score"] == pytest.approx(0.2)


def test_what_verl_passes_along_is_no_mistake():
    assert score(said(0.7, 0.6), reward_router_address="127.0.0.1:1")["outcome"] == "ok"


def test_the_config_names_options_that_there_are(composer):
    config = composer("reward=econ", "dataset=econ")
    function = config.reward.custom_reward_function
    assert function.path == "pkg://rewards.econ"
    econ.compute_score("econ", "", STATE, **function.reward_kwargs)


def test_from_the_command_line(tmp_path):
    rows = [{"response": r, "ground_truth": json.dumps(STATE)} for r in (said(0.71, 0.625), "no")]
    rows.append({"response": said(0.7, 0.6), "ground_truth": "{}"})
    file, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "rewards", "econ", "--file", str(file)]
    done = subprocess.run([*command, "--out", str(out)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    scores = [json.loads(line)["result"]["score"] for line in out.read_text().splitlines()]
    assert scores == [pytest.approx(0.475527, abs=1e-6), -1, None]
    done = subprocess.run([*command, "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and ":3: bad_state: employed is missing" in done.stderr
