"""econ: a believable simulation, a user's file in any shape, examples and good decisions, no row lost."""

import csv
import json
import math
from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import _schema
from data_prep.__main__ import main
from data_prep._econ import examples as _econ_examples
from data_prep._econ.rows import as_text, checked, decision, prompt
from data_prep._econ.simulate import simulate, taxes
from rewards import econ as reward

SMALL = ["--economies", "2", "--households", "40", "--years", "6", "--val-share", "0.2"]
SIMULATED = [dict(row) for row in simulate(0, 2, 40, 6)]
RANGES = {
    "unemployment_rate": (0.015, 0.25), "u12": (0.015, 0.25), "gdp_growth": (-10, 14),
    "wage_inflation": (-6, 9), "price_inflation": (-8, 9), "r_okun": (-1, 0), "r_phillips": (-1, 0.4),
}  # fmt: skip


def prepare(out, *options) -> int:
    return main(["econ", "--out", str(out), "--force", *map(str, options)])


def read(out) -> dict[str, list[dict]]:
    return {f.stem: pq.read_table(f).to_pylist() for f in sorted(out.glob("*.parquet"))}


def card(out) -> dict:
    return json.loads((out / "card.json").read_text())


def states(rows) -> list[str]:
    """The states in the prompts, as text."""
    return [row["prompt"][-1]["content"].split("\n")[-2] for row in rows]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("econ") / "plain"
    assert prepare(out, *SMALL) == 0
    return out


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """With examples and good decisions alone."""
    out = tmp_path_factory.mktemp("econ") / "shown"
    assert prepare(out, *SMALL, "--few-shot", "3", "--good-only") == 0
    return out


def test_the_simulation_is_believable():
    rows = list(simulate(3, 20, 50, 10))
    for name, (low, high) in RANGES.items():
        assert all(low <= row[name] <= high for row in rows), name
    by_year = defaultdict(list)
    for row in rows:
        by_year[row["household"].split("-")[0], row["year"]].append(row)
        assert row["dpi"] == pytest.approx(row["income"] + row["transfer"] - row["tax"], abs=2)
        assert row["tax"] == pytest.approx(float(taxes(np.array(row["income"]))), abs=1)
        assert row["employed"] == (row["transfer"] == 0)
        assert 0 <= row["work"] <= 1 and 0 <= row["consumption"] <= 1
    for same in by_year.values():  # unemployment is what the households say
        assert len({tuple(row[name] for name in RANGES) for row in same}) == 1
        out = sum(not row["employed"] for row in same) / len(same)
        assert out == pytest.approx(same[0]["unemployment_rate"], abs=0.011)
    buffer = [(row["wealth"] + row["dpi"]) / row["dpi"] for row in rows if row["dpi"] > 0]
    assert 2 < np.median(buffer) < 5 and np.quantile(buffer, 0.9) < 12
    assert taxes(np.array([0, 20_000, 60_000, 100_000])).tolist() == [0, 2000, 10_000, 22_000]


def test_a_seed_fixes_everything(made, tmp_path):
    assert prepare(tmp_path / "again", *SMALL) == 0
    assert prepare(tmp_path / "other", *SMALL, "--seed", "1") == 0
    assert read(tmp_path / "again") == read(made) != read(tmp_path / "other")


def test_rows_follow_the_schema_and_the_reward_can_grade_them(made):
    files = read(made)
    for name, rows in files.items():
        kind = "sft" if name.startswith("sft") else "rl"
        assert [p for row in rows for p in _schema.check(kind, row)] == []
    rows = files["train"] + files["val"]
    assert len(rows) == len(SIMULATED) == card(made)["counts"]["read"]
    assert reward.row_faults(rows) == []
    for row in rows:
        source = SIMULATED[row["extra_info"]["index"]]
        truth = json.loads(row["reward_model"]["ground_truth"])
        assert all(truth[name] == source[name] for name in (*RANGES, "employed", "wealth", "dpi"))
        assert json.loads(row["extra_info"]["decision"]) == {
            name: source[name] for name in ("work", "consumption")
        }
        assert len(row["prompt"][0]["content"].encode()) < 300  # for model=tiny


