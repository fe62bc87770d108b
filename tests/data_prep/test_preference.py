"""preference: pairs of every form of rows; each answer is in a pair or counted."""

import json
import math

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import _schema
from data_prep.__main__ import main
from preflight.checks.columns import check_kind_of_rows
from preflight.checks.files import check_data_files


def write(file, rows: list) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def prepare(source: str, out, *options: str) -> dict[str, list[dict]]:
    """The rows of both files; the command must succeed."""
    share = () if "--val-share" in options else ("--val-share", "0.3")
    assert main(["preference", source, "--out", str(out), "--force", *share, *options]) == 0
    files = {split: pq.read_table(out / f"pref_{split}.parquet") for split in ("train", "val")}
    rows = {split: table.to_pylist() for split, table in files.items()}
    assert not [p for row in rows["train"] + rows["val"] for p in _schema.check("preference", row)]
    return rows


def card(out) -> dict:
    return json.loads((out / "card.json").read_text())


def texts(rows: dict[str, list[dict]]) -> set[tuple[str, str, str]]:
    """(question, better, worse) of all pairs."""
    return {
        (row["prompt"][-1]["content"], row["chosen"][0]["content"], row["rejected"][0]["content"])
        for row in rows["train"] + rows["val"]
    }


def answers(questions: int = 20) -> list[dict]:
    """Three answers to each question, of which the first is the worst."""
    return [
        {"prompt": f"q {i}", "response": f"{what} {i}", "score": score}
        for score, what in enumerate(("bad", "fair", "good"))
        for i in range(questions)
    ]


BEST = {(f"q {i}", f"good {i}", f"bad {i}") for i in range(20)}


def as_messages(row: dict) -> dict:
    return row | {"prompt": [{"role": "user", "content": row["prompt"]}]}


def as_result(row: dict) -> dict:
    """As `python -m rewards --out` writes it."""
    rest = {k: v for k, v in row.items() if k not in ("score", "response")}
    return rest | {"solution_str": row["response"], "result": {"score": row["score"]}}


def as_lists(rows: list[dict]) -> list[dict]:
    """A row a prompt, with all of its answers."""
    groups: dict[str, dict] = {}
    for row in rows:
        group = groups.setdefault(row["prompt"], {"prompt": row["prompt"], "responses": []})
        group["responses"].append(row["response"])
        group.setdefault("scores", []).append(row["score"])
    return list(groups.values())


def as_lists_of_mappings(rows: list[dict]) -> list[dict]:
    return [
        {
            "prompt": row["prompt"],
            "responses": [
                {"response": text, "score": score}
                for text, score in zip(row["responses"], row["scores"], strict=True)
            ],
        }
        for row in as_lists(rows)
    ]


