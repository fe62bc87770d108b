"""spider and bird: both layouts, reference answers that are executed once, nothing bad kept or lost unseen."""

import json
import sqlite3

import pyarrow.parquet as pq
import pytest

from data_prep import _schema, _sqlite
from data_prep.__main__ import main

FORGET = "DELETE FROM song RETURNING id"
BAD = {  # what is changed in a good Spider row: the reason that it must be rejected with
    "syntax": ({"query": "SELEC 1"}, "reference: OperationalError: near"),
    "no table": ({"query": "SELECT * FROM nowhere"}, "reference: OperationalError: no such table"),
    "two statements": (
        {"query": "SELECT 1; SELECT 2"},
        "reference: ProgrammingError: You can only",
    ),
    "no query": ({"query": "-- nothing"}, "reference: ProgrammingError: not a query"),
    "delete": ({"query": FORGET}, "reference: DatabaseError: not authorized"),
    "drop": ({"query": "DROP TABLE song"}, "reference: DatabaseError: not authorized"),
    "pragma": ({"query": "PRAGMA writable_schema = 1"}, "reference: DatabaseError: not authorized"),
    "NUL in the reference": ({"query": "SELECT 1\0"}, ""),
    "fence": ({"query": "SELECT '```'"}, "reference: has a fence in it"),
    "reference null": ({"query": None}, "reference: empty or missing"),
    "reference list": ({"query": ["SELECT 1"]}, "reference: empty or missing"),
    "question blank": ({"question": " "}, "question: empty or missing"),
    "no database": ({"db_id": "nowhere"}, "db_id: no database file"),
    "not a database": ({"db_id": "broken"}, "reference: DatabaseError: file is not a database"),
    "db_id list": ({"db_id": ["music"]}, "db_id: empty or missing"),
    "db_id too long": ({"db_id": "x" * 5000}, ""),
    "db_id NUL": ({"db_id": "\0"}, ""),
    "lone surrogate": ({"question": "\ud800?"}, "prompt[1].content: not valid UTF-8"),
}


def databases(folder, *names: str) -> None:
    for name in names:
        (folder / name).mkdir(parents=True)
        conn = sqlite3.connect(folder / name / f"{name}.sqlite")
        conn.execute("CREATE TABLE song (id INTEGER PRIMARY KEY, title TEXT)")
        conn.executemany(
            "INSERT INTO song (title) VALUES (?)", [("Für Élise",), ("夜曲",), (None,)]
        )
        conn.commit()
        conn.close()


def spider_rows(db_id: str, number: int) -> list[dict]:
    ask = "Wie viele Lieder sind größer als {}?"
    reference = "SELECT count(*) FROM song WHERE id > {}"
    return [
        {"db_id": db_id, "question": ask.format(i), "query": reference.format(i)}
        for i in range(number)
    ]


def write(file, rows) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(rows), encoding="utf-8")


def table(out, name: str) -> list[dict]:
    return pq.read_table(out / f"{name}.parquet").to_pylist()


def check_dataset(out) -> dict:
    """What holds for every dataset of this kind; returns its card."""
    card = json.loads((out / "card.json").read_text())
    for split in ("train", "val"):
        rl, sft = table(out, split), table(out, f"sft_{split}")
        assert card["counts"][split] == len(rl) > 0
        for row, lesson in zip(rl, sft, strict=True):
            assert _schema.check("rl", row) == _schema.check("sft", lesson) == []
            info, reference = row["extra_info"], row["reward_model"]["ground_truth"]
            assert info["split"] == split
            conn = sqlite3.connect(f"file:{info['db']}?mode=ro", uri=True)
            conn.execute(reference).fetchall()
            question = row["prompt"][-1]["content"]
            for name, ddl in conn.execute("SELECT name, sql FROM sqlite_master WHERE type='table'"):
                assert name.startswith("sqlite_") or ddl.strip() in question
            conn.close()
            assert question.endswith(f"Question: {info['question']}")
            assert lesson["messages"][:-1] == row["prompt"]
            assert lesson["messages"][-1]["content"] == f"```sql\n{reference.strip()}\n```"
    return card


def prompt_without(row: dict, *fields: str) -> dict:
    return {k: v for k, v in row.items() if k not in fields}


@pytest.fixture
def spider(tmp_path):
    """A folder in Spider's layout with 3 + 2 training questions and 2 for validation."""
    folder = tmp_path / "spider"
    databases(folder / "database", "music", "radio")
    write(folder / "train_spider.json", spider_rows("music", 3))
    write(folder / "train_others.json", spider_rows("music", 2))
    write(folder / "dev.json", spider_rows("radio", 2))
    write(folder / "tables.json", [])
    return folder


def test_spider_layout(spider, tmp_path):
    out = tmp_path / "out"
    assert main(["spider", str(spider), "--out", str(out)]) == 0
    card = check_dataset(out)
    assert card["counts"] == {"read": 7, "train": 5, "val": 2, "rejected": 0}
    assert [row["extra_info"]["index"] for row in table(out, "train")] == [0, 1, 2, 3, 4]
    assert card["empty_references"] == 0
    assert {row["extra_info"]["db_id"] for row in table(out, "val")} == {"radio"}


