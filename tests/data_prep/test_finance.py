"""finance: both formats, broken rows, no leak from validation, and the demo that needs no file."""

import json
import re

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from data_prep import _schema
from data_prep.__main__ import main

ROWS = [
    {"query": f"分析台積電的投資價值 {i}", "context": "台股投資分析", "reference": f"參考回答 {i}"}
    for i in range(40)
]


def write(file, rows: list):
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    file.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return file


def prepare(folder, *options) -> int:
    return main(["finance", *map(str, options), "--out", str(folder / "out"), "--force"])


def made(folder) -> dict[str, list[dict]]:
    """The rows of every file, each checked."""
    files = {f.stem: pq.read_table(f).to_pylist() for f in (folder / "out").glob("*.parquet")}
    for name, rows in files.items():
        kind = "sft" if name.startswith("sft_") else "rl"
        assert all(_schema.check(kind, row) == [] for row in rows)
        assert kind == "sft" or all(row["extra_info"]["split"] == name for row in rows)
    return files


def counts(folder) -> dict:
    return json.loads((folder / "out/card.json").read_text())["counts"]


def rejected(folder) -> list[dict]:
    file = folder / "out/rejected.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def in_order(files: dict[str, list[dict]]) -> list[dict]:
    return sorted(files["train"] + files["val"], key=lambda row: row["extra_info"]["index"])


def test_a_file_of_another_encoding(tmp_path, capsys):
    lines = "".join(f"{row['query']};{row['reference']}\n" for row in ROWS)
    (tmp_path / "rows.csv").write_bytes(f"query;reference\n{lines}".encode("big5"))
    assert prepare(tmp_path, tmp_path / "rows.csv") == 2
    assert "--encoding (cp1252" in capsys.readouterr().err
    assert prepare(tmp_path, tmp_path / "rows.csv", "--encoding", "big5") == 0
    asked = [row["extra_info"]["query"] for row in in_order(made(tmp_path))]
    assert asked == [row["query"] for row in ROWS]


def test_both_formats_say_the_same(tmp_path):
    """In one file, a row in the one and a row in the other."""
    names = {"query": "instruction", "context": "input", "reference": "output"}
    mixed = [{names[k]: v for k, v in row.items()} if i % 2 else row for i, row in enumerate(ROWS)]
    found = []
    for rows in (ROWS, mixed):
        assert prepare(tmp_path, write(tmp_path / "rows.jsonl", rows), "--val-share", 0.3) == 0
        found.append(made(tmp_path))
    assert found[0] == found[1]
    row = in_order(found[0])[7]
    assert row["prompt"] == [
        {"role": "system", "content": "You are a careful investment analyst."},
        {"role": "user", "content": "分析台積電的投資價值 7\n台股投資分析"},
    ]
    assert row["reward_model"] == {"style": "rule", "ground_truth": "參考回答 7"}
    assert row["extra_info"]["query"] == ROWS[7]["query"]
    assert row["extra_info"]["context"] == ROWS[7]["context"]
    assert (row["data_source"], row["ability"]) == ("finance", "finance")
    lessons = {json.dumps(r["messages"]) for r in found[0]["sft_train"] + found[0]["sft_val"]}
    answer = {"role": "assistant", "content": "參考回答 7"}
    assert len(lessons) == 40 and json.dumps([*row["prompt"], answer]) in lessons


def test_a_query_of_any_length_is_kept_and_needs_nothing_else(tmp_path):
    rows = [{"query": "?"}, {"query": "買" * 5000, "context": None, "reference": " "}, *ROWS]
    source = write(tmp_path / "rows.jsonl", rows)
    assert prepare(tmp_path, source, "--val-share", 0.3, "--system", "") == 0
    files = made(tmp_path)
    first, second = in_order(files)[:2]
    assert first["prompt"] == [{"role": "user", "content": "?"}]
    assert second["prompt"][0]["content"] == "買" * 5000
    assert first["reward_model"]["ground_truth"] == ""
    assert len(files["sft_train"]) + len(files["sft_val"]) == 40


BROKEN = [  # a line, and the reason that it must be rejected with
    ("not JSON", "not JSON"),
    ("[1]", "not a JSON object"),
    ("{}", "neither query nor instruction, there is nothing"),
    ({"question": "x", "answer": "y"}, "neither query nor instruction, there is question, answer"),
    ({"query": None, "instruction": None}, "neither query nor instruction"),
    ({"query": ""}, "query: empty"),
    ({"query": " \n　"}, "query: empty"),
    ({"instruction": "", "input": "鴻海"}, "instruction: empty"),
    ({"query": 7}, "query: is of type int, not a text"),
    ({"query": "x", "context": ["y"]}, "context: is of type list, not a text"),
    ({"instruction": "x", "output": {}}, "output: is of type dict, not a text"),
    ('{"query": "\\ud800"}', "prompt[1].content: not valid UTF-8"),
    ('{"query": "x", "reference": "\\ud800"}', "reward_model.ground_truth: not valid UTF-8"),
]


def test_broken_rows_are_kept_aside_with_their_reason(tmp_path, capsys):
    source = write(tmp_path / "rows.jsonl", ROWS + [line for line, _ in BROKEN])
    assert prepare(tmp_path, source) == 2
    assert f"{len(BROKEN)} of {40 + len(BROKEN)} rows are bad" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert prepare(tmp_path, source, "--on-bad", "skip", "--val-share", 0.3) == 0
    assert len(in_order(made(tmp_path))) == 40 and counts(tmp_path)["rejected"] == len(BROKEN)
    for line, (raw, reason) in zip(rejected(tmp_path), BROKEN, strict=True):
        assert line["reason"].startswith(reason)
        data = line["data"].strip() if isinstance(line["data"], str) else line["data"]
        assert data == raw or data == json.loads(raw)


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
value = st.none() | text | st.integers() | st.lists(text, max_size=2)
names = st.sampled_from(["query", "context", "reference", "instruction", "input", "output", "x"])
line = st.dictionaries(names, value).map(json.dumps) | st.sampled_from(["{", "[]", "7", "\x00"])