def test_sft_answers_are_the_decisions_as_strict_json(made):
    files = read(made)
    for split in ("train", "val"):
        pairs = zip(files[split], files[f"sft_{split}"], strict=True)
        for rl, sft in pairs:
            assert sft["messages"][:-1] == rl["prompt"]
            answer = sft["messages"][-1]["content"]
            assert answer == rl["extra_info"]["decision"]
            result = reward.compute_score("", answer, rl["reward_model"]["ground_truth"])
            assert result["outcome"] == "ok"


def test_a_household_stays_on_one_side(made):
    files = read(made)
    train, val = ({r["extra_info"]["household"] for r in files[s]} for s in ("train", "val"))
    assert len(train) + len(val) == 80 and not train & val
    assert {r["extra_info"]["split"] for r in files["val"]} == {"val"}


def test_examples_are_of_the_training_split_and_of_both_kinds(made, shown):
    files, decisions_of = read(shown), defaultdict(set)
    for messages in (row["messages"] for row in files["sft_train"]):
        state = messages[0]["content"].split("\n")[-2]
        decisions_of[state].add(messages[1]["content"])
    for name in ("train", "val"):
        for row in files[name]:
            head, *lines = row["prompt"][0]["content"].split("\n")
            shown_states, answers, own = lines[0:6:2], lines[1:6:2], lines[-2]
            assert head == "Examples:" and lines[6] == "" and len(lines) == 9
            assert {state.split(",")[0] for state in shown_states} == {"Employed", "Unemployed"}
            assert own not in shown_states
            assert all(a in decisions_of[s] for s, a in zip(shown_states, answers, strict=True))
    plain = read(made)
    assert states(files["train"]) == states(plain["train"])  # every RL row is still there


def test_examples_are_the_nearest():
    some = [checked(row) for row in SIMULATED]
    found = _econ_examples.Examples(some)
    raw = np.array([_econ_examples.features(state) for state in some])
    points = (raw - raw.mean(0)) / raw.std(0)
    for i in (0, 7, 100, 333):
        distance = ((points - points[i]) ** 2).sum(1)
        nearest = [as_text(some[j]) for j in np.argsort(distance)[1:5]]
        got = [state for state, _ in found.near(some[i], 4)][::-1]
        assert got[:3] == nearest[:3]
        assert got[3] == nearest[3] or len({state[:10] for state in got[:3]}) == 1
        assert as_text(some[i]) not in got
    copies = _econ_examples.Examples([some[0]] * 5 + some[:20] + some[-20:])
    assert as_text(some[0]) not in [state for state, _ in copies.near(some[0], 10)]
    bare = {"employed": True, "wealth": 1.0, "dpi": 2.0, "work": 0.5, "consumption": 0.5}
    few = _econ_examples.Examples([bare, bare | {"employed": False, "wealth": 3.0}])
    assert len(few.near(bare, 5)) == 1 and len(few.near(bare | {"dpi": 9.0}, 5)) == 2


def test_the_pool_of_examples_is_bounded(monkeypatch):
    monkeypatch.setattr(_econ_examples, "POOL", 10)
    employed = np.arange(100) > 2
    drawn = _econ_examples.pool(employed, 0)
    assert Counter(employed[drawn].tolist()) == {True: 5, False: 3} and len(set(drawn)) == 8
    assert _econ_examples.pool(employed, 1).tolist() != drawn.tolist()


def test_good_decisions_earn_more(shown, made):
    files, plain, kept = read(shown), read(made), Counter()
    for split in ("train", "val"):
        good = {m["messages"][0]["content"] for m in files[f"sft_{split}"]}
        earned = {True: defaultdict(list), False: defaultdict(list)}
        for row in files[split]:
            reference, answer = row["reward_model"]["ground_truth"], row["extra_info"]["decision"]
            micro = reward.compute_score("", answer, reference)["micro"]
            employed = json.loads(reference)["employed"]
            is_good = row["prompt"][0]["content"] in good
            earned[employed][is_good].append(micro)
            kept[split, employed] += is_good
        for employed in (True, False):
            assert min(earned[employed][True]) >= max(earned[employed][False]) - 1e-9
        assert kept[split, True] <= 0.3 * len(plain[split]) + 1
    share = kept["train", False] / (kept["train", True] + kept["train", False])
    assert share == pytest.approx(0.15, abs=0.01)
    counted = card(shown)["good"]
    assert counted == {
        "employed": kept["train", True] + kept["val", True],
        "unemployed": kept["train", False] + kept["val", False],
    }


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([math.nan, -1, 0, 0.5, 1]), st.booleans()), max_size=60))
def test_which_decisions_are_good(rows):
    scores = np.array([score for score, _ in rows], float)
    employed = np.array([kind for _, kind in rows], bool)
    chosen = _econ_examples.good(scores, employed)
    assert len(set(chosen.tolist())) == len(chosen) and not np.isnan(scores[chosen]).any()
    kept = {}
    for kind, best in ((True, 0.30), (False, 0.60)):
        graded = np.flatnonzero((employed == kind) & ~np.isnan(scores))
        some = [i for i in chosen if employed[i] == kind]
        kept[kind] = len(some)
        assert len(some) <= math.ceil(best * len(graded)) and bool(len(some)) == bool(len(graded))
        left = set(graded) - set(some)
        assert not some or not left or min(scores[some]) >= max(scores[list(left)])
    if kept[True] and kept[False] and len(chosen) > 20:
        assert kept[False] / len(chosen) == pytest.approx(0.15, abs=0.05)