FORMS = {
    "texts": list,
    "messages": lambda rows: [as_messages(row) for row in rows],
    "results": lambda rows: [as_result(row) for row in rows],
    "lists": as_lists,
    "lists of mappings": as_lists_of_mappings,
    "scores as text": lambda rows: [row | {"score": str(row["score"])} for row in rows],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_rows_gives_the_same_pairs(tmp_path, form):
    source = write(tmp_path / "a.jsonl", FORMS[form](answers()))
    rows = prepare(source, tmp_path / "out")
    assert texts(rows) == BEST
    counts = card(tmp_path / "out")["counts"]
    assert (counts["read"], counts["train"] + counts["val"], counts["unpaired"]) == (60, 40, 20)
    assert counts["val"] == 2 * len(rows["val"]) > 0


def test_a_reward_scores_the_answers(tmp_path, db):
    references = {f"items over {i}": f"SELECT name FROM item WHERE price > {i}" for i in range(12)}
    rows = [
        {"prompt": q, "response": f"```sql\n{sql}\n```", "ground_truth": reference, "db": db}
        for q, reference in references.items()
        for sql in (reference, "SELECT name FROM item WHERE price < 0.1 OR price = 1", "nonsense")
    ]
    # neither of these is a bad answer: the one can't be graded, the other says nothing
    rows.append(rows[0] | {"ground_truth": "SELECT nope FROM item"})
    rows.append(rows[0] | {"response": " \n"})
    source = write(tmp_path / "a.jsonl", rows)
    found = texts(prepare(source, tmp_path / "out", "--reward", "sql"))
    assert found == {
        (q, f"```sql\n{reference}\n```", "```sql\nnonsense\n```")
        for q, reference in references.items()
    }
    counts = card(tmp_path / "out")["counts"]
    assert (counts["not_graded"], counts["empty"], counts["unpaired"]) == (1, 1, 12)
    # binary: the query of another result is as bad as nonsense, and comes first
    found = texts(prepare(source, tmp_path / "out", "--reward", "sql", "--set", "shaping=binary",
                          "--pairs", "2"))  # fmt: skip
    assert len(found) == 12 and {worse for _, _, worse in found} == {"```sql\nnonsense\n```"}


def test_only_answers_to_the_same_row_are_compared(tmp_path):
    """One question on two databases, or with two reference answers, is two questions; but on one side."""
    rows = answers() + [
        {"prompt": "q 0", "response": f"{db} {score}", "score": score, "db": db}
        for db in ("one", "two")
        for score in (0, 5)
    ]
    rows = prepare(write(tmp_path / "a.jsonl", rows), tmp_path / "out")
    assert texts(rows) - BEST == {("q 0", "one 5", "one 0"), ("q 0", "two 5", "two 0")}
    sides = [s for s in rows for row in rows[s] if row["prompt"][0]["content"] == "q 0"]
    assert len(sides) == 3 and len(set(sides)) == 1


def test_what_is_for_validation_stays_there(tmp_path):
    """Whichever row says so, the first or the last of a prompt."""
    rows = answers(40)
    for i, row in enumerate(rows):
        if i in (0, 40 + 1, 80 + 2):
            row["extra_info"] = {"split": "val"}
    source = write(tmp_path / "a.jsonl", rows)
    found = prepare(source, tmp_path / "out", "--val-share", "1e-9")
    assert {row["prompt"][0]["content"] for row in found["val"]} == {"q 0", "q 1", "q 2"}


def test_duplicates_count_once_with_their_mean(tmp_path):
    rows = [{"prompt": f"q {i}", "response": text, "score": score} for i in range(20)
            for text, score in (("a", 0), ("b", 0.4), ("a", 1), ("a", 0.8))]  # fmt: skip
    found = prepare(write(tmp_path / "a.jsonl", rows), tmp_path / "out")
    assert {better for _, better, _ in texts(found)} == {"a"}
    assert card(tmp_path / "out")["counts"]["duplicate"] == 40


def test_a_margin_leaves_out_what_is_about_equal(tmp_path, capsys):
    source = write(tmp_path / "a.jsonl", answers())
    command = ["preference", source, "--out", str(tmp_path / "out"), "--margin"]
    assert main([*command, "2"]) == 2
    said = "no pairs: no two answers to any of 20 prompts differ in their score by more than --margin 2"
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert texts(prepare(source, tmp_path / "out", "--margin", "1.9", "--pairs", "3")) == BEST


score = st.sampled_from([0, 1, 0.5, "1", None, math.nan, math.inf, "many", [1], 10**400])
anything = (
    st.none() | st.integers() | st.text(max_size=3) | st.just([]) | st.just([{"role": "user"}])
)
asked = st.sampled_from(["q 0", "q 1", "new", ""]) | anything
said = st.sampled_from(["a", "b", "c", " ", "\ud800"]) | anything
single = st.fixed_dictionaries(
    {}, optional={"prompt": asked, "response": said, "score": score, "masked": st.booleans()}
)
several = st.fixed_dictionaries(
    {"prompt": asked, "responses": st.lists(said, max_size=3) | anything},
    optional={"scores": st.lists(score, max_size=3)},
)
lines = (single | several | st.just([])).map(json.dumps) | st.just("{")


@settings(max_examples=20, deadline=None)
@given(st.lists(lines, max_size=20))
def test_no_answer_is_lost_without_being_counted(tmp_path_factory, some):
    folder = tmp_path_factory.mktemp("preference")
    source = folder / "a.jsonl"
    source.write_text("\n".join([*map(json.dumps, answers()), *some]))
    rows = prepare(str(source), folder / "out", "--on-bad", "skip", "--pairs", "2")
    counts = card(folder / "out")["counts"]
    read = counts.pop("read")
    assert read == sum(counts.values())
    assert 60 + sum('"responses"' not in line for line in some) <= read <= 60 + 3 * len(some)
    assert counts["train"] + counts["val"] == 2 * len(rows["train"] + rows["val"])
    rejected = folder / "out/rejected.jsonl"
    assert counts["rejected"] == (len(rejected.open().readlines()) if rejected.exists() else 0)
    questions = [{row["prompt"][-1]["content"] for row in rows[s]} for s in ("train", "val")]
    assert not questions[0] & questions[1]


MISTAKES = [
    (["--reward", "sqll"], "unknown reward 'sqll'. Did you mean sql?"),
    (["--reward", "sql", "--set", "shapping=binary"], "Did you mean shaping?"),
    (["--set", "shaping=binary"], "--set is for the reward"),
    (["--reward", "sql"], "no ground truth"),
    (["--pairs", "0"], "0 is not a number from 1"),
    (["--margin", "-1"], "-1 is not a number from 0"),
    (["--margin", "nan"], "nan is not a number from 0"),
]


@pytest.mark.parametrize(("options", "said"), MISTAKES)
def test_a_mistake_is_told(tmp_path, options, said, capfd):
    source = write(tmp_path / "a.jsonl", answers(1))
    assert main(["preference", source, "--out", str(tmp_path / "out"), *options]) == 2
    error = capfd.readouterr().err
    assert said in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_a_folder_is_the_files_in_it(tmp_path, capsys):
    rows = answers()
    write(tmp_path / "1.jsonl", rows[:30])
    write(tmp_path / "2.jsonl", rows[30:])
    assert texts(prepare(str(tmp_path), tmp_path / "out")) == BEST
    assert main(["preference", str(tmp_path / "nowhere"), "--out", str(tmp_path / "o")]) == 2
    assert "no file" in capsys.readouterr().err


def test_algo_dpo_takes_the_files(tmp_path, composer):
    out = tmp_path / "out"
    prepare(write(tmp_path / "a.jsonl", answers(100)), out)
    files = [f"lab.dataset.pref_{split}={out}/pref_{split}.parquet" for split in ("train", "val")]
    config = composer("algo=dpo", *files, f"lab.run_dir={tmp_path}")
    assert config.data.train_files == f"{out}/pref_train.parquet"
    assert check_data_files(config) is None and check_kind_of_rows(config) is None
