"""gsm8k: both layouts, the ground truth, what is asked for; made-up rows, broken ones included."""

import importlib.util
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import _schema
from data_prep.__main__ import main
from data_prep.gsm8k import reference
from rewards import math as reward_math


def problem(i: int) -> dict:
    """A row as the authors' files have it."""
    half = f"Half of them are {1000 + 2 * i}/2=<<{1000 + 2 * i}/2={500 + i}>>{500 + i} birds.\n"
    whole = f"Twice that is 2*{500 + i} = $<<2*{500 + i}={1000 + 2 * i}>>{1000 + 2 * i}.\n"
    question = (
        f"On roof {i} sit {1000 + 2 * i} birds. Half leave and come back. How many sit there?"
    )
    return {"question": question, "answer": f"{half}{whole}#### {1000 + 2 * i:,}"}


def write(file: Path, rows: list) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def prepare(source: Path, out: Path, *options: str) -> dict[str, list[dict]]:
    """The rows of the four files; the command must succeed."""
    assert main(["gsm8k", str(source), "--out", str(out), "--force", *options]) == 0
    return {f.stem: pq.read_table(f).to_pylist() for f in sorted(out.glob("*.parquet"))}


def counts(out: Path) -> dict:
    return json.loads((out / "card.json").read_text())["counts"]


def verl_score(answer: str, truth: str) -> float:
    """verl's own scorer, without the rest of verl."""
    root = Path(importlib.util.find_spec("verl").origin).parent
    file = root / "utils/reward_score/gsm8k.py"
    spec = importlib.util.spec_from_file_location("verl_gsm8k", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.compute_score(answer, truth)


TRAIN, TEST = [problem(i) for i in range(20)], [problem(i) for i in range(18, 26)]
LAYOUTS = {
    "the authors' folder": ("train.jsonl", "test.jsonl"),
    "their repository": ("grade_school_math/data/train.jsonl", "grade_school_math/data/test.jsonl"),
    "the hub's": ("main/train-00000-of-00001.parquet", "main/test-00000-of-00001.parquet"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_both_splits_of_every_layout(tmp_path, layout):
    for name, rows in zip(LAYOUTS[layout], (TRAIN, TEST), strict=True):
        write(tmp_path / "in" / name, rows)
    # the same questions in another form, which must not count twice
    write(tmp_path / "in/socratic/train-00000-of-00001.parquet", TRAIN)
    write(tmp_path / "in/grade_school_math/data/train_socratic.jsonl", TRAIN)
    files = prepare(tmp_path / "in", tmp_path / "out")
    assert counts(tmp_path / "out") == {
        "read": 28, "train": 18, "val": 8, "rejected": 0, "in_val": 2
    }  # fmt: skip
    assert {name: len(rows) for name, rows in files.items()} == {
        "train": 18, "sft_train": 18, "val": 8, "sft_val": 8
    }  # fmt: skip
    for split in ("train", "val"):
        for row in files[split]:
            assert _schema.check("rl", row) == [] and row["extra_info"]["split"] == split
            assert row["data_source"] == "openai/gsm8k"


def test_official_answers_and_references_score_one(tmp_path):
    """By our reward and by verl's; the prompt asks for what they read, the annotations are gone."""
    files = prepare(write(tmp_path / "all.jsonl", TRAIN), tmp_path / "out", "--val-share", "0.3")
    references = {
        r["prompt"][0]["content"]: r["reward_model"]["ground_truth"] for r in files["train"]
    }
    assert references.keys() and set(references.values()) <= {str(1000 + 2 * i) for i in range(20)}
    for row in files["sft_train"]:
        prompt, answer = row["messages"][0]["content"], row["messages"][-1]["content"]
        assert "####" in prompt and "<<" not in answer and "birds." in answer
        assert verl_score(answer, references[prompt]) == 1
        result = reward_math.compute_score("openai/gsm8k", answer, references[prompt])
        assert result["score"] == 1, result


def test_a_single_file_is_split_by_question(tmp_path):
    files = prepare(write(tmp_path / "x.jsonl", TRAIN * 2), tmp_path / "o", "--val-share", "0.3")
    asked = {split: {r["prompt"][0]["content"] for r in files[split]} for split in ("train", "val")}
    assert len(asked["train"]) + len(asked["val"]) == 20 and not asked["train"] & asked["val"]


REFERENCES = {
    "#### 72": "72", "x\n####72 ": "72", "#### -1,234.50\n": "-1234.50", "#### .5": ".5",
    "#### 1 #### 2": "2", "no mark": None, "72": None, "####": None, "#### many": None, "": None,
    "#### 72 apples": None, "#### 1/2": None, "#### nan": None, "#### 1e5": None, "#### .": None,
}  # fmt: skip


@pytest.mark.parametrize("answer", REFERENCES)
def test_the_reference_is_the_number_after_the_last_mark(answer):
    assert reference(answer) == REFERENCES[answer]


anything = st.none() | st.integers() | st.text(max_size=8) | st.lists(st.integers(), max_size=2)
good = st.integers(0, 10_000).map(problem)
broken = st.fixed_dictionaries({}, optional={"question": anything, "answer": anything})
lines = st.one_of(good, broken).map(json.dumps) | st.sampled_from(
    ["{", "[]", "7", '{"question": 1']
)


@settings(max_examples=20, deadline=None)
@given(st.lists(lines, max_size=30))
def test_no_row_is_lost_without_being_counted(tmp_path_factory, some):
    folder = tmp_path_factory.mktemp("gsm8k")
    sure = [json.dumps(problem(-1 - i)) for i in range(12)]  # some for either split
    source = folder / "rows.jsonl"
    source.write_text("\n".join(sure + some))
    files = prepare(source, folder / "out", "--on-bad", "skip", "--val-share", "0.3")
    found = counts(folder / "out")
    assert found["read"] == 12 + len(some) == found["train"] + found["val"] + found["rejected"]
    assert (found["train"], found["val"]) == (len(files["train"]), len(files["val"]))
    rejected = folder / "out/rejected.jsonl"
    kept = rejected.read_text().splitlines() if rejected.exists() else []
    assert len(kept) == found["rejected"] and all(json.loads(line)["reason"] for line in kept)


MISTAKES = [
    ("empty", "does not hold train.jsonl and test.jsonl"),
    ("only train", "does not hold train.jsonl and test.jsonl"),
    ("nowhere", "does not hold"),
    ("no references", "rows are bad"),
]


@pytest.mark.parametrize(("case", "said"), MISTAKES)
def test_a_mistake_is_told(tmp_path, capsys, case, said):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "only train/train.jsonl", TRAIN)
    write(tmp_path / "no references/train.jsonl", [{"question": "q", "answer": "7"}])
    write(tmp_path / "no references/test.jsonl", TEST)
    assert main(["gsm8k", str(tmp_path / case), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()
