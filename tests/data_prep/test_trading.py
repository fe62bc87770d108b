"""trading: every format, broken rows, no leak between the sides; the demo's rows run and score well."""

import io
import json
from collections import Counter

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep import _schema, _trading_demo
from data_prep.__main__ import main
from data_prep.trading import plain
from rewards.trading import compute_score


def row(number: int, **changes) -> dict:
    """A good row of a user's file; a field that is changed to ... is left out."""
    made = {
        "id": f"s{number}",
        "name": f"RSI strategy {number}",
        "description": json.dumps(
            {"idea": f"buy below {number}", "symbols": ["SPY", 3], "note": None}
        ),
        "reasoning": f"Oversold markets bounce {number}.",
        "source_code": f"def signal(rsi):\n    return rsi < {number}\n",
        "relevant_symbols": ["SPY", " QQQ "],
    }
    return {name: value for name, value in (made | changes).items() if value is not ...}


ROWS = [row(number) for number in range(60)]


def prepare(folder, *options: str) -> int:
    return main(["trading", *options, "--out", str(folder / "out"), "--force"])


def source(folder, rows, name: str = "rows.jsonl"):
    file = folder / name
    if name.endswith("jsonl"):
        text = "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows)
        file.write_bytes(text.encode(errors="surrogatepass"))
    elif name.endswith("json"):
        file.write_text(json.dumps(rows, indent=1))
    else:
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), sink)
        file.write_bytes(sink.getvalue())
    return str(file)


def made(folder, split: str) -> list[dict]:
    """The RL rows of a split, each checked with its SFT row."""
    rl = pq.read_table(folder / f"out/{split}.parquet").to_pylist()
    sft = pq.read_table(folder / f"out/sft_{split}.parquet").to_pylist()
    for one, lesson in zip(rl, sft, strict=True):
        assert _schema.check("rl", one) == [] and one["extra_info"]["split"] == split
        answer = {"role": "assistant", "content": one["reward_model"]["ground_truth"]}
        assert lesson["messages"] == [*one["prompt"], answer]
    return rl


def counts(folder) -> dict:
    return json.loads((folder / "out/card.json").read_text())["counts"]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.parquet"])
def test_every_format(tmp_path, name):
    assert prepare(tmp_path, source(tmp_path, ROWS, name), "--val-share", "0.3") == 0
    rows = sorted(
        made(tmp_path, "train") + made(tmp_path, "val"), key=lambda r: r["extra_info"]["index"]
    )
    assert [r["extra_info"]["id"] for r in rows] == [r["id"] for r in ROWS]
    assert rows[7]["prompt"][0]["content"] == (
        "Write a trading strategy in Python for SPY, QQQ: RSI strategy 7.\nidea: buy below 7\nsymbols: SPY, 3\n"
        "First give the reasoning, then the code in a ```python block."
    )
    assert rows[7]["reward_model"]["ground_truth"] == (
        "Oversold markets bounce 7.\n\n```python\ndef signal(rsi):\n    return rsi < 7\n```"
    )
    assert rows[7]["extra_info"]["relevant_symbols"] == "SPY, QQQ"
    assert counts(tmp_path) == {"read": 60, "train": counts(tmp_path)["train"], "rejected": 0,
                                "val": 60 - counts(tmp_path)["train"]}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "prompt"),
    [
        ({"relevant_symbols": ...}, "in Python: RSI"),
        ({"relevant_symbols": None}, "in Python: RSI"),
        ({"relevant_symbols": []}, "in Python: RSI"),
        ({"relevant_symbols": "SPY,  GLD"}, "for SPY, GLD: RSI"),
        ({"relevant_symbols": '["SPY", "GLD"]'}, "for SPY, GLD: RSI"),
        ({"description": '"In plain words"'}, "\nIn plain words\n"),
        ({"description": {"a": {"b": 1.5}, "c": True}}, '\na: {"b": 1.5}\nc: true\n'),
        ({"description": '["one", "two"]'}, "\none, two\n"),
        ({"description": '{"braces": "{name} 超卖"}'}, "\nbraces: {name} 超卖\n"),
        ({"id": 7}, ""),
    ],
)
def test_variants(tmp_path, changes, prompt):
    assert (
        prepare(tmp_path, source(tmp_path, [*ROWS, row(99, **changes)]), "--val-share", "0.3") == 0
    )
    last = max(
        made(tmp_path, "train") + made(tmp_path, "val"), key=lambda r: r["extra_info"]["index"]
    )
    assert prompt in last["prompt"][0]["content"]
    assert last["extra_info"]["id"] == str(changes.get("id", "s99"))


