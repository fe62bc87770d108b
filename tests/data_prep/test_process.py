"""process: steps as reward=prm splits them, labels from what a reward says of them; nothing is lost."""

import json

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import _schema
from data_prep.__main__ import main
from data_prep.process import labels
from preflight.checks.columns import check_kind_of_rows
from preflight.checks.files import check_data_files
from rewards._steps import join_steps, split_steps


def write(file, rows: list) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def prepare(source: str, out, *options: str) -> list[dict]:
    """The rows of both files; the command must succeed."""
    command = ["process", source, "--out", str(out), "--force", "--val-share", "0.3"]
    assert main([*command, *options]) == 0
    rows = [
        r for s in ("train", "val") for r in pq.read_table(out / f"prm_{s}.parquet").to_pylist()
    ]
    assert not [problem for row in rows for problem in _schema.check("process", row)]
    return rows


def card(out) -> dict:
    return json.loads((out / "card.json").read_text())


text = st.text(
    st.sampled_from("ab \n\t\r\x0b\x85\u2028") | st.characters(codec="utf-8"), max_size=30
)


@settings(max_examples=300, deadline=None)
@given(text)
def test_steps_are_what_the_model_will_see_in_a_run(answer):
    steps = [answer[start:end] for start, end in split_steps(answer)]
    joined, ends = join_steps(steps)  # as its trainer and its reward do
    assert joined == "\n\n".join(steps)
    assert split_steps(joined) == [(end - len(s), end) for s, end in zip(steps, ends, strict=True)]


STEPS = [(0, 10), (12, 20), (22, 30), (32, 40)]
LABELS = [  # parts (start, end, right), the answer's label, the steps' labels
    ([], True, [1, 1, 1, 1]),
    ([], False, [0, 0, 0, 0]),
    ([(0, 10, True), (12, 20, False)], True, [1, 0, 1, 1]),
    ([(22, 30, True)], False, [1, 1, 1, 0]),  # what leads to a part has its label
    ([(13, 14, True), (15, 16, False)], True, [0, 0, 1, 1]),  # all parts of a step must be right
    ([(5, 25, True), (24, 28, False)], True, [1, 1, 0, 1]),  # a part that reaches over steps
    ([(0, 12, True), (12, 22, False), (22, 32, True), (32, 40, False)], True, [1, 0, 1, 0]),
]


@pytest.mark.parametrize(("parts", "outcome", "expected"), LABELS)
def test_labels(parts, outcome, expected):
    assert labels(STEPS, parts, outcome) == expected


def chains(db) -> list[dict]:
    """Right and wrong chains of CTEs, a query without one, and what is no answer."""
    good = "```sql\nWITH a AS (SELECT * FROM item),\n\nb AS (SELECT name, price FROM a)\n\n"
    bad = "```sql\nWITH a AS (SELECT nope FROM item),\n\nb AS (SELECT * FROM a)\n\n"
    texts = [
        f"I look at all.\n\n{good}SELECT name FROM b WHERE price > LIMIT_\n```",
        f"{good}SELECT name FROM b\n```",
        f"{bad}SELECT name FROM b WHERE price > LIMIT_\n```",
        "```sql\nSELECT name FROM item WHERE price > LIMIT_\n```",
        "I don't know.",
        " \n\n ",
    ]
    return [
        {
            "prompt": f"names of items over {i / 10}",
            "response": text.replace("LIMIT_", str(i / 10)),
            "ground_truth": f"SELECT name FROM item WHERE price > {i / 10}",
            "db": db,
        }
        for i in range(5, 15)
        for text in texts
    ]


def test_the_steps_of_sql_chains(tmp_path, db):
    source = write(tmp_path / "a.jsonl", chains(db))
    rows = prepare(source, tmp_path / "out", "--reward", "sql_process")
    right, wrong_end, wrong = (
        [1, 1, 1, 1],
        [1, 1, 0],
        [0, 0, 0],
    )  # all names; a column that isn't there
    assert sorted(row["labels"] for row in rows) == [wrong] * 10 + [wrong_end] * 10 + [right] * 10
    assert all(row["steps"][0] == "I look at all." for row in rows if row["labels"] == right)
    assert all("nope" in row["steps"][0] for row in rows if row["labels"] == wrong)
    found = card(tmp_path / "out")
    counts = found["counts"]
    assert (counts["read"], counts["no_steps"], counts["empty"]) == (60, 20, 10)
    assert found["steps_right"] + found["steps_wrong"] == sum(len(row["steps"]) for row in rows)


