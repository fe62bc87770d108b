"""reward=sql_process: steps of a chain, what they earn, where they stand."""

import asyncio
import json
import math
import subprocess
import sys
import time

import pytest
from helpers import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sql_helpers import KEYS, LOOP

from data_prep.tiny_model import conversations, make_tokenizer
from plugins.rollout.step_rewards import place
from rewards import sql
from rewards._sql.shaping import SHAPINGS
from rewards._sql.steps import locate, prefix, split
from rewards._sql.text import extract
from rewards.sql_process import compute_score, row_faults

STEP_KEYS = {"steps", "steps_total", "n_steps", "steps_reached", "steps_good"}
REFERENCE = "SELECT count(*) FROM item"
CHAIN = "WITH a AS (SELECT * FROM item), b AS (SELECT * FROM a) SELECT {} FROM b"
RIGHT, WRONG = CHAIN.format("count(*)"), CHAIN.format("max(id) + 1")


def score(query, db, reference=REFERENCE, fence=True, **options):
    text = f"```sql\n{query}\n```" if fence else query
    result = asyncio.run(compute_score("", text, reference, {"db": db}, **options))
    assert result.keys() == KEYS | STEP_KEYS
    assert result["steps_total"] == pytest.approx(sum(score for *_, score in result["steps"]))
    return result


def earned(query, db, **options):
    return [round(score, 6) for *_, score in score(query, db, **options)["steps"]]


RECURSIVE = "r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r LIMIT 9)"


@pytest.mark.parametrize(
    ("query", "steps"),
    [
        ("WITH a AS (SELECT 1), b AS (SELECT * FROM a) SELECT * FROM b", "+a +b"),
        ("WITH a AS (SELECT 1), b AS (SELECT * FROM a) SELECT * FROM A", "+a -b"),
        ("WITH a AS (SELECT 1), b AS (SELECT * FROM a) SELECT 1", "-a -b"),
        ("WITH a AS (SELECT 1) SELECT 2 UNION SELECT * FROM a ORDER BY 1", "+a"),
        ("WITH a AS (SELECT 1) SELECT 1 FROM t WHERE EXISTS (SELECT 1 FROM u LEFT JOIN a)", "+a"),
        ("WITH a AS (SELECT 1) SELECT 1 FROM t WHERE id NOT IN a", "+a"),
        (f"WITH RECURSIVE {RECURSIVE} SELECT 1", "-r"),
        (f"WITH RECURSIVE {RECURSIVE}, a AS (SELECT * FROM r) SELECT * FROM a", "+r +a"),
        ("WITH RECURSIVE a AS (SELECT * FROM b), b AS (SELECT * FROM a) SELECT 1", "-a -b"),
        # The name is somebody else's.
        ("WITH a AS (SELECT 1) SELECT count(*) AS a, t.a FROM t AS a", "-a"),
        ("WITH a AS (SELECT 1) SELECT * FROM main.a WHERE id IN main.a", "-a"),
        ("WITH a AS (SELECT 1) SELECT * FROM (WITH a AS (SELECT 2) SELECT * FROM a)", "-a"),
        ("WITH a AS (SELECT 1), b AS (WITH A AS (SELECT 2) SELECT * FROM a) SELECT * FROM b", "-a +b"),
        # No chain.
        ("SELECT * FROM (WITH a AS (SELECT 1) SELECT * FROM a)", ""),
        ("WITH a AS (SELECT 1), A AS (SELECT 2) SELECT * FROM a", ""),
        ("WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a", ""),
        ("WITH a AS (SELECT 1) DELETE FROM t", ""),
        ("WITH a AS (SELECT 1) SELECT * FROM a; SELECT 2", ""),
        ("WITH a AS (SELECT 1 SELECT * FROM a", ""),
        ("WITH", ""),
        ("WITH a AS", ""),
        ("", ""),
        ("WITH a AS (" * 500, ""),
        ("WITH a AS (SELECT " + "(" * 900 + ")" * 900 + ") SELECT * FROM a", ""),
    ],
)  # fmt: skip
def test_split(query, steps):
    found = [("-+"[step.reached] + query[step.start]) for step in split(query)]
    assert " ".join(found) == steps


@pytest.mark.parametrize(
    "steps",
    [
        ["a AS (SELECT 1)", "b AS (SELECT 2)"],
        ["A as /* ( */ materialized (select ')' -- )\n, '(' )"],
        ['"x y"(i, j) AS NOT MATERIALIZED (SELECT 1, 2)', "`(` AS (VALUES (1))", "[)] AS (SELECT 3)"],
        ["replace AS (SELECT 1)", "first AS (SELECT replace('(', ')', '🙂'))"],
        [RECURSIVE],
    ],
)  # fmt: skip
def test_spans_of_sql(steps):
    query = "-- 1.\n/* with */ With Recursive\n" + " , ".join(steps) + "\nselect 1;"
    assert [query[step.start : step.end] for step in split(query)] == steps