def test_bird_layout(tmp_path):
    """The two archives as they unpack; evidence is in the prompt; a difficulty may be a number."""
    source, out = tmp_path / "bird", tmp_path / "out"
    databases(source / "train/train_databases", "music")
    databases(source / "dev_20240627/dev_databases", "radio")
    row = {"question": "¿Cuántas?", "SQL": "SELECT count(*) FROM song", "evidence": "todas = all"}
    write(source / "train/train.json", [{**row, "db_id": "music"}])
    rows = [{**row, "db_id": "radio", "difficulty": d} for d in ("simple", 3, None)]
    write(source / "dev_20240627/dev.json", [prompt_without(rows[0], "evidence"), *rows[1:]])
    assert main(["bird", str(source), "--sample-rows", "2", "--out", str(out)]) == 0
    check_dataset(out)
    (train,), val = table(out, "train"), table(out, "val")
    text = train["prompt"][-1]["content"]
    assert "Evidence: todas = all\nQuestion: ¿Cuántas?" in text
    assert "-- id | title\n-- 1 | Für Élise\n-- 2 | 夜曲\n" in text
    assert "Evidence" not in val[0]["prompt"][-1]["content"]
    assert [row["extra_info"]["difficulty"] for row in val] == ["simple", "3", None]


def test_bad_rows_are_kept_aside_with_their_reason(spider, tmp_path):
    (spider / "database/broken").mkdir()
    (spider / "database/broken/broken.sqlite").write_text("no database " * 100)
    good = spider_rows("music", 1)[0]
    write(spider / "train_spider.json", [good, *({**good, **change} for change, _ in BAD.values())])
    out = tmp_path / "out"
    assert main(["spider", str(spider), "--on-bad", "skip", "--out", str(out)]) == 0
    card = check_dataset(out)
    assert card["counts"] == {"read": len(BAD) + 5, "train": 3, "val": 2, "rejected": len(BAD)}
    lines = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == list(range(1, len(BAD) + 1))
    for line, (change, reason) in zip(lines, BAD.values(), strict=True):
        assert line["reason"].startswith(reason) and line["reason"], line
        assert change.items() <= line["data"].items() and line["source"] == "train_spider.json"


def test_bad_rows_fail_by_default(spider, tmp_path, capsys):
    write(spider / "dev.json", [*spider_rows("radio", 2), {"query": "SELECT 1"}, 7])
    assert main(["spider", str(spider), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "2 of 9 rows are bad" in error and "dev.json row 2: db_id: empty or missing" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("sql", ["VACUUM INTO '{}'", "ATTACH '{}' AS other"])
def test_references_write_nothing(spider, tmp_path, sql):
    file = tmp_path / "written.sqlite"
    before = (spider / "database/music/music.sqlite").read_bytes()
    rows = [*spider_rows("music", 1), {**spider_rows("music", 1)[0], "query": sql.format(file)}]
    write(spider / "train_spider.json", rows)
    write(spider / "train_others.json", [{**rows[0], "query": FORGET}])
    assert main(["spider", str(spider), "--on-bad", "skip", "--out", str(tmp_path / "out")]) == 0
    assert not file.exists()
    assert (spider / "database/music/music.sqlite").read_bytes() == before


def test_an_endless_reference_is_stopped(spider):
    conn = _sqlite.connect(spider / "database/music/music.sqlite")
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    with pytest.raises(TimeoutError, match=r"still running after 0\.1 s"):
        _sqlite.execute(conn, endless, timeout_s=0.1)
    assert _sqlite.execute(conn, "SELECT * FROM song") == 3


@pytest.mark.parametrize("seed", [0, 1])
def test_one_split_alone_is_split_by_database(tmp_path, capsys, seed):
    source, out = tmp_path / "spider", tmp_path / "out"
    names = [f"db{i}" for i in range(10)]
    databases(source / "database", *names)
    write(source / "dev.json", [row for name in names for row in spider_rows(name, 3)])
    command = ["spider", str(source), "--val-share", "0.3", "--seed", str(seed), "--out", str(out)]
    assert main(command) == 0
    assert "only dev.json is there: split by database, 3 of 10" in capsys.readouterr().out
    check_dataset(out)
    train, val = ({r["extra_info"]["db_id"] for r in table(out, s)} for s in ("train", "val"))
    assert len(val) == 3 and train | val == set(names) and not train & val
    files = json.loads((out / "card.json").read_text())["files"]
    assert main([*command, "--force"]) == 0
    assert json.loads((out / "card.json").read_text())["files"] == files


def test_one_database_alone_cannot_be_split(tmp_path, capsys):
    databases(tmp_path / "database", "music")
    write(tmp_path / "dev.json", spider_rows("music", 3))
    assert main(["spider", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "needs questions on two databases" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["spider", "bird"])
@pytest.mark.parametrize("content", [None, "", "[", "[]", "{}", '[{"db_id": "x"'])
def test_a_folder_that_is_no_benchmark_is_told_in_a_line(tmp_path, capsys, name, content):
    if content is not None:
        (tmp_path / "dev.json").write_text(content)
    assert main([name, str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "dev.json" in error and error.count("\n") == 1 and "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_the_real_folder(shared, tmp_path, capsys):
    """German questions on real databases; 44 of its reference answers use a keyword as a name, unquoted."""
    source, out = shared / "spider_format", tmp_path / "out"
    assert main(["spider", str(source), "--out", str(out)]) == 2
    assert "44 of 792 rows are bad" in capsys.readouterr().err
    assert main(["spider", str(source), "--on-bad", "skip", "--out", str(out)]) == 0
    counts = check_dataset(out)["counts"]
    assert counts["train"] + counts["val"] == 748 and counts["rejected"] == 44
    assert len((out / "rejected.jsonl").read_text().splitlines()) == 44
    train, val = ({r["extra_info"]["db_id"] for r in table(out, s)} for s in ("train", "val"))
    assert not train & val
