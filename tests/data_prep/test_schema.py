"""The row schema: every kind of broken row is named with its field; nothing is lost uncounted."""

import argparse
import copy
import json

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import _dataset, _schema
from preflight.mistakes import Mistake

ASK = [{"role": "user", "content": "How many?"}]
TELL = [{"role": "assistant", "content": "Seven."}]
GOOD = {
    "rl": {
        "data_source": "d",
        "prompt": [{"role": "system", "content": ""}, *ASK],
        "ability": "general",
        "reward_model": {"style": "rule", "ground_truth": ""},
        "extra_info": {"index": 0, "split": "train"},
    },
    "sft": {"messages": ASK + TELL},
    "preference": {
        "prompt": ASK,
        "chosen": TELL,
        "rejected": [{"role": "assistant", "content": "Six."}],
    },
    "process": {"prompt": ASK, "steps": ["a", "b"], "labels": [1, 0.5]},
}
DELETE = object()
BROKEN = [  # (kind, path into the row, value put there, text that the problem must contain)
    ("rl", ["data_source"], DELETE, "data_source: missing"),
    ("rl", ["data_source"], "", "data_source: empty"),
    ("rl", ["data_source"], 7, "data_source: is of type int"),
    ("rl", ["data_source"], "\ud800", "data_source: not valid UTF-8"),
    ("rl", ["prompt"], None, "prompt: missing"),
    ("rl", ["prompt"], [], "prompt: empty"),
    ("rl", ["prompt"], "How many?", "prompt: is of type str"),
    ("rl", ["prompt", 1], "How many?", "prompt[1]: is of type str"),
    ("rl", ["prompt", 1, "role"], "human", "prompt[1].role: 'human'"),
    ("rl", ["prompt", 1, "role"], "assistant", "prompt[1].role: the last message"),
    ("rl", ["prompt", 1, "role"], "system", "prompt[1].role: a system message"),
    ("rl", ["prompt", 1, "content"], DELETE, "prompt[1].content: missing"),
    ("rl", ["prompt", 1, "content"], " \n", "prompt[1].content: empty"),
    ("rl", ["prompt", 1, "content"], [{"type": "image"}], "prompt[1].content: is of type list"),
    ("rl", ["ability"], None, "ability: missing"),
    ("rl", ["reward_model"], "rule", "reward_model: is of type str"),
    ("rl", ["reward_model", "style"], DELETE, "reward_model.style: missing"),
    ("rl", ["reward_model", "ground_truth"], None, "reward_model.ground_truth: missing"),
    ("rl", ["reward_model", "ground_truth"], 7, "reward_model.ground_truth: is of type int"),
    ("rl", ["extra_info"], [], "extra_info: is of type list"),
    ("rl", ["extra_info", "index"], -1, "extra_info.index: -1"),
    ("rl", ["extra_info", "index"], True, "extra_info.index: True"),
    ("rl", ["extra_info", "split"], DELETE, "extra_info.split: missing"),
    ("rl", ["extra_info", "db"], "\udcff", "extra_info.db: not valid UTF-8"),
    ("sft", ["messages"], DELETE, "messages: missing"),
    ("sft", ["messages"], TELL, "messages: an answer without a question"),
    ("sft", ["messages"], ASK, "messages[0].role: the last message"),
    ("sft", ["messages", 1, "content"], "", "messages[1].content: empty"),
    ("preference", ["chosen"], ASK, "chosen[0].role: the last message"),
    ("preference", ["rejected"], TELL, "rejected: the same as chosen"),
    ("preference", ["rejected"], "Six.", "rejected: is of type str"),
    ("process", ["steps"], [], "steps: empty"),
    ("process", ["steps", 0], "", "steps[0]: empty"),
    ("process", ["labels"], [1], "labels: not a list of 2"),
    ("process", ["labels", 1], 2, "labels[1]: 2 is not"),
    ("process", ["labels", 1], float("nan"), "labels[1]: nan is not"),
    ("process", ["labels", 1], "+", "labels[1]: '+' is not"),
]


def changed(kind: str, path: list, value: object) -> dict:
    row = copy.deepcopy(GOOD[kind])
    inner = row
    for step in path[:-1]:
        inner = inner[step]
    if value is DELETE:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return row