def test_a_prefix_is_the_text_itself():
    query = 'WITH a AS (select  1/2 as "ä"), [b c] AS (SELECT * FROM a) SELECT * FROM [b c]'
    first, second = split(query)
    assert prefix(query, first) == 'WITH a AS (select  1/2 as "ä")\nSELECT * FROM a LIMIT 50'
    assert prefix(query, second) == query[: second.end] + "\nSELECT * FROM [b c] LIMIT 50"


@pytest.mark.timeout(30)
@pytest.mark.parametrize("unit", ["date(", "struct(", "decimal(", "(SELECT * FROM ", "CASE WHEN "])
def test_bounded_time(unit):
    """sqlglot alone takes 2^n for the first three."""
    for number in (12, 25, 60, 500):
        close = " THEN 1 END" if unit.startswith("CASE") else ")"
        query = f"WITH a AS (SELECT {unit * number}1{close * number}) SELECT * FROM a"
        start = time.process_time()
        split(query[:20_000])
        assert time.process_time() - start < 2
    query = "WITH a AS (SELECT " + "date(date(date(date(1)))), " * 700 + "1) SELECT * FROM a"
    start = time.process_time()
    split(query)
    assert time.process_time() - start < 2


def test_the_longest_chain_is_read():
    steps = ", ".join(
        f"a{n} AS (SELECT id, name, price FROM item WHERE id > {n})" for n in range(330)
    )
    query = f"WITH {steps} SELECT * FROM a0 JOIN a329 USING (id)"
    assert 18_000 < len(query) < 20_000
    assert [step.reached for step in split(query)] == [True, *[False] * 328, True]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (RIGHT, [0.1, 0.1]),
        (WRONG, [0.1, 0.1]),
        ("WITH a AS (SELECT * FROM item) SELECT count(*) FROM a", [0.2]),
        ("SELECT count(*) FROM item", []),
        # Padding: nothing reads it, or it reads nothing.
        ("WITH a AS (SELECT 1) SELECT count(*) FROM item", [0.0]),
        ("WITH a AS (SELECT 1), b AS (SELECT * FROM a) SELECT count(*) FROM item, b", [0.0, 0.0]),
        ("WITH x AS (SELECT * FROM item), a AS (SELECT * FROM item) SELECT count(*) FROM a", [0.0, 0.1]),
        ("WITH item AS (SELECT 1) SELECT 5 FROM item", [0.0]),
        # No rows.
        ("WITH a AS (SELECT * FROM item WHERE id > 9), b AS (SELECT * FROM a) SELECT 5 FROM b", [0.05, 0.05]),
        # The second does not run; the third needs it not.
        ("WITH a AS (SELECT * FROM item), b AS (SELECT nosuch FROM a), c AS (SELECT * FROM a) SELECT 5 FROM b, c",
         [0.066667, 0.0, 0.066667]),
        ("WITH a AS (SELECT * FROM item) SELECT nosuch FROM a", [0.2]),
        ("WITH a AS (SELECT * FROM item) SELECT abs(-9223372036854775808) FROM a", [0.2]),
        # A reader before what it reads: SQLite takes it in the whole, but the prefix alone fails.
        ("WITH b AS (SELECT * FROM a), a AS (SELECT * FROM item) SELECT count(*) FROM b", [0.0, 0.1]),
        ("WITH RECURSIVE r(i) AS (SELECT id FROM item UNION ALL SELECT i + 5 FROM r) SELECT i FROM r LIMIT 5", [0.2]),
        # Not understood, or not allowed.
        ("WITH a AS (SELECT * FROM item) SELECT count(*) FROM a WHERE", []),
        ("WITH a AS (SELECT * FROM item) DELETE FROM item WHERE id IN a", []),
        ("WITH a AS (SELECT * FROM item) SELECT random() FROM a", []),
        ("WITH a AS (SELECT * FROM item) SELECT 1 FROM a; SELECT 1", []),
        ("EXPLAIN WITH a AS (SELECT * FROM item) SELECT 1 FROM a", []),
    ],
)  # fmt: skip
def test_what_steps_earn(db, query, expected):
    result = score(query, db)
    assert [round(score, 6) for *_, score in result["steps"]] == expected
    assert result["n_steps"] == len(expected)
    assert result["steps_good"] == sum(score > 0 for score in expected)
    assert result["steps_good"] <= result["steps_reached"] <= result["n_steps"]


