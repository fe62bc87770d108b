"""convert: the same rows in parquet, whatever their types; what does not fit is kept aside."""

import json

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.__main__ import main


def convert(source, *options: str) -> int:
    return main(["convert", str(source), *options])


def rows_of(file) -> list[dict]:
    return pq.read_table(file).to_pylist()


def rejected(file) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def plain(value):
    """A value without its nulls: parquet gives every row all fields."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if plain(v) not in (None, {})}
    return [plain(v) for v in value] if isinstance(value, list) else value


ROWS = [
    {"prompt": [{"role": "user", "content": "größer?"}], "score": 1, "tags": []},
    {"prompt": [{"role": "user", "content": "x", "name": "Bo"}], "score": 0.5, "info": {"a": 1}},
    {"prompt": [], "info": {"b": {"c": True}}, "tags": ["t"], "big": 2**62},
    {"late": "column", "big": -1, "score": None},
]


@pytest.mark.parametrize("ending", ["jsonl", "json"])
def test_types_are_found_over_all_rows(tmp_path, ending, capsys):
    source = tmp_path / f"rows.{ending}"
    rows = ROWS[:1] * 2500 + ROWS  # the last types come in a later batch
    lines = [json.dumps(row) for row in rows]
    source.write_text("\n".join(lines) if ending == "jsonl" else f"[{','.join(lines)}]")
    assert convert(source) == 0
    assert [plain(row) for row in rows_of(tmp_path / "rows.parquet")] == [plain(r) for r in rows]
    assert "rows.parquet: 2504 rows, columns prompt, score, tags" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == [source.name, "rows.parquet"]


def test_csv_stays_text(tmp_path):
    (tmp_path / "t.csv").write_text("id,price,day\n007,1.50,2026-01-02\n8,,\n")
    assert convert(tmp_path / "t.csv", "--out", str(tmp_path / "new/t.parquet")) == 0
    assert rows_of(tmp_path / "new/t.parquet") == [
        {"id": "007", "price": "1.50", "day": "2026-01-02"},
        {"id": "8", "price": "", "day": ""},
    ]


MISFITS = [  # after rows {"a": 1, "b": "x", "c": [1], "d": {"e": 1}}
    {"a": "text"}, {"a": True}, {"a": [1]}, {"a": {"e": 1}}, {"a": 2**70}, {"b": 5}, {"b": "\ud800"},
    {"c": "text"}, {"c": ["text"]}, {"c": {"e": 1}}, {"d": [1]}, {"d": {"e": "text"}},
]  # fmt: skip


@pytest.mark.parametrize("row", MISFITS, ids=lambda row: ascii(row)[:30])
def test_a_value_of_another_type_is_a_bad_row(tmp_path, row, capsys):
    good = {"a": 1, "b": "x", "c": [1], "d": {"e": 1}}
    source, aside = tmp_path / "rows.jsonl", tmp_path / "rows.rejected.jsonl"
    source.write_text("".join(json.dumps(r) + "\n" for r in (good, row, good)))
    assert convert(source) == 2
    assert "1 of 3 rows are bad" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]
    assert convert(source, "--on-bad", "skip") == 0
    assert rows_of(tmp_path / "rows.parquet") == [good, good]
    assert [(line["row"], line["data"]) for line in rejected(aside)] == [(1, row)]
    assert f"2 rows, columns a, b, c, d; 1 rejected, see {aside}" in capsys.readouterr().out


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from("xyz"), inner, min_size=1, max_size=2)
    ),
    max_leaves=5,
)
lines = st.dictionaries(st.sampled_from("abc"), values, max_size=3)


@settings(max_examples=60, deadline=None)
@given(st.lists(lines | st.sampled_from([7, "x"]), max_size=8))
def test_every_row_is_there_or_aside(tmp_path_factory, some):
    folder = tmp_path_factory.mktemp("convert")
    rows = [{"sure": 1}, *some]
    (folder / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert convert(folder / "r.jsonl", "--on-bad", "skip") == 0
    aside = rejected(folder / "r.rejected.jsonl")
    bad = {line["row"] for line in aside}
    assert len(bad) == len(aside) and all(line["reason"] for line in aside)
    kept = [plain(row) for number, row in enumerate(rows) if number not in bad]
    assert [plain(row) for row in rows_of(folder / "r.parquet")] == kept


def test_nothing_is_overwritten_without_force(tmp_path, capsys):
    source, out = tmp_path / "r.jsonl", tmp_path / "r.parquet"
    source.write_text('{"a": 1}\n')
    out.write_text("mine")
    assert convert(source) == 2
    assert "r.parquet is there; --force replaces it" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert convert(source, "--force") == 0 and rows_of(out) == [{"a": 1}]
    source.write_text("broken\n")
    assert convert(source, "--force") == 2 and rows_of(out) == [{"a": 1}]  # a failure keeps it


MISTAKES = [
    ("", "has no rows"),
    ("{}\n{}\n", "no row has a column"),
    ('{"a": {}}\n', "parquet can't hold"),
    ("broken\n", "1 of 1 rows are bad"),
    ("PAR1", "is parquet already"),
    (None, "no file"),
]


@pytest.mark.parametrize(("content", "said"), MISTAKES)
def test_a_mistake_is_told(tmp_path, content, said, capsys):
    source = tmp_path / "r.json"
    if content is not None:
        source.write_text(content)
    assert convert(source) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "r.parquet").exists()