def test_a_fence_around_the_code_is_not_doubled(tmp_path):
    fenced = row(99, source_code="\n```python\nx = 1\n\ny = 2\n```\n")
    assert prepare(tmp_path, source(tmp_path, [*ROWS, fenced]), "--val-share", "0.3") == 0
    last = max(
        made(tmp_path, "train") + made(tmp_path, "val"), key=lambda r: r["extra_info"]["index"]
    )
    assert last["reward_model"]["ground_truth"].endswith("99.\n\n```python\nx = 1\n\ny = 2\n```")


def test_indented_code_is_python(tmp_path):
    assert (
        prepare(tmp_path, source(tmp_path, [*ROWS, row(99, source_code="  x = 1\n  y = 2\n")])) == 0
    )


BROKEN = [  # a row, and the reason that it must be rejected with
    ("{cut off", "not JSON"),
    ("[1]", "not a JSON object"),
    ("{}", "name: missing, there is nothing"),
    (row(99, id=...), "id: missing, there is name"),
    (row(99, id=None), "id: null"),
    (row(99, id=True), "id: is of type bool"),
    (row(99, id=" "), "id: empty"),
    (row(99, name=3), "name: is of type int"),
    (row(99, description="no JSON"), "description: not JSON"),
    (row(99, description='{"a": }'), "description: not JSON"),
    (row(99, description='{"a": ' + "7" * 5000 + "}"), "description: not JSON"),
    (row(99, description="[" * 5000), "description: not JSON"),
    (row(99, description=""), "description: empty"),
    (row(99, description=3), "description: is of type int"),
    (row(99, description="{}"), "description: has no text"),
    (row(99, description="null"), "description: has no text"),
    (row(99, description='{"a": null, "b": " "}'), "description: has no text"),
    (row(99, reasoning=...), "reasoning: missing"),
    (row(99, reasoning="\n"), "reasoning: empty"),
    (row(99, reasoning="\ud800"), "not valid UTF-8"),
    (row(99, source_code="def f(:\n"), "source_code: not Python: invalid syntax (line 1)"),
    (row(99, source_code="x = 1\0"), "source_code: not Python"),
    (row(99, source_code="x = " + "-" * 99_999 + "1"), "source_code: not Python"),
    (row(99, source_code="# only a comment"), "source_code: only comments"),
    (row(99, source_code="x = '```'"), "source_code: holds ```"),
    (row(99, relevant_symbols="[1"), "relevant_symbols: not JSON"),
    (row(99, relevant_symbols=[1]), "relevant_symbols: not a list of texts"),
    (row(99, relevant_symbols=3), "relevant_symbols: not a list of texts"),
]


@pytest.mark.parametrize(("broken", "why"), BROKEN, ids=range(len(BROKEN)))
def test_broken_rows_are_kept_with_their_reason(tmp_path, broken, why):
    file = source(tmp_path, [*ROWS, broken])
    assert prepare(tmp_path, file, "--val-share", "0.3", "--on-bad", "skip") == 0
    (line,) = (tmp_path / "out/rejected.jsonl").read_text().splitlines()
    assert why in json.loads(line)["reason"] and json.loads(line)["row"] == 60
    assert counts(tmp_path)["rejected"] == 1


def test_bad_rows_fail_by_default(tmp_path, capsys):
    assert prepare(tmp_path, source(tmp_path, [*ROWS, *(bad for bad, _ in BROKEN)])) == 2
    error = capsys.readouterr().err
    assert f"{len(BROKEN)} of {60 + len(BROKEN)} rows are bad" in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ((), "takes a FILE or --demo N"),
        (("rows.jsonl", "--demo", "9"), "takes a FILE or --demo N"),
        (("nosuch.jsonl",), "no file nosuch.jsonl"),
        (("--demo", "1"), "from 2"),
        (("--demo", "9", "--delimiter", ";"), "--delimiter is for a FILE"),
        (("--demo", "0"), "from 2"),
        (("--demo", "2001"), "from 2 to 2000"),
        (("--demo", "9", "--val-share", "2"), "not between 0 and 1"),
    ],
)
def test_mistakes(tmp_path, capsys, options, why):
    assert prepare(tmp_path, *options) == 2
    assert why in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_repeated_rows_and_rows_that_would_join_both_sides(tmp_path):
    assert prepare(tmp_path, source(tmp_path, ROWS), "--val-share", "0.5") == 0
    side = {
        r["extra_info"]["id"]: split for split in ("train", "val") for r in made(tmp_path, split)
    }
    train, val = (next(r for r in ROWS if side[r["id"]] == split) for split in ("train", "val"))
    again = train | {
        "source_code": train["source_code"]
        .upper()
        .replace("DEF", "def")
        .replace("RETURN", "return")
    }
    joins = train | {"source_code": val["source_code"], "id": "new"}
    assert (
        prepare(tmp_path, source(tmp_path, [*ROWS, train, again, joins]), "--val-share", "0.5") == 0
    )
    assert counts(tmp_path)["repeated"] == 1 and counts(tmp_path)["in_both"] == 1
    kept = [r["extra_info"]["index"] for r in made(tmp_path, "train")]
    assert 61 in kept and 60 not in kept and 62 not in kept