def write(folder, name, rows):
    file = folder / name
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif name.endswith(".csv"):
        with file.open("w", newline="") as f:
            writer = csv.DictWriter(f, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.parquet"])
def test_a_file_gives_what_the_simulation_gives(tmp_path, made, name):
    file = write(tmp_path, name, SIMULATED)
    assert prepare(tmp_path / "out", file, "--val-share", "0.2") == 0
    assert read(tmp_path / "out") == read(made)


def test_columns_by_other_names(tmp_path, made, capsys):
    names = {"employed": "gt_employed", "u12": "u_mean_12m", "household": "agent"}
    rows = [{names.get(k, k): v for k, v in row.items()} for row in SIMULATED]
    file, given = write(tmp_path, "rows.csv", rows), ",".join(map("=".join, names.items()))
    assert prepare(tmp_path / "out", file, "--map", given, "--val-share", "0.2") == 0
    assert read(tmp_path / "out") == read(made)
    assert prepare(tmp_path / "none", file, "--map", given + ",r_okun=nosuch") == 2
    assert "nosuch: missing, and --map takes r_okun from it" in capsys.readouterr().err


def test_the_income_makes_the_disposable_one(tmp_path):
    rows = [{k: v for k, v in row.items() if k not in ("dpi", "household")} for row in SIMULATED]
    assert prepare(tmp_path / "out", write(tmp_path, "rows.jsonl", rows)) == 0
    for row in read(tmp_path / "out")["train"]:
        truth, source = (
            json.loads(row["reward_model"]["ground_truth"]),
            SIMULATED[row["extra_info"]["index"]],
        )
        assert truth["dpi"] == pytest.approx(source["dpi"], abs=2)


GOOD = {k: v for k, v in SIMULATED[0].items() if k not in ("r_okun", "u12")}
BROKEN = [  # what is changed in a good row, and the reason that it is rejected with
    ({"employed": None}, "employed: 'None' is neither true nor false"),
    ({"employed": "maybe"}, "employed: 'maybe' is neither"),
    ({"wealth": ""}, "wealth: missing"),
    ({"wealth": "much"}, "wealth: 'much' is not a number"),
    ({"wealth": True}, "wealth: 'True' is not a number"),
    ({"wealth": [1]}, "wealth: '[1]' is not a number"),
    ({"wealth": "1e999"}, "wealth: 1e999 is not finite"),
    ({"wealth": 10**400}, "wealth: '1000"),
    ({"dpi": None, "income": None}, "dpi: missing, and so is income"),
    ({"dpi": math.nan, "income": " "}, "dpi: missing, and so is income"),
    ({"unemployment_rate": 5.2}, "unemployment_rate: 5.2 is not from 0 to 1"),
    ({"r_phillips": -2}, "r_phillips: -2 is not from -1 to 1"),
    ({"gdp_growth": -math.inf}, "gdp_growth: -inf is not finite"),
    ({"work": None}, "work, consumption: a decision is both of them or neither"),
    ({"consumption": 1.01}, "consumption: 1.01 is not from 0 to 1"),
    ({"household": "\ud800"}, "extra_info.household: not valid UTF-8"),
]


def test_broken_rows_are_kept_aside_with_their_reason(tmp_path, capsys):
    file = write(tmp_path, "rows.jsonl", SIMULATED + [GOOD | change for change, _ in BROKEN])
    with file.open("a") as f:
        f.write("no JSON\n")
    out = tmp_path / "out"
    assert prepare(out, file, "--on-bad", "skip", "--few-shot", "2") == 0
    counts = card(out)["counts"]
    assert (
        counts["rejected"] == len(BROKEN) + 1
        and counts["read"] == len(SIMULATED) + counts["rejected"]
    )
    rejected = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    for line, (_, reason) in zip(rejected, [*BROKEN, ("", "not JSON")], strict=True):
        assert line["reason"].startswith(reason)
    assert prepare(tmp_path / "strict", file) == 2
    assert f"{counts['rejected']} of {counts['read']} rows are bad" in capsys.readouterr().err
    assert not (tmp_path / "strict").exists()


cells = st.one_of(
    st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=4), st.floats(0, 1)
)
columns = st.sampled_from([*SIMULATED[0], "score", "buffer_ratio"])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.dictionaries(columns, cells, max_size=4), max_size=10), st.booleans())
def test_no_row_is_lost_without_being_counted(tmp_path_factory, changes, examples):
    folder = tmp_path_factory.mktemp("any")
    file = write(folder, "rows.jsonl", SIMULATED[:80] + [GOOD | change for change in changes])
    more = ["--few-shot", "2"] if examples else []
    assert prepare(folder / "out", file, "--on-bad", "skip", "--val-share", "0.2", *more) == 0
    files, counts = read(folder / "out"), card(folder / "out")["counts"]
    kept = files["train"] + files["val"]
    assert len(kept) == counts["train"] + counts["val"] == counts["read"] - counts["rejected"]
    assert counts["read"] == 80 + len(changes)
    assert reward.row_faults(kept) == []  # what is kept can be graded


