"""hf: local folders in the formats of the hub, streamed; a name without a network is one line."""

import csv
import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import ROOT

from data_prep import _hub, _schema
from data_prep.__main__ import main
from preflight.mistakes import Mistake

ROWS = [{"q": f"Wie groß ist {i}?", "a": f"{i} Å", "n": i} for i in range(40)]


def write(file, rows: list[dict]) -> None:
    file.parent.mkdir(exist_ok=True)
    if file.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif file.suffix == ".csv":
        with file.open("w", newline="") as f:
            writer = csv.DictWriter(f, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def prepare(folder, *options: str) -> int:
    command = ["hf", str(folder), "--prompt", "q", "--answer", "a", "--out", f"{folder}.out"]
    return main([*command, "--force", *options])


def made(folder) -> dict[str, list[dict]]:
    out = folder.with_name(f"{folder.name}.out")
    return {f.stem: pq.read_table(f).to_pylist() for f in out.glob("*.parquet")}


def counts(folder) -> dict:
    return json.loads((folder.with_name(f"{folder.name}.out") / "card.json").read_text())["counts"]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_a_folder_with_both_splits(tmp_path, ending):
    folder = tmp_path / "birds"
    write(folder / f"train.{ending}", ROWS)
    write(folder / f"validation.{ending}", ROWS[30:35])
    assert prepare(folder, "--split-val", "validation", "--extra", "n") == 0
    assert counts(folder) == {"read": 45, "train": 35, "val": 5, "rejected": 0, "in_val": 5}
    files = made(folder)
    for split, rows in {"train": ROWS[:30] + ROWS[35:], "val": ROWS[30:35]}.items():
        for row, lesson, source in zip(files[split], files[f"sft_{split}"], rows, strict=True):
            assert _schema.check("rl", row) == [] and row["data_source"] == "birds"
            assert row["prompt"] == [{"role": "user", "content": source["q"]}]
            assert row["reward_model"]["ground_truth"] == source["a"]
            assert row["extra_info"]["n"] == str(source["n"])
            assert row["extra_info"]["split"] == split
            assert lesson["messages"][-1] == {"role": "assistant", "content": source["a"]}


def test_without_a_validation_split_a_share_is_taken_by_prompt(tmp_path):
    folder = tmp_path / "birds"
    write(folder / "train.jsonl", ROWS * 2)
    assert prepare(folder, "--val-share", "0.3", "--data-source", "mine") == 0
    files = made(folder)
    asked = [{row["prompt"][0]["content"] for row in files[split]} for split in ("train", "val")]
    assert len(asked[0]) + len(asked[1]) == 40 and not asked[0] & asked[1]
    assert {row["data_source"] for row in files["train"]} == {"mine"}


def test_databases_are_urls_or_files_beside_the_data(tmp_path):
    folder = tmp_path / "sql"
    names = ["one.sqlite", "postgresql://host/db", "none.sqlite"]
    write(folder / "train.jsonl", [{**row, "f": names[row["n"] % 3]} for row in ROWS])
    (folder / "one.sqlite").touch()
    assert prepare(folder, "--db", "f", "--on-bad", "skip", "--val-share", "0.3") == 0
    assert counts(folder)["rejected"] == 13
    files = made(folder)
    found = {row["extra_info"]["db"] for row in files["train"] + files["val"]}
    assert found == {str(folder / "one.sqlite"), "postgresql://host/db"}


def test_rows_come_before_the_last_file_is_read(tmp_path):
    folder = tmp_path / "shards"
    write(folder / "train-0.jsonl", ROWS)
    (folder / "train-1.jsonl").write_text("{ broken\n")
    rows = _hub.stream(str(folder), None, "train")
    assert next(rows) == ROWS[0]
    with pytest.raises(Mistake, match="can't read split 'train'"):
        list(rows)


MISTAKES = [
    (["--split-val", "dev"], "can't read split 'dev'"),
    (["--split-train", "training"], "Available splits: ['train']"),
    (["--config", "hard"], "can't read split 'train'"),
    (["--extra", "index"], "--extra index"),
]


@pytest.mark.parametrize(("options", "said"), MISTAKES)
def test_a_mistake_is_told_in_a_line(tmp_path, capsys, options, said):
    folder = tmp_path / "birds"
    write(folder / "train.jsonl", ROWS)
    assert prepare(folder, *options) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "birds.out").exists()


def test_a_file_is_for_jsonl(tmp_path, capsys):
    write(tmp_path / "train.jsonl", ROWS)
    assert prepare(tmp_path / "train.jsonl") == 2
    assert "python -m data_prep jsonl" in capsys.readouterr().err


@pytest.mark.parametrize("source", [["hf", "some/dataset", "--prompt", "q"], ["gsm8k"]])
def test_no_network_is_one_line(tmp_path, source):
    """Nobody listens at that address; a process of its own, as the hub's client reads it once."""
    env = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-m", "data_prep", *source, "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 2
    assert "the hub can't be asked for it" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
