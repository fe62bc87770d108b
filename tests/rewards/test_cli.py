"""`python -m rewards NAME --file ...`: shapes of rows, the table, mistakes, and the data check."""

import json
import re
import shutil
import sqlite3
import subprocess
import sys

import pytest
from helpers import ROOT


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "x.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (i INTEGER)")
    connection.close()
    return str(path)


def run(*arguments):
    command = [sys.executable, "-m", "rewards", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def cells(done):
    """The table: of each outcome count, share and mean score."""
    lines = (re.split(r"\s{2,}", line) for line in done.stdout.splitlines())
    return {outcome: rest for outcome, *rest in lines}


def write(path, rows):
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return path


def rows_of(db):
    nested = {"reward_model": {"ground_truth": "SELECT 1"}, "extra_info": {"db": db}}
    return [
        {
            "solution_str": "```sql\nSELECT 1\n```",
            "ground_truth": "SELECT 1",
            "extra_info": {"db": db},
        },
        {"response": "```sql\nSELECT 2\n```", "gts": ["SELECT 3", "SELECT 2"], "db": db},
        {"output": "```sql\nSELECT 9\n```", **nested},
        {"output": "nothing", **nested},
        {"output": "```sql\nSELECT 1\n```", "gts": "SELECT nosuch", "db": db},
    ]


def test_scores_a_file(tmp_path, db):
    out = tmp_path / "scored.jsonl"
    done = run("sql", "--file", write(tmp_path / "rows.jsonl", rows_of(db)), "--out", out)
    assert done.returncode == 0, done.stderr
    table = cells(done)
    assert table["match"] == ["2", "40.0%", "1.0000"]
    assert table["mismatch"] == ["1", "20.0%", "0.1000"]
    assert table["gold_error"] == ["1", "20.0%", "-"]
    assert table["all"] == ["5", "100.0%", "0.5250"]
    assert "rows/s" in done.stdout
    scored = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["result"]["outcome"] for row in scored] == [
        "match", "match", "mismatch", "no_sql", "gold_error",
    ]  # fmt: skip
    assert scored[4]["result"]["score"] is None
    assert scored[1]["gts"] == ["SELECT 3", "SELECT 2"]


def test_options_reach_the_reward(tmp_path, db):
    path = write(tmp_path / "rows.jsonl", rows_of(db))
    done = run("sql", "--file", path, "--set", "shaping=skyrl", "workers=1", "--set", "mode=bird")
    assert done.returncode == 0, done.stderr
    assert cells(done)["no_sql"] == ["1", "20.0%", "-1.0000"]


def test_parquet(tmp_path, db):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").Table
    rows = [
        {"reward_model": {"ground_truth": f"SELECT {i}"}, "extra_info": {"db": db}}
        for i in range(3)
    ]
    rows[1]["reward_model"]["ground_truth"] = "SELECT nosuch"
    path = tmp_path / "train.parquet"
    parquet.write_table(table.from_pylist(rows), path)
    done = run("sql", "--check", "--file", path)
    assert done.returncode == 2
    assert f"{path}, row 1 (from 0): gold_error" in done.stderr and "nosuch" in done.stderr
    assert "3 rows, 1 with faults" in done.stdout


def test_check_of_good_data(tmp_path, db):
    done = run("sql", "--check", "--file", write(tmp_path / "rows.jsonl", rows_of(db)[:4]))
    assert (done.returncode, done.stderr) == (0, "")
    assert "4 rows, 0 with faults" in done.stdout