def test_options(db):
    empty = "WITH a AS (SELECT * FROM item WHERE id > 9) SELECT 5 FROM a"
    assert earned(empty, db, empty_step=0) == [0.0]
    assert earned(empty, db, empty_step=1) == [0.2]
    assert earned(RIGHT, db, step_cap=0) == [0.0, 0.0]
    assert earned(RIGHT, db, step_cap=0.5) == [0.25, 0.25]
    assert earned(RIGHT, db, shaping="sql_r1") == [0.6, 0.6]
    assert earned(RIGHT, db, fence=False) == []
    assert earned(RIGHT, db, fence=False, bare_select=True) == [0.1, 0.1]


@pytest.mark.parametrize("shaping", SHAPINGS)
def test_a_right_answer_wins_and_the_cap_holds(db, shaping):
    full = SHAPINGS[shaping].match
    plain = score(REFERENCE, db, shaping=shaping)
    best_wrong = score(WRONG, db, shaping=shaping)
    assert plain["steps"] == [] and best_wrong["acc"] == 0 and plain["score"] == full
    assert best_wrong["steps_total"] == pytest.approx(0.2 * full)
    assert plain["score"] > max(SHAPINGS[shaping][1:]) + best_wrong["steps_total"]
    for number in (1, 2, 3, 7, 19, 20, 21, 40):
        parts = ", ".join(f"a{n} AS (SELECT * FROM item)" for n in range(number))
        tables = ", ".join(f"a{n}" for n in range(number))
        result = score(f"WITH {parts} SELECT 1 FROM {tables} LIMIT 1", db, shaping=shaping)
        total = 0.2 * full if number <= 20 else 0.0
        assert result["steps_total"] == pytest.approx(total) and result["n_steps"] == number
    with pytest.raises(ValueError, match="a right answer must win"):
        score(WRONG, db, shaping=shaping, step_cap=1 - max(SHAPINGS[shaping][1:]) / full)


@pytest.mark.parametrize(
    "options",
    [
        {"step_cap": "0.2"}, {"step_cap": -0.1}, {"step_cap": float("nan")}, {"step_cap": True},
        {"step_cap": None}, {"empty_step": 1.1}, {"empty_step": "x"}, {"step_capp": 0.1},
        {"empty_steps": 0.5}, {"mode": "spyder"}, {"shaping": "dense"}, {"shaping": ["arctic"]},
        {"time_out_s": 1},
    ],
)  # fmt: skip
def test_bad_options_are_named(db, options):
    with pytest.raises(ValueError, match=next(iter(options))[:4]):
        score(RIGHT, db, **options)


def test_arguments_of_verl_are_left_alone(db):
    assert earned(RIGHT, db, reward_router_address=None, reward_model_tokenizer=object())


def test_faults_of_the_data_are_not_scored(db):
    for reference, path in (("SELECT nosuch", db), (REFERENCE, "/no/such.sqlite")):
        result = score(RIGHT, path, reference=reference)
        assert math.isnan(result["score"]) and result["masked"] == 1.0 and result["steps"] == []
    rows = [{"ground_truth": "SELECT nosuch", "db": db}, {"ground_truth": REFERENCE, "db": db}]
    faults = row_faults(rows, step_cap=0.1, empty_step=1, mode="bird")
    assert [fault["index"] for fault in faults] == [0]


def test_hostile_steps_do_no_harm(db):
    """The outcome stands, the time is that of two queries, the next answer is scored."""
    loop = LOOP.removeprefix("WITH RECURSIVE ").removesuffix(" SELECT max(i) FROM r")
    spin = "(SELECT max(i) FROM r)"
    opcode = "(SELECT sum(instr(printf('%.*c', 999999, 'a'), printf('%.*c', 499999, 'a') || 'b')) FROM item)"
    for body in (spin, opcode):
        parts = ", ".join(f"a{n} AS {body}" for n in range(15))
        tables = ", ".join(f"a{n}" for n in range(15))
        query = (
            f"WITH RECURSIVE ok AS (SELECT * FROM item), {loop}, {parts} SELECT 5 FROM ok, {tables}"
        )
        start = time.perf_counter()
        result = score(query, db, timeout_s=0.3, grace_s=0.3)
        assert time.perf_counter() - start < 3
        assert result["outcome"] in ("timeout", "killed") and result["score"] == 0.0
        assert [score > 0 for *_, score in result["steps"]] == [True] + [False] * 16
    assert earned(RIGHT, db, timeout_s=0.3, grace_s=0.3) == [0.1, 0.1]