@settings(max_examples=25, deadline=None)
@given(lines=st.lists(line, max_size=12))
def test_no_row_is_lost_without_being_counted(tmp_path_factory, lines):
    folder = tmp_path_factory.mktemp("rows")
    source = write(folder / "any.jsonl", ROWS + lines)
    assert prepare(folder, source, "--on-bad", "skip", "--val-share", 0.3) == 0
    kept, aside = in_order(made(folder)), rejected(folder)
    assert counts(folder)["read"] == 40 + len(lines) == len(kept) + len(aside)
    numbers = [row["extra_info"]["index"] for row in kept] + [row["row"] for row in aside]
    assert sorted(numbers) == list(range(40 + len(lines)))


def test_the_same_prompt_lands_on_one_side(tmp_path):
    rows = [{**ROWS[i % 20], "reference": str(i)} for i in range(100)]
    assert prepare(tmp_path, write(tmp_path / "rows.jsonl", rows), "--val-share", 0.4) == 0
    asked = {
        k: {r["extra_info"]["query"] for r in v}
        for k, v in made(tmp_path).items()
        if k in ("train", "val")
    }
    assert len(asked["train"]) + len(asked["val"]) == 20 and not asked["train"] & asked["val"]


def test_a_file_of_validation_rows_is_kept_out_of_training(tmp_path):
    source = write(tmp_path / "rows.jsonl", ROWS[:30])
    val = write(tmp_path / "val.jsonl", ROWS[25:])
    assert prepare(tmp_path, source, "--val", val) == 0
    files = made(tmp_path)
    assert [row["extra_info"]["query"] for row in files["val"]] == [r["query"] for r in ROWS[25:]]
    assert len(files["train"]) == 25 and counts(tmp_path)["in_val"] == 5


def test_the_demo_needs_no_file(tmp_path, capsys):
    assert prepare(tmp_path, "--demo", 100) == 0
    assert "train.parquet 90" in capsys.readouterr().out
    files = made(tmp_path)
    assert {name: len(rows) for name, rows in files.items()} == {
        "train": 90, "val": 10, "sft_train": 90, "sft_val": 10,
    }  # fmt: skip
    every = files["train"] + files["val"]
    assert len({row["prompt"][-1]["content"] for row in every}) == 100
    said = [row["reward_model"]["ground_truth"] for row in every]
    for letter in ("營", "营", "revenue"):  # the three languages
        assert sum(letter in answer.lower() for answer in said) > 15
    assert len(set(said)) > 90


def test_the_demo_is_the_same_for_the_same_seed(tmp_path):
    texts = []
    for seed in (0, 0, 1):
        assert prepare(tmp_path, "--demo", 30, "--seed", seed) == 0
        texts.append((tmp_path / "out/demo.jsonl").read_text())
    assert texts[0] == texts[1] != texts[2]
    formats = [tuple(json.loads(line)) for line in texts[0].splitlines()]
    assert set(formats) == {("query", "context", "reference"), ("instruction", "input", "output")}
    again = tmp_path / "again"
    assert prepare(again, tmp_path / "out/demo.jsonl", "--val-share", 0.3) == 0
    assert len(in_order(made(again))) == 30


def test_the_demos_answers_follow_from_the_figures(tmp_path):
    assert prepare(tmp_path, "--demo", 300) == 0
    files = made(tmp_path)
    for row in files["train"] + files["val"]:
        context, answer = row["extra_info"]["context"], row["reward_model"]["ground_truth"]
        ratio, mean = (
            int(re.search(pattern, context)[1])
            for pattern in (r"(?:本益比|市盈率|P/E )(\d+)", r"(?:平均|mean )(\d+)")
        )
        growth = re.search(r"(?:年增|增长|revenue \+)(\d+)%", context)[1]
        assert re.search(rf"(?:本益比|市盈率|ratio of |at |only ){ratio}(?:倍|\b)", answer), answer
        assert f"{growth}%" in answer
        cheap = re.search("低於|低于|below its|only", answer)
        assert bool(cheap) == (ratio < mean), (context, answer)


def test_the_demo_fits_into_the_tiny_model(tmp_path, tiny_model):
    """SFT refuses a row that is longer than its context; a Chinese character is three tokens."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    assert prepare(tmp_path, "--demo", 600, "--seed", 3) == 0
    files = made(tmp_path)
    for row in files["train"]:
        assert sum(len(message["content"].encode()) for message in row["prompt"]) < 256
        assert len(tokenizer.apply_chat_template(row["prompt"], tokenize=True)["input_ids"]) < 256
    for row in files["sft_train"]:
        tokens = tokenizer.apply_chat_template(row["messages"], tokenize=True)["input_ids"]
        assert len(tokens) <= 512


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "takes a FILE or --demo N"),
        (["rows.jsonl", "--demo", "9"], "takes a FILE or --demo N"),
        (["--demo", "1"], "from 2"),
        (["--demo", "9", "--val", "x.jsonl"], "its own validation rows"),
        (["nowhere.jsonl"], "no file nowhere.jsonl"),
        (["--demo", "9", "--encoding", "big5"], "--encoding is for a FILE"),
        (["--demo", "9", "--val-share", "0.99"], "no rows for train"),
    ],
)
def test_mistakes_are_told_in_a_line(tmp_path, capsys, options, message):
    assert prepare(tmp_path, *options) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