def test_bad_lines_are_numbered_and_the_rest_is_scored(tmp_path, db):
    lines = ["{oops", rows_of(db)[0], "", "[1]", {"output": "x"}, {"ground_truth": "SELECT 1"}]
    done = run("sql", "--file", write(tmp_path / "rows.jsonl", lines))
    assert done.returncode == 2
    told = {1: "not JSON", 4: "not a JSON object", 5: "no ground truth", 6: "no response"}
    for number, words in told.items():
        assert f"rows.jsonl:{number}: {words}" in done.stderr
    assert "1 rows in" in done.stdout and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sq"], ["unknown reward 'sq'", "Did you mean sql?", "There is:", "sql"]),
        (["_rows"], ["unknown reward", "There is:"]),
        (["sql", "--file", "/no/such/file.jsonl"], ["no such file: /no/such/file.jsonl"]),
        (
            ["sql", "--file", "ROWS", "--set", "shapping=arctic"],
            ["unknown option", "Did you mean shaping?"],
        ),
        (
            ["sql", "--file", "ROWS", "--set", "shaping=dense"],
            ["unknown shaping 'dense'", "arctic"],
        ),
        (["sql", "--file", "ROWS", "--set", "timeout_s=fast"], ["timeout_s must be a number"]),
        (["sql", "--file", "ROWS", "--set", "bird"], ["key=value"]),
        (["sql", "--file", "ROWS", "--out", "ROWS"], ["exists"]),
        (["sql", "--file", "ROWS", "--out", "ROWS", "--force"], ["exists"]),
        (["sql", "--file", "ROWS", "--out", "/no/such/folder/x"], ["no such folder"]),
        (["sql", "--check", "--file", "ROWS", "--set", "mode=spyder"], ["unknown mode"]),
        (["sql", "--file", "ROWS", "--timeout", "0"], ["--timeout must be more than 0"]),
        (["model", "--file", "ROWS"], ["scores inside of a run"]),
    ],
)
def test_mistakes_are_one_or_two_lines(tmp_path, db, arguments, words):
    rows = write(tmp_path / "rows.jsonl", rows_of(db))
    done = run(*(rows if argument == "ROWS" else argument for argument in arguments))
    assert done.returncode == 2
    assert all(word in done.stderr for word in words), done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert json.loads(rows.read_text().splitlines()[0])["ground_truth"] == "SELECT 1"


BROKEN = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None, *, weight=1.0):
    if weight < 0:
        raise ValueError(f"weight must be at least 0, not {weight}")
    exec(solution_str)
    return {"score": weight, "outcome": "good"}
"""


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """`python -m rewards broken`: a reward that does what the response says."""
    package = tmp_path / "rewards"
    shutil.copytree(ROOT / "rewards", package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "broken.py").write_text(BROKEN)

    def score(*responses, options=()):
        rows = [{"response": response, "gts": "x"} for response in responses]
        path = write(tmp_path / "rows.jsonl", rows)
        command = [sys.executable, "-m", "rewards", "broken", "--file", str(path), *options]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    return score


def test_rows_that_are_stopped_are_in_the_table(broken):
    hangs, dies = "while True: pass", "import os; os._exit(0)"
    done = broken("", hangs, dies, "", "", options=["--timeout", "0.5", "--set", "weight=0.5"])
    assert done.returncode == 0, done.stderr
    table = cells(done)
    assert table["stopped: timeout"] == table["stopped: crash"] == ["1", "20.0%", "-"]
    assert table["good"] == ["3", "60.0%", "0.5000"]
    assert "rows.jsonl:2: stopped: timeout" in done.stderr
    assert "rows.jsonl:3: stopped: crash" in done.stderr
    assert "2 rows were stopped" in done.stderr and len(done.stderr.splitlines()) == 3


def test_a_reward_that_raises_ends_it_with_its_row(broken):
    done = broken("", "", "raise KeyError('oh')", "")
    assert done.returncode == 1 and done.stdout == ""
    error, place, row = done.stderr.splitlines()
    assert error.endswith("rows.jsonl:3: the reward raised KeyError: 'oh'")
    assert place == "    rewards/broken.py, line 5, in compute_score: exec(solution_str)"
    assert row.startswith("    the row: ") and "response=\"raise KeyError('oh')\"" in row
    # what an option is told is a mistake of the user, and no more than that
    done = broken("", options=["--set", "weight=-1"])
    assert (done.returncode, done.stderr) == (2, "error: weight must be at least 0, not -1\n")
    assert broken("int('x')").returncode == 1


OWN = """
import re