def test_outcomes_label_every_step(tmp_path, db):
    source = write(tmp_path / "a.jsonl", chains(db))
    rows = prepare(source, tmp_path / "out", "--reward", "sql", "--outcome")
    assert len(rows) == 50
    for row in rows:
        right = row["steps"][-1].startswith(("SELECT name FROM b WHERE", "```sql\nSELECT"))
        right = right and "nope" not in row["steps"][0]
        assert row["labels"] == [float(right)] * len(row["steps"])


def test_a_threshold_and_own_scores(tmp_path):
    """Rows that a reward has scored before, with `acc` or without."""
    rows = [
        {"prompt": f"q {i}", "response": "one\n\ntwo\n\nthree", "score": 0.4, "steps": [[0, 5, 0.3],
         [5, 10, 0.7]]} | ({"acc": 1} if i % 2 else {}) for i in range(20)
    ]  # fmt: skip
    source = write(tmp_path / "a.jsonl", rows)
    rows = prepare(source, tmp_path / "out", "--threshold", "0.5")
    assert sorted(row["labels"] for row in rows) == [[0, 1, 0]] * 10 + [[0, 1, 1]] * 10
    assert {tuple(row["labels"]) for row in prepare(source, tmp_path / "out")} == {(1, 1, 1)}


place = st.integers(-3, 40) | st.floats(0, 9)
steps = st.lists(st.tuples(place, place, place), max_size=3) | st.none() | st.just([[1, 2]])
score = st.sampled_from([0, 1, "1", None, "many"])
line = st.fixed_dictionaries(
    {},
    optional={
        "prompt": st.sampled_from(["q 0", "new", "", 7]),
        "response": st.sampled_from(["a\n\nb", " ", "\ud800", 7]) | text,
        "score": score, "acc": score, "masked": st.sampled_from([0, 1]), "steps": steps,
    },
)  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(st.lists(line, max_size=20))
def test_no_answer_is_lost_without_being_counted(tmp_path_factory, some):
    folder = tmp_path_factory.mktemp("process")
    sure = [{"prompt": f"q {i}", "response": "a\n\nb", "score": 1, "steps": [[0, 1, 0]]}
            for i in range(12)]  # fmt: skip
    source = write(folder / "a.jsonl", sure + some)
    rows = prepare(source, folder / "out", "--on-bad", "skip")
    counts = card(folder / "out")["counts"]
    read = counts.pop("read")
    assert read == 12 + len(some) == sum(counts.values())
    assert counts["train"] + counts["val"] == len(rows)
    rejected = folder / "out/rejected.jsonl"
    assert counts["rejected"] == (len(rejected.open().readlines()) if rejected.exists() else 0)


MISTAKES = [
    (["--reward", "sql"], "--reward sql gives no steps; --outcome does not need them"),
    ([], "score: missing; use --reward NAME to score the answers; steps: not a list of"),
    (["--outcome"], "score: missing"),
    (["--threshold", "half"], "--threshold"),
]


@pytest.mark.parametrize(("options", "said"), MISTAKES)
def test_a_mistake_is_told(tmp_path, db, options, said, capfd):
    source = write(tmp_path / "a.jsonl", chains(db)[:4])
    assert main(["process", source, "--out", str(tmp_path / "out"), *options]) == 2
    error = capfd.readouterr().err
    assert said in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_algo_prm_takes_the_files(tmp_path, composer, db):
    out = tmp_path / "out"
    prepare(write(tmp_path / "a.jsonl", chains(db)), out, "--reward", "sql_process")
    files = [f"lab.dataset.prm_{split}={out}/prm_{split}.parquet" for split in ("train", "val")]
    config = composer("algo=prm", *files, f"lab.run_dir={tmp_path}")
    assert config.data.val_files == f"{out}/prm_val.parquet"
    assert check_data_files(config) is None and check_kind_of_rows(config) is None