def test_a_score_of_ones_own_decides(tmp_path, capsys):
    rows = [row | {"score": float(i % 10 == 3)} for i, row in enumerate(SIMULATED)]
    file = write(tmp_path, "rows.csv", rows)
    assert prepare(tmp_path / "out", file, "--good-only", "--val-share", "0.2") == 0
    files = read(tmp_path / "out")
    prompts = {r["prompt"][0]["content"]: r["extra_info"]["index"] for r in files["train"]}
    best = [prompts[m["messages"][0]["content"]] % 10 == 3 for m in files["sft_train"]]
    working = [i for i in prompts.values() if SIMULATED[i]["employed"]]
    assert sum(best) >= min(len(best), sum(i % 10 == 3 for i in working)) * 0.9
    some = write(tmp_path, "some.jsonl", [*rows[:-1], SIMULATED[-1]])
    assert prepare(tmp_path / "some", some, "--good-only") == 2
    assert "1 decisions have no score" in capsys.readouterr().err


def test_states_without_decisions(tmp_path, capsys):
    rows = [{k: v for k, v in row.items() if k not in ("work", "consumption")} for row in SIMULATED]
    file = write(tmp_path, "rows.csv", rows)
    assert prepare(tmp_path / "out", file) == 0
    assert set(read(tmp_path / "out")) == {"train", "val"}
    assert prepare(tmp_path / "good", file, "--good-only") == 2
    assert prepare(tmp_path / "few", file, "--few-shot", "2") == 2
    said = capsys.readouterr().err
    assert (
        "--good-only needs decisions" in said
        and "--few-shot needs decisions of the employed" in said
    )


MISTAKES = {
    "--few-shot: 1 is below 2": ["--few-shot", "1"],
    "--seed: -1 is below 0": ["--seed", "-1"],
    "no column emplyed; columns: wealth": ["FILE", "--map", "emplyed=x"],
    "is not NAME=COLUMN": ["FILE", "--map", "employed"],
    "--map is for a FILE": ["--map", "employed=x"],
    "--encoding is for a FILE": ["--encoding", "latin-1"],
    "--years is of the simulation": ["FILE", "--years", "3"],
    "no file": ["nosuch.csv"],
    "--households: 0 is below 1": ["--households", "0"],
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_told_in_a_line(tmp_path, capsys, message):
    file = write(tmp_path, "rows.csv", SIMULATED)
    options = [file if option == "FILE" else option for option in MISTAKES[message]]
    assert prepare(tmp_path / "out", *options) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_what_is_absent_is_left_out():
    state = checked({"employed": "no", "wealth": "-5", "dpi": 0})
    assert as_text(state) == "Unemployed, disposable income 0, savings -5."
    assert decision(state) == "" and prompt(state, [])[0]["role"] == "user"