def compute_score(data_source, solution_str, ground_truth, extra_info=None, *, bonus=0.0, unit):
    found = re.search(ground_truth, solution_str)
    return found.end() * unit + bonus
"""


@pytest.fixture
def own(tmp_path):
    """`python -m rewards my_reward.py`: a file of one's own, with this text, on these rows."""

    def score(text, rows, *options):
        (tmp_path / "my_reward.py").write_text(text)
        path = write(tmp_path / "rows.jsonl", rows)
        return run(tmp_path / "my_reward.py", "--file", path, *options)

    return score


GOOD_ROW = {"response": "abc", "ground_truth": "b"}


def test_a_file_of_ones_own(own, tmp_path):
    out = tmp_path / "out.jsonl"
    done = own(OWN, [GOOD_ROW] * 3, "--set", "bonus=0.5", "unit=2", "--out", out)
    assert done.returncode == 0, done.stderr
    assert cells(done)["scored"] == ["3", "100.0%", "4.5000"]
    result = json.loads(out.read_text().splitlines()[0])["result"]
    assert result == {"stopped": "no", "score": 4.5, "acc": 4.5}
    wrong = own(OWN, [GOOD_ROW], "--set", "bonos=1")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "unknown option 'bonos'. Did you mean bonus? There is: bonus, unit" in wrong.stderr
    assert "bonus=0.0" in run(tmp_path / "my_reward.py", "--help").stdout
    anything = "def compute_score(solution_str, **more):\n    return more['depth']\n"
    assert cells(own(anything, [GOOD_ROW], "--set", "depth=2"))["scored"][2] == "2.0000"


@pytest.mark.parametrize(
    ("text", "rows", "told"),
    [
        (
            OWN,
            [GOOD_ROW, GOOD_ROW | {"ground_truth": "x"}],
            [
                "rows.jsonl:2: the reward raised AttributeError: 'NoneType' object has no attribute 'end'",
                "my_reward.py, line 6, in compute_score: return found.end() * unit + bonus",
                "the row: data_source='', index=None, response='abc', ground_truth='x'",
            ],
        ),
        (
            OWN,
            [{"response": "abc"}],
            [
                "rows.jsonl:1: the reward raised TypeError: first argument must be string",
                "my_reward.py, line 5, in compute_score: found = re.search(ground_truth, solution_str)",
                "ground_truth=None",
                "the row has no ground truth (ground_truth, gts or reward_model.ground_truth)",
            ],
        ),
        (
            "def compute_score(solution_str, unit, **row):\n    float(len(solution_str))\n",
            [GOOD_ROW],
            [
                "the reward raised TypeError: it returned None, and not a number or",
                "my_reward.py, line 1, in compute_score",
                "the row: ",
            ],
        ),
        (
            "def compute_score(unit, **row):\n    return {'score': 'good'}\n",
            [GOOD_ROW],
            ["TypeError: the score is str 'good', and not a number", "line 1, in compute_score", "the row: "],
        ),
    ],
)  # fmt: skip
def test_a_reward_that_raises_shows_its_own_line(own, text, rows, told):
    done = own(text, rows, "--set", "unit=1")
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert len(lines) == len(told)
    assert all(words in line for words, line in zip(told, lines, strict=True)), done.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import nosuch\n", "can't be imported: ModuleNotFoundError: No module named 'nosuch' ("),
        ("import nosuch\n", "my_reward.py, line 1, in <module>: import nosuch)"),
        ("def compute_score(:\n", "my_reward.py, line 1: def compute_score(:)"),
        ("def score(): 0\n", "my_reward.py has no function 'compute_score'"),
    ],
)
def test_a_file_that_cannot_be_used(own, text, told):
    done = own(text, [GOOD_ROW])
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert told in done.stderr


