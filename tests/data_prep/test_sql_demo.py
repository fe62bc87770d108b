"""sql_demo: every reference answers on a sound database, validation is held out, a seed fixes it all."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter

import pyarrow.parquet as pq
import pytest
from helpers import ROOT

from data_prep import _schema
from data_prep.__main__ import main
from data_prep._sql_demo.content import fill
from data_prep._sql_demo.databases import Database, Table, group, label
from data_prep._sql_demo.questions import Exhausted, draw

FILES = {"train": "rl", "val": "rl", "sft_train": "sft", "sft_val": "sft"}
SMALL = ["--train-rows", "150", "--sft-rows", "150", "--val-rows", "40"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The dataset as `python -m data_prep sql_demo` makes it."""
    out = tmp_path_factory.mktemp("demo") / "sql_demo"
    assert main(["sql_demo", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def rows(demo):
    return {name: pq.read_table(demo / f"{name}.parquet").to_pylist() for name in FILES}


@pytest.fixture(scope="module")
def asked(demo, rows):
    """{file: [(database, question, reference answer)]}, read from the messages as the model sees them."""

    def of(messages: list, reference: str) -> tuple[str, str, str]:
        schema, question = messages[-1]["content"].split("\n")
        return schema.split(":")[0], question, reference

    found = {}
    for name, some in rows.items():
        if FILES[name] == "rl":
            found[name] = [of(r["prompt"], r["reward_model"]["ground_truth"]) for r in some]
        else:
            found[name] = [
                of(r["messages"][:-1], unfenced(r["messages"][-1]["content"])) for r in some
            ]
    return found


def unfenced(answer: str) -> str:
    first, *sql, last = answer.split("\n")
    assert (first, last) == ("```sql", "```")
    return "\n".join(sql)


def read_only(demo, name: str) -> sqlite3.Connection:
    conn = sqlite3.connect(f"file:{demo}/databases/{name}.sqlite?mode=ro", uri=True)
    conn.execute("PRAGMA query_only = 1")
    return conn


def normal(text: str) -> str:
    return " ".join(text.lower().split())


def test_rows_are_as_many_as_asked_for_and_follow_the_schema(demo, rows):
    card = json.loads((demo / "card.json").read_text())
    assert {name: len(some) for name, some in rows.items()} == {
        "train": 4000,
        "val": 256,
        "sft_train": 4000,
        "sft_val": 256,
    }
    judged = {f"{kind}_{name}": rows[name] for kind in ("pref", "prm") for name in ("train", "val")}
    assert card["rows"] == {f"{k}.parquet": len(some) for k, some in (rows | judged).items()}
    for name, kind in FILES.items():
        assert [p for row in rows[name] for p in _schema.check(kind, row)] == []
    for name in ("train", "val"):
        infos = [row["extra_info"] for row in rows[name]]
        assert [info["index"] for info in infos] == list(range(len(infos)))
        assert {info["split"] for info in infos} == {name}


def test_every_reference_runs_read_only_and_returns_a_result(demo, asked):
    before = {f: f.read_bytes() for f in sorted((demo / "databases").iterdir())}
    opened = {f.stem: read_only(demo, f.stem) for f in before}
    for db, reference in {(db, reference) for some in asked.values() for db, _, reference in some}:
        result = opened[db].execute(reference).fetchall()
        assert result and result != [(None,)], reference
    assert before == {f: f.read_bytes() for f in sorted((demo / "databases").iterdir())}


def test_rows_name_their_own_database(demo, rows, asked):
    for name in ("train", "val"):
        for row, (db, question, _) in zip(rows[name], asked[name], strict=True):
            info = row["extra_info"]
            assert info["db"] == str(demo / "databases" / f"{db}.sqlite")
            assert (info["db_id"], info["question"]) == (db, question)


def test_there_are_several_databases_and_all_levels(rows):
    for name in ("train", "val"):
        databases = Counter(row["extra_info"]["db_id"] for row in rows[name])
        assert len(databases) >= 4 and min(databases.values()) > 5, databases
        assert {row["extra_info"]["level"] for row in rows[name]} == {1, 2, 3, 4, 5}


def test_the_prompt_has_the_whole_schema(demo, rows):
    texts = {r["extra_info"]["db_id"]: r["prompt"][-1]["content"] for r in rows["train"]}
    assert len(texts) == len(list((demo / "databases").iterdir()))
    for name, text in texts.items():
        conn = read_only(demo, name)
        tables = [t for (t,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        assert tables
        for table in tables:
            columns = [c for (c,) in conn.execute("SELECT name FROM pragma_table_info(?)", [table])]
            assert f"{table}({', '.join(columns)})" in text


def test_validation_is_held_out(asked):
    assert len(asked["val"]) >= 200
    questions = {normal(question) for _, question, _ in asked["val"]}
    references = {(db, normal(reference)) for db, _, reference in asked["val"]}
    for name in ("train", "sft_train"):
        assert not questions & {normal(question) for _, question, _ in asked[name]}
        assert not references & {(db, normal(reference)) for db, _, reference in asked[name]}


def test_no_question_is_asked_twice(asked):
    every = [question for name in ("train", "val", "sft_train") for _, question, _ in asked[name]]
    assert len(every) == len(set(every))


def test_sft_rows_match_the_rl_rows(rows, asked):
    assert asked["sft_val"] == asked["val"]
    prompts = [row["prompt"] for row in rows["val"]]
    assert [row["messages"][:-1] for row in rows["sft_val"]] == prompts
    head = {p["content"].split("\n")[0] for row in rows["train"] for p in row["prompt"]}
    assert {row["messages"][0]["content"].split("\n")[0] for row in rows["sft_train"]} <= head


def test_sloppy_answers_are_of_the_warm_start_alone(rows, asked, tmp_path):
    """0.6 of the SFT training answers select everything; --sloppy 0 has the reference answers in their place."""
    assert main(["sql_demo", "--out", str(tmp_path / "out"), *SMALL, "--sloppy", "0"]) == 0
    assert main(["sql_demo", "--out", str(tmp_path / "sloppy"), *SMALL, "--sloppy", "1"]) == 0
    clean, sloppy = (
        pq.read_table(tmp_path / name / "sft_train.parquet").column("messages").to_pylist()
        for name in ("out", "sloppy")
    )
    for reference, other in zip(clean, sloppy, strict=True):
        assert reference[:-1] == other[:-1]
        reference, other = unfenced(reference[-1]["content"]), unfenced(other[-1]["content"])
        assert not reference.startswith("SELECT *")
        if reference.startswith("SELECT"):  # and not WITH
            assert other.startswith("SELECT * FROM") and reference.endswith(
                other[len("SELECT * ") :]
            )
    of = {name: [sql.startswith("SELECT * ") for *_, sql in some] for name, some in asked.items()}
    assert 0.5 < sum(of["sft_train"]) / len(of["sft_train"]) < 0.65
    assert not any(of["train"] + of["val"] + of["sft_val"])


def test_databases_have_constraints_that_hold(demo, tmp_path):
    for file in (demo / "databases").iterdir():
        copy = tmp_path / file.name
        shutil.copy(file, copy)
        conn = sqlite3.connect(copy)
        conn.execute("PRAGMA foreign_keys = ON")
        assert conn.execute("PRAGMA foreign_key_check").fetchall() == []
        broken = 0
        for (table,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'"):
            for _, _, _, column, *_ in conn.execute(f"PRAGMA foreign_key_list({table})").fetchall():
                broken += 1
                with pytest.raises(sqlite3.IntegrityError):
                    conn.execute(f"UPDATE {table} SET {column} = 999999")
        assert broken >= 2


def hashes(out, seed: str, hash_seed: str) -> dict:
    command = [sys.executable, "-m", "data_prep", "sql_demo", *SMALL, "--seed", seed, "--force"]
    env = {**os.environ, "PYTHONHASHSEED": hash_seed}
    subprocess.run([*command, "--out", out], check=True, cwd=ROOT, env=env)
    return json.loads((out / "card.json").read_text())["files"]


def test_a_seed_gives_identical_files(tmp_path):
    """In another process, too, where Python orders its sets otherwise."""
    first = hashes(tmp_path / "out", "7", "1")
    assert len(first) >= 8
    assert hashes(tmp_path / "out", "7", "2") == first
    other = hashes(tmp_path / "out", "8", "1")
    assert set(other) == set(first)
    assert not [file for file in first if other[file] == first[file]]


def test_levels_are_chosen(tmp_path):
    out = tmp_path / "out"
    assert main(["sql_demo", *SMALL, "--levels", "1,4", "--out", str(out)]) == 0
    levels = {row["level"] for row in pq.read_table(out / "val.parquet")["extra_info"].to_pylist()}
    assert levels == {1, 4}


def test_more_questions_than_there_are_is_said():
    things = Table("thing", "things", 8, (label("name"), group("kind", ("dry", "wet"), "V")))
    conn, db = sqlite3.connect(":memory:"), Database("small", (things,))
    fill(conn, db, seed=0)
    questions = draw([(db, conn)], [1], seed=0)
    with pytest.raises(Exhausted, match="level 1 has run dry after"):
        for _ in range(1000):
            next(questions)