@pytest.mark.parametrize(
    "response",
    [
        "先想一想🙂: {0} oder ```sql\n{0}\n``` 还是\n```sql\n  {0}\n```\n最后 {0} 👩‍👩‍👧",
        "<think>```sql\n{0}\n```</think> İ {0}\n```SQL {0};```",
        "<think>x</think> <answer> {0} </answer> <answer>{0}</answer> {0}",
        "{0}\n\n想 {0}\n{0};\nand {0}",
    ],
)
def test_spans_are_exact(db, response):
    query = 'WITH "项目" AS (SELECT name, \'🙂)\' FROM item), b AS (SELECT * FROM "项目") SELECT 5 FROM b'
    text = response.format(query)
    result = score(text, db, fence=False, bare_select=True)
    spans = [(start, end) for start, end, _ in result["steps"]]
    names = ["\"项目\" AS (SELECT name, '🙂)' FROM item)", 'b AS (SELECT * FROM "项目")']
    assert [text[start:end] for start, end in spans] == names
    # It is this copy: another one here is another answer.
    start = spans[1][0]
    changed = text[:start] + "c" + text[start + 1 :]
    assert extract(changed, True)[0].count("c AS (") == 1


PARTS = st.sampled_from(
    ["SELECT a", "WITH a AS (SELECT 1) SELECT b", "select", " ", "\n", "\n\n", ";", "İ🙂", "```", "```sql\n",
     "\n```", "```sqlite ", "<answer>", "</answer>", "<solution>", "</solution>", "<think>", "</think>"]
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.lists(PARTS, max_size=25).map("".join), st.booleans())
def test_the_place_is_that_of_the_extraction(text, bare):
    found, _ = extract(text, bare)
    if found is not None:
        at, end = locate(text, found), locate(text, found) + len(found)
        assert text[at:end] == found
        other = found.swapcase()
        assert extract(text[:at] + other + text[end:], bare)[0] == other


CHAIN_PARTS = st.sampled_from(
    ["WITH ", "a AS (", "SELECT * FROM item", "SELECT * FROM a", ")", ", ", "b AS (", "date(", "a",
     " SELECT count(*) FROM ", "b", "item", "'", '"', "--", "/*", ";", "RECURSIVE ", "```",
     "```sql\n", "</think>"]
)  # fmt: skip


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.one_of(CHAIN_PARTS, st.text(max_size=5)), max_size=14).map("".join),
    st.sampled_from(list(SHAPINGS)),
)
def test_any_text_gets_finite_steps_and_the_outcome_of_sql(db, text, shaping):
    text = f"```sql\nWITH a AS (SELECT * FROM item), {text}\n```"
    result = score(text, db, fence=False, shaping=shaping)
    plain = asyncio.run(sql.compute_score("", text, REFERENCE, {"db": db}, shaping=shaping))
    timing = {"exec_ms", "cache_hit"}
    assert {k: result[k] for k in KEYS - timing} == {k: plain[k] for k in KEYS - timing}
    assert 0 <= result["steps_total"] <= 0.2 * SHAPINGS[shaping].match * (1 + 1e-9)
    ends = [0]
    for start, end, step_score in result["steps"]:
        assert ends[-1] <= start < end <= len(text) and step_score >= 0
        ends.append(end)
    json.dumps(result, allow_nan=False)


def test_no_response_at_all(db):
    for text in (None, "", "```sql\n```"):
        assert score(text, db, fence=False)["steps"] == []


def test_scores_stand_on_tokens(db):
    tokenizer = make_tokenizer(conversations(0, 50), 400)
    text = f"算一算 🙂\n```sql\n{RIGHT}\n```"
    ids = tokenizer(text).input_ids
    result = score(text, db, fence=False)
    rewards = place(tokenizer, ids, result["score"], result["steps"])
    assert sum(rewards) == pytest.approx(1.2) and rewards[-1] == 1.0
    ends = [
        len(tokenizer.decode(ids[: at + 1])) for at, reward in enumerate(rewards[:-1]) if reward
    ]
    assert [text[:end] for end in ends] == [text[:end] for _, end, _ in result["steps"]]


def test_command_line(tmp_path, db):
    file, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    row = {"response": f"```sql\n{WRONG}\n```", "ground_truth": REFERENCE, "db": db}
    file.write_text(json.dumps(row) + "\n")

    def run(*arguments):
        command = [sys.executable, "-m", "rewards", "sql_process", *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)

    done = run("--file", file, "--set", "step_cap=0.1", "shaping=sql_r1", "--out", out)
    assert done.returncode == 0, done.stderr
    steps = json.loads(out.read_text())["result"]["steps"]
    assert [score for *_, score in steps] == pytest.approx([0.3, 0.3])
    done = run("--file", file, "--set", "step_cap=0.95")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "step_cap" in done.stderr
    done = run("--help")
    assert "step_cap=0.2" in done.stdout and "timeout_s=2.0" in done.stdout
    assert "mode=" in done.stdout and "options=" not in done.stdout