def test_a_file_that_is_not_there():
    done = run("no_reward.py", "--file", "x")
    assert (done.returncode, done.stderr) == (2, "error: no such file: no_reward.py\n")


@pytest.mark.parametrize(
    ("reward", "options"),
    [
        ("format", ["pattern=a.*"]),
        ("length", []),
        ("composite", ['parts={"format": 1, "length": 1}', 'options={"format": {"pattern": "a.*"}}']),
    ],
)  # fmt: skip
def test_rows_without_a_ground_truth_where_none_is_needed(tmp_path, reward, options):
    path = write(tmp_path / "rows.jsonl", [{"response": "abc"}, {"response": "abd", "gts": None}])
    done = run(reward, "--file", path, *(["--set", *options] if options else []))
    assert (done.returncode, done.stderr) == (0, "")
    assert cells(done)["all"][0] == "2"


def test_and_where_one_is(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"response": "4"}, {"response": "4", "gts": 4.0}])
    for reward, options in (
        ("math", []),
        ("composite", ["--set", 'parts={"length": 1, "math": 1}']),
    ):
        done = run(reward, "--file", path, *options)
        assert done.returncode == 2 and cells(done)["all"][0] == "1"
        assert (
            "rows.jsonl:1: " in done.stderr
            and "no ground truth (ground_truth, gts or" in done.stderr
        )


def test_a_state_in_extra_info(tmp_path):
    state = {"employed": 1, "wealth": 5, "dpi": 2}
    rows = [{"response": '{"work": 0.7, "consumption": 0.6}', "extra_info": info}
            for info in (state, json.dumps(state), {"employed": 1}, None)]  # fmt: skip
    done = run("econ", "--file", write(tmp_path / "rows.jsonl", rows))
    assert done.returncode == 2 and cells(done)["ok"][0] == "2"
    assert "rows.jsonl:3: wealth and dpi missing" in done.stderr
    assert "rows.jsonl:4: employed is missing" in done.stderr


BOM = "\ufeff"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.jsonl", '{"response": "é", "gts": "é"}\r\n\r\n{"response": "e", "gts": "é"}\r\n'),
        ("rows.csv", 'response,ground_truth,note\r\né,é,"a, b"\r\ne,é,\r\n'),
        ("rows.csv", "response;ground_truth\r\né;é\r\ne;é\r\n"),
        ("rows.csv", '"response"|ground_truth\r\né|é\r\ne|é\r\n'),
        ("rows.tsv", "response\tground_truth\né\té\ne\té\n"),
    ],
)
def test_files_with_a_byte_order_mark(tmp_path, encoding, name, text):
    path = tmp_path / name
    path.write_bytes((BOM + text).encode(encoding))
    done = run("exact", "--file", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert cells(done)["all"] == ["2", "100.0%", "0.5000"]


def test_broken_lines_of_csv_are_numbered(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('response,gts\n4,4\n4\n"two\nlines",4\n,4\n')
    done = run("math", "--file", path)
    assert done.returncode == 2 and cells(done)["all"][0] == "3"
    assert "rows.csv:3: 1 cells under a header of 2" in done.stderr


def test_a_prompt_that_is_a_text(tmp_path):
    """It is what the user said, for a reward that looks at the question."""
    text = "def compute_score(extra_info, **row):\n    return len(extra_info['messages'][-1]['content'])\n"
    (tmp_path / "my_reward.py").write_text(text)
    rows = [
        {"response": "", "prompt": "2+2?"},
        {"response": "", "prompt": [{"role": "user", "content": "2+3?"}]},
    ]
    done = run(tmp_path / "my_reward.py", "--file", write(tmp_path / "rows.jsonl", rows))
    assert cells(done)["scored"] == ["2", "100.0%", "4.0000"], done.stderr


def test_help():
    done = run("sql", "--help")
    assert done.returncode == 0
    assert "--file" in done.stdout and "shaping=" in done.stdout and "timeout_s=2.0" in done.stdout
    assert run("--help").returncode == 0