@pytest.mark.parametrize("kind", _schema.KINDS)
def test_good_rows_pass(kind):
    assert _schema.check(kind, GOOD[kind]) == []


@pytest.mark.parametrize(("kind", "path", "value", "problem"), BROKEN)
def test_broken_rows_are_named(kind, path, value, problem):
    found = _schema.check(kind, changed(kind, path, value))
    assert any(p.startswith(problem) for p in found), found


@pytest.mark.parametrize("kind", _schema.KINDS)
def test_every_field_is_needed(kind):
    for field in _schema.KINDS[kind]:
        assert _schema.check(kind, changed(kind, [field], DELETE)) == [f"{field}: missing"]


def test_kind_is_told_by_the_columns():
    for kind, columns in _schema.KINDS.items():
        assert _schema.kind_of([*columns, "more"]) == kind
    assert _schema.kind_of(["prompt", "text"]) is None


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "index", "split", "x"]), inner)
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(kind=st.sampled_from(list(_schema.KINDS)), data=st.data())
def test_check_takes_anything(kind, data):
    """Junk in a field is a problem or a good row, never an exception; good rows fit parquet."""
    row = copy.deepcopy(GOOD[kind])
    field = data.draw(st.sampled_from(list(row)))
    row[field] = data.draw(junk)
    if not _schema.check(kind, row):
        import pyarrow as pa

        pa.Table.from_pylist([row], _schema.arrow(kind))


def options(tmp_path, on_bad: str) -> argparse.Namespace:
    return argparse.Namespace(out=tmp_path / "out", force=True, tokenizer=None, on_bad=on_bad)


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.sampled_from(["good", *range(24), "left out"]), max_size=30))
def test_nothing_is_lost_without_being_counted(tmp_path_factory, rows):
    """What goes in comes out as kept, rejected with its reason, or left out; the card adds up."""
    tmp_path = tmp_path_factory.mktemp("rows")
    rows = ["train", "val", *rows]

    def fill(out: _dataset.Rows) -> None:
        for number, what in out.reading(rows, "test"):
            row = changed("rl", *BROKEN[what][1:3]) if isinstance(what, int) else GOOD["rl"]
            if what == "left out":
                out.leave_out("unwanted")
            else:
                row = copy.deepcopy(row)
                if what == "val":
                    row["extra_info"]["split"] = "val"
                out.add(number, {"what": what}, row)

    _dataset.make("jsonl", options(tmp_path, "skip"), fill)
    card = json.loads((tmp_path / "out/card.json").read_text())
    bad = [i for i, what in enumerate(rows) if isinstance(what, int)]
    assert card["counts"]["read"] == len(rows)
    assert card["counts"]["rejected"] == len(bad)
    assert card["counts"].get("unwanted", 0) == rows.count("left out")
    kept = sum(
        pq.read_metadata(tmp_path / f"out/{split}.parquet").num_rows for split in ("train", "val")
    )
    assert kept == len(rows) - len(bad) - rows.count("left out")
    rejected = tmp_path / "out/rejected.jsonl"
    lines = [json.loads(line) for line in rejected.read_text().splitlines()] if bad else []
    assert [line["row"] for line in lines] == bad
    for line in lines:
        assert BROKEN[line["data"]["what"]][3] in line["reason"]


def test_bad_rows_fail_with_the_first_ten_and_a_count(tmp_path):
    def fill(out: _dataset.Rows) -> None:
        for number, _ in out.reading(range(13), "test"):
            out.add(number, None, changed("rl", ["prompt", 1, "role"], "human"))

    with pytest.raises(Mistake) as error:
        _dataset.make("jsonl", options(tmp_path, "fail"), fill)
    text = str(error.value)
    assert "13 of 13 rows are bad" in text
    assert "test row 9: prompt[1].role: 'human'" in text and "row 10" not in text
    assert not (tmp_path / "out").exists()


def test_a_source_that_drops_rows_silently_is_found(tmp_path):
    def fill(out: _dataset.Rows) -> None:
        for number, _ in out.reading(range(5), "test"):
            row = copy.deepcopy(GOOD["rl"])
            row["extra_info"]["split"] = "val" if number else "train"
            if number != 3:
                out.add(number, None, row)

    with pytest.raises(RuntimeError, match="lost without being counted"):
        _dataset.make("jsonl", options(tmp_path, "skip"), fill)