few = st.integers(0, 25)
made_rows = st.builds(
    lambda i, d, c, wide: row(i, description=json.dumps({"idea": f"{' ' * wide}IDEA {d}"}),
                              source_code=f"def f(x):\n    return{' ' * (wide + 1)}x < {c}"),
    few, few, few, st.integers(0, 1),
)  # fmt: skip
any_value = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=9), st.lists(st.text(max_size=3))
)
damaged = st.builds(
    lambda r, name, value: r | {name: value}, made_rows, st.sampled_from(list(ROWS[0])), any_value
)
lines = st.lists(
    st.one_of(made_rows, damaged, st.text('{}[]",:ab1', max_size=9).filter(str.strip)), max_size=40
)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(lines)
def test_nothing_is_lost_and_nothing_leaks(tmp_path, rows):
    rows = ROWS[:30] + rows
    assert prepare(tmp_path, source(tmp_path, rows), "--val-share", "0.3", "--on-bad", "skip") == 0
    found = Counter(counts(tmp_path))
    read = found.pop("read")
    assert read == len(rows) == sum(found.values())
    assert set(found) <= {"train", "val", "rejected", "repeated", "in_both"}
    file = tmp_path / "out/rejected.jsonl"
    assert found["rejected"] == (len(file.read_text().splitlines()) if file.exists() else 0)
    sides = [made(tmp_path, split) for split in ("train", "val")]
    assert [len(side) for side in sides] == [found["train"], found["val"]]
    for key in (
        lambda r: r["extra_info"]["id"],
        lambda r: plain(r["extra_info"]["description"]),
        lambda r: plain(r["reward_model"]["ground_truth"].split("```python")[1]),
        lambda r: r["prompt"][0]["content"],
    ):
        assert not {key(r) for r in sides[0]} & {key(r) for r in sides[1]}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    assert prepare(folder, "--demo", "80") == 0
    return folder, made(folder, "train"), made(folder, "val")


def test_the_demo(demo):
    folder, train, val = demo
    assert (len(train), len(val)) == (72, 8)
    rows = train + val
    prompts = [r["prompt"][0]["content"] for r in rows]
    assert len(set(prompts)) == 80
    assert max(len(prompt.encode()) for prompt in prompts) < 300
    assert {r["extra_info"]["name"] for r in rows} == {
        part.name for part in _trading_demo.INDICATORS
    }
    lines = (folder / "out/demo.jsonl").read_text().splitlines()
    assert set(json.loads(lines[0])) == set(ROWS[0])
    assert prepare(folder, str(folder / "out/demo.jsonl"), "--out", str(folder / "again")) == 0


def test_the_demo_depends_on_its_seed_alone():
    assert sum(1 for _ in _trading_demo.rows(0)) == _trading_demo.MOST
    first, again, other = (
        [next(rows) for _ in range(20)] for rows in map(_trading_demo.rows, (0, 0, 1))
    )
    assert first == again and first != other


def test_references_of_the_demo_score_well(demo):
    _, train, val = demo
    for r in train + val:
        prompt = {"messages": r["prompt"], **r["extra_info"]}
        result = compute_score("trading", r["reward_model"]["ground_truth"], "", prompt)
        assert result["score"] >= 0.7 and result["faults"] == 0, r


def test_the_demo_s_code_runs(demo):
    """On a random walk that reverts and trends: signals come out, and most strategies trade."""
    rng = np.random.default_rng(0)
    close = pd.Series(100 * np.exp(np.sin(np.arange(900) / 40) / 3 + rng.normal(0, 0.03, 900)))
    bars = {
        "close": close,
        "high": close * 1.01,
        "low": close * 0.99,
        "volume": rng.uniform(1, 9, 900),
    }
    trading = 0
    rows = demo[1][:30]
    for r in rows:
        names = {}
        exec(r["reward_model"]["ground_truth"].split("```python\n")[1].split("\n```")[0], names)
        result = names["generate_signals"](pd.DataFrame(bars))
        assert set(result["signal"]) <= {-1, 0, 1} and result["equity"].iloc[-1] > 0
        assert len(result) == 900 and (result["position_size"].dropna() > 0).all()
        trading += {1, -1} <= set(result["signal"])
    assert trading > 0.7 * len(rows)
