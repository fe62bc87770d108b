"""The preference pairs and labelled chains of sql_demo: right and wrong are what execution says."""

import random
import sqlite3
from collections import Counter

import pyarrow.parquet as pq
import pytest

from data_prep import _schema
from data_prep._sql_demo.pairs import chain, fenced, steps, wrong
from data_prep.sql_demo import content

SPLITS = ("train", "val")


@pytest.fixture(scope="module")
def rows(sql_demo):
    names = [f"{kind}{split}" for kind in ("", "pref_", "prm_") for split in SPLITS]
    return {name: pq.read_table(sql_demo / f"{name}.parquet").to_pylist() for name in names}


@pytest.fixture(scope="module")
def executed(sql_demo):
    """`executed(row of RL, answer)` → the sorted rows of the answer's query on the row's database."""

    def result(row: dict, answer: str) -> list[tuple]:
        assert answer.startswith("```sql\n") and answer.endswith("\n```")
        with sqlite3.connect(f"file:{row['extra_info']['db']}?mode=ro", uri=True) as conn:
            return sorted(conn.execute(answer[7:-4]).fetchall(), key=repr)

    return result


@pytest.mark.parametrize("split", SPLITS)
def test_pairs_are_right_and_wrong_by_execution(rows, executed, split):
    for rl, row in zip(rows[split], rows[f"pref_{split}"], strict=True):
        assert _schema.check("preference", row) == []
        assert row["prompt"] == rl["prompt"]
        reference = executed(rl, fenced(rl["reward_model"]["ground_truth"]))
        assert executed(rl, row["chosen"][0]["content"]) == reference
        assert executed(rl, row["rejected"][0]["content"]) != reference
    rejected = [row["rejected"][0]["content"] for row in rows[f"pref_{split}"]]
    sloppy = sum("SELECT * FROM" in text for text in rejected) / len(rejected)
    assert 0.35 < sloppy < 0.65  # and the others have one mistake


@pytest.mark.parametrize("split", SPLITS)
def test_chains_are_labelled_up_to_the_first_wrong_step(rows, executed, split):
    kinds = Counter()
    for rl, row in zip(rows[split], rows[f"prm_{split}"], strict=True):
        assert _schema.check("process", row) == []
        assert row["prompt"] == rl["prompt"]
        reference = rl["reward_model"]["ground_truth"]
        right = executed(rl, "\n\n".join(row["steps"])) == executed(rl, fenced(reference))
        labels = row["labels"]
        assert labels == sorted(labels, reverse=True) and set(labels) <= {0.0, 1.0}
        assert right == all(labels)
        first = labels.index(0.0) if not right else len(labels)
        assert row["steps"][:first] == steps(reference)[:first]
        kinds["right" if right else "wrong from the start" if first == 0 else "later"] += 1
    assert min(kinds.values()) > 0.1 * kinds.total() and len(kinds) == 3, kinds


def test_steps_are_the_outermost_clauses():
    sql = ("WITH c AS (SELECT COUNT(*) AS n FROM t WHERE a > 1 GROUP BY b) SELECT AVG(n) FROM c"
           " WHERE n IN (SELECT n FROM d) ORDER BY n DESC LIMIT 3")  # fmt: skip
    assert steps(sql) == [
        "```sql\nWITH c AS (SELECT COUNT(*) AS n FROM t WHERE a > 1 GROUP BY b)",
        "SELECT AVG(n)",
        "FROM c",
        "WHERE n IN (SELECT n FROM d)",
        "ORDER BY n DESC LIMIT 3\n```",
    ]


def test_a_query_that_ends_too_early_is_wrong_where_it_ends():
    reference = "SELECT a FROM t WHERE b = 1"
    assert chain("SELECT a FROM t", reference) == (["```sql\nSELECT a", "FROM t\n```"], [1.0, 0.0])
    assert chain("SELECT a FROM t WHERE b = 2", reference)[1] == [1.0, 1.0, 0.0]
    assert chain("SELECT * FROM t WHERE b = 1", reference)[1] == [0.0, 0.0, 0.0]
    assert chain(reference, reference)[1] == [1.0, 1.0, 1.0]


def test_no_wrong_query_is_none():
    """One cell, and nothing to change that changes it."""
    db, conn = content(0)[0]
    assert wrong(conn, db, "SELECT 1", random.Random(0)) is None
