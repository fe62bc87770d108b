"""Each step of a run is read once, whatever its starts have written."""

import json
from pathlib import Path

from launcher.metrics import read_metrics


def write(file: Path, *records: tuple[int, dict], end: str = "\n") -> Path:
    lines = [json.dumps({"step": step, "data": data}) for step, data in records]
    file.write_text("\n".join(lines) + end)
    return file


def test_a_step_that_was_made_again_counts_as_made_last(tmp_path):
    steps = [
        (n, {"x": 10 * i + n}) for i, start in enumerate((range(4), range(2, 4))) for n in start
    ]
    found = read_metrics(write(tmp_path / "m.jsonl", *steps))
    assert list(found) == [0, 1, 2, 3]
    assert [m["x"] for m in found.values()] == [0, 1, 12, 13]


def test_training_and_validation_of_a_step_are_one(tmp_path):
    file = write(tmp_path / "m.jsonl", (1, {"x": 1}), (2, {"x": 2}), (2, {"val": 5}))
    assert read_metrics(file) == {1: {"x": 1}, 2: {"x": 2, "val": 5}}


def test_a_start_that_validates_where_it_goes_on_keeps_that_step_and_ends_what_came_after(tmp_path):
    file = write(
        tmp_path / "m.jsonl", (1, {"x": 1}), (2, {"x": 2}), (3, {"x": 3, "y": 3}), (2, {"val": 5})
    )
    assert read_metrics(file) == {1: {"x": 1}, 2: {"x": 2, "val": 5}}
    with open(file, "a") as more:
        more.write('{"step": 3, "data": {"x": 33}}\n')
    assert read_metrics(file)[3] == {"x": 33}


def test_lines_that_are_none(tmp_path):
    file = write(tmp_path / "m.jsonl", (1, {"x": 1}), end='\n{"step": 2, "da\n[1]\n\xff\n')
    assert read_metrics(file) == {1: {"x": 1}}
    assert read_metrics(tmp_path / "none.jsonl") == {}
