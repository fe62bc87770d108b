"""tools.evaluate: what it reads, how it scores, what it writes, and how it goes on."""

import csv
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import combinations
from pathlib import Path
from statistics import fmean

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chat_server import ChatServer
from helpers import ROOT
from hypothesis import given
from hypothesis import strategies as st

from preflight import resolvers
from preflight.mistakes import Mistake
from preflight.subject import Subject
from tools import evaluate, guarded
from tools._evaluate import settings, write
from tools._evaluate.rows import Columns, rows_of
from tools._evaluate.scoring import Scorer
from tools._evaluate.store import FIXED, Store
from tools._evaluate.summary import Moments, majority, of_several, pass_at, summarize
from tools._models.engine import Answer

pytestmark = pytest.mark.usefixtures("own_hydra")
REWARD = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None, bonus=0.0):
    if ground_truth == "ungraded":
        return {"score": float("nan"), "acc": float("nan"), "kind": "none"}
    right = len(solution_str) % 2 == 0
    return {"score": right + bonus, "acc": float(right), "kind": "even" if right else "odd", "answer": "taken"}
"""
ROWS = [
    {"prompt": "=1+1 <b>one</b>", "ground_truth": "=2", "level": 1},
    {"prompt": [{"role": "system", "content": "be short"}, {"role": "user", "content": "two"}],
     "ground_truth": ["a", "b"], "level": 2},
    {"prompt": "三", "ground_truth": "ungraded", "level": 1},
]  # fmt: skip


@pytest.fixture
def questions(tmp_path) -> Path:
    file = tmp_path / "questions.json"
    file.write_text(json.dumps(ROWS))
    return file


@pytest.fixture
def reward(tmp_path) -> str:
    file = tmp_path / "even.py"
    file.write_text(REWARD)
    return f"reward={file}"


@pytest.fixture
def ask(tiny_model, questions, reward, tmp_path, capsys):
    """`ask(*words, output="r.jsonl")` → exit status, screen, answers."""

    def run(*words, output="r.jsonl", model=tiny_model, file=questions, score=reward):
        place = tmp_path / output
        given = [str(model), "--input", str(file), "--output", str(place), "--engine", "transformers",
                 "--max-tokens", "6", "hw=cpu", *([score] if score else []), *words]  # fmt: skip
        code = evaluate.main(given)
        out = capsys.readouterr()
        if len(place.name) > 200:
            return code, out, []
        store = (
            place if place.suffix == ".jsonl" else place.with_name(f"{place.stem}.answers.jsonl")
        )
        lines = store.read_text().splitlines() if store.is_file() else []
        return code, out, [json.loads(line) for line in lines]

    return run


def test_every_answer_has_its_score_and_its_row(ask):
    code, out, lines = ask("--n", "3", "--by", "level")
    assert code == 0, out.err
    assert sorted((line["row"], line["sample"]) for line in lines) == [
        (r, s) for r in range(3) for s in range(3)
    ]
    for line in lines:
        assert line["ground_truth"] == ROWS[line["row"]]["ground_truth"]
        assert line["level"] == ROWS[line["row"]]["level"]
        right = float(len(line["answer"]) % 2 == 0)
        assert line["acc"] == (None if line["row"] == 2 else right)
        assert 0 < line["tokens"] <= 6 and line["finish"] in ("stop", "length")
    assert len({line["answer"] for line in lines}) > 3  # they are drawn
    known = json.loads(Path(out.out.split()[-1]).with_suffix(".settings.json").read_text())
    figures = known["summary"][lines[0]["model"]]
    graded = [line["acc"] for line in lines if line["acc"] is not None]
    assert figures["all"]["means"]["acc"]["mean"] == pytest.approx(fmean(graded))
    assert figures["all"]["ungraded"] == 3 and figures["level=1"]["questions"] == 2
    assert "could not be graded" in out.out and "pass@2" in out.out
    # a part that has the name of a column of ours gets the reward's name before it
    assert {line.get("even/answer") for line in lines} == {"taken", None}


def test_without_a_reward_answers_only(ask):
    code, _, lines = ask(score=None)
    assert code == 0 and len(lines) == 3
    assert set(lines[0]) - set(FIXED) == {"level"}


def test_two_rewards_have_their_own_columns_and_options(ask, reward):
    name = reward.partition("=")[2]
    code, out, lines = ask(f"{name}:lab.reward.bonus=1", score=f"{reward},length")
    assert code == 0, out.err
    for line in lines:
        if line["row"] == 2:
            continue  # could not be graded
        assert line["even/score"] == line["even/acc"] + 1
        assert "length/score" in line and "score" not in line


def test_a_seed_belongs_to_an_answer(ask):
    """What else is asked, and in how many starts, changes nothing."""
    _, _, whole = ask("--n", "2", output="a.jsonl")
    ask("--n", "2", "--rows", "1", output="b.jsonl")
    code, out, parts = ask("--n", "2", output="b.jsonl")
    assert code == 0 and "1 questions are answered already" in out.err

    def texts(lines):
        return {(line["row"], line["sample"]): line["answer"] for line in lines}

    assert texts(whole) == texts(parts)
    assert len(parts) == 6


def test_a_killed_evaluation_goes_on(ask, tmp_path):
    """Half of a question, and half of a line, are asked anew; what is whole is not."""
    _, _, whole = ask("--n", "2")
    file = tmp_path / "r.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    marked = json.dumps(json.loads(lines[0]) | {"answer": "kept"}) + "\n"
    for left in ([marked, lines[1], lines[2]], [marked, lines[1], lines[2], lines[3][:20]]):
        file.write_text("".join(left))
        code, _, after = ask("--n", "2")
        assert code == 0
        assert sorted((a["row"], a["sample"]) for a in after) == sorted(
            (a["row"], a["sample"]) for a in whole
        )
        assert [a["answer"] for a in after].count("kept") == 1


def test_kill_9_and_the_same_command(tiny_model, tmp_path):
    rows = [{"prompt": f"question {i}"} for i in range(1500)]
    (tmp_path / "many.json").write_text(json.dumps(rows))
    command = [sys.executable, "-m", "tools.evaluate", str(tiny_model), "--input", str(tmp_path / "many.json"),
               "--output", str(tmp_path / "out.csv"), "--engine", "transformers", "--max-tokens", "3",
               "hw=cpu"]  # fmt: skip
    store = tmp_path / "out.answers.jsonl"
    first = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while first.poll() is None and not (store.is_file() and store.stat().st_size):
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    before = [
        json.loads(line)
        for line in store.read_text().splitlines(keepends=True)
        if line.endswith("\n")
    ]
    assert 0 < len(before) < 1500
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = [json.loads(line) for line in store.open()]
    assert after[: len(before)] == before
    assert sorted(line["row"] for line in after) == list(range(1500))
    with open(tmp_path / "out.csv", encoding="utf-8-sig", newline="") as file:
        assert [row["row"] for row in csv.DictReader(file)] == [str(i) for i in range(1500)]


def test_a_folder_with_a_slash_at_its_end_is_the_same_model(ask, tiny_model):
    _, _, before = ask()
    assert ask(model=f"{tiny_model}/")[2] == before
    assert "named twice" in ask(f"{tiny_model}/")[1].err


def test_other_settings_do_not_mix(ask, tmp_path):
    _, _, before = ask()
    code, out, after = ask("--seed", "1")
    assert code == 2 and "seed was 0, is 1" in out.err and "--force" in out.err
    assert after == before
    assert ", is exact. Another --output" in ask(score="reward=exact")[1].err
    code, _, anew = ask("--seed", "1", "--force")
    assert code == 0 and len(anew) == 3
    (tmp_path / "mine.xlsx").write_text("a file of mine")
    code, out, _ = ask(output="mine.xlsx")
    assert code == 2 and (tmp_path / "mine.xlsx").read_text() == "a file of mine"


def test_an_edited_reward_does_not_mix(ask, reward):
    _, _, before = ask("--rows", "1")
    file = Path(reward.partition("=")[2])
    file.write_text(file.read_text().replace("right + bonus", "right - bonus"))
    code, out, after = ask()
    assert code == 2 and "rewards was" in out.err and after == before


def test_one_more_model_joins(ask, tiny_model, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for file in Path(tiny_model).iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    ask(output="two.csv")
    code, out, lines = ask(str(other), output="two.csv")
    assert code == 0, out.err
    assert Counter(line["model"] for line in lines) == {str(tiny_model): 3, str(other): 3}
    with open(tmp_path / "two.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["model"], r["row"]) for r in rows] == [
        (m, str(i)) for m in (str(tiny_model), str(other)) for i in range(3)
    ]


def test_spreadsheets_run_nothing(ask, tmp_path):
    assert ask(output="t.xlsx")[0] == 0
    book = openpyxl.load_workbook(tmp_path / "t.xlsx")
    assert book.sheetnames == ["answers", "summary", "settings"]
    heads, *rows = book["answers"].iter_rows()
    at = {cell.value: i for i, cell in enumerate(heads)}
    assert (
        rows[0][at["prompt"]].value == "=1+1 <b>one</b>" and rows[0][at["prompt"]].data_type == "s"
    )
    assert (
        rows[0][at["ground_truth"]].value == "=2" and rows[0][at["ground_truth"]].data_type == "s"
    )
    assert "[system] be short" in rows[1][at["prompt"]].value
    assert isinstance(rows[0][at["acc"]].value, int | float) and rows[2][at["acc"]].value is None
    assert rows[0][at["answer"]].alignment.wrap_text
    assert any(
        row[0].value == "acc" and isinstance(row[1].value, int | float)
        for row in book["summary"].iter_rows()
    )
    assert ask(output="t.csv")[0] == 0
    with open(tmp_path / "t.csv", encoding="utf-8-sig", newline="") as file:
        first = next(csv.DictReader(file))
    assert first["prompt"] == "'=1+1 <b>one</b>" and first["ground_truth"] == "'=2"


def test_a_page_shows_text_and_parquet_has_numbers(ask, tmp_path):
    assert ask(output="t.html")[0] == 0
    page = (tmp_path / "t.html").read_text()
    assert "&lt;b&gt;one&lt;/b&gt;" in page and "<b>one</b>" not in page and "三" in page
    assert ask(output="t.parquet")[0] == 0
    table = pq.read_table(tmp_path / "t.parquet")
    assert table.num_rows == 3
    assert (
        table.schema.field("acc").type == pa.float64()
        and table.schema.field("row").type == pa.int64()
    )
    assert table.column("ground_truth").to_pylist() == ["=2", '["a", "b"]', "ungraded"]


@pytest.mark.parametrize(
    "words, told",
    [
        (["--n", "2", "--temperature", "0"], "2 equal answers"),
        (["reward=exac"], "Did you mean exact?"),
        (["reward=exact", "lab.reward.ignore_cas=true"], "ignore_cas"),
        (["reward=nowhere/r.py"], "no reward file nowhere/r.py"),
        (["format:lab.reward.x=1"], "unknown reward"),
        (["--prompt", "question"], "Its columns: prompt, ground_truth, level"),
        (["--truth", "answer"], "no column answer"),
        (["--by", "db_id"], "--by db_id: no such column"),
        (["--template", "nope"], "no template nope"),
        (["dataset=nope"], "unknown dataset= 'nope'"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(ask, words, told):
    code, out, _ = ask(
        *words, score=None if any(w.startswith("reward") for w in words) else "reward=length"
    )
    assert code == 2
    assert told in out.err.splitlines()[-1] or told in out.err.splitlines()[-2], out.err
    assert "Traceback" not in out.err


@pytest.mark.parametrize("output", ["r.doc", "no/such/" + "x" * 300 + ".jsonl"])
def test_an_output_that_nobody_can_write(ask, output):
    code, out, _ = ask(output=output)
    assert code == 2 and "error:" in out.err and "Traceback" not in out.err


def test_an_output_does_not_take_the_place_of_the_questions(ask, questions, tmp_path):
    before = questions.read_text()
    for name, output in (("r.answers.jsonl", "r.xlsx"), ("r.jsonl", "r.jsonl")):
        file = tmp_path / name
        file.write_text(before)
        code, out, _ = ask("--force", file=file, output=output)
        assert code == 2 and "take the place of the questions" in out.err
        assert file.read_text() == before
    (tmp_path / "folder.jsonl").mkdir()
    code, out, _ = ask(output="folder.jsonl")
    assert code == 2 and "is a folder" in out.err


ODD = [
    "\x00\x1b[31m", "😀" * 20000, "x" * 40000, "=cmd|' /C calc'!A0", "\uffff\ufffe", "\ud83d", "a\r\nb",
    "\u202e</script>",
]  # fmt: skip
ODD_REWARD = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    nested = [{"x": float("nan")}]
    return {"score": 1, "big": 10**30, "huge": 10**400, "nested": nested, "kind": solution_str[:9], "=h": "\\ud800"}
"""


def test_odd_answers_in_every_kind_of_file(tmp_path):
    file = tmp_path / "odd.py"
    file.write_text(ODD_REWARD)
    view = store_of(tmp_path / "r.jsonl", ODD, file)
    for kind in (".xlsx", ".csv", ".parquet", ".html"):
        view.store.output = tmp_path / f"r{kind}"
        write.write(view)
    book = openpyxl.load_workbook(tmp_path / "r.xlsx")
    cells = [cell for row in book["answers"].iter_rows(min_row=2) for cell in row]
    texts = [cell.value for cell in cells if isinstance(cell.value, str)]
    assert not [cell for cell in cells if cell.data_type in "fe"]
    assert max(len(text.encode("utf-16-le")) for text in texts) <= 2 * 32767
    with open(tmp_path / "r.csv", encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(ODD) and rows[3]["answer"] == f"'{ODD[3]}" and "'=h" in rows[0]
    table = pq.read_table(tmp_path / "r.parquet").to_pylist()
    assert [row["answer"] for row in table] == [text.replace("\ud83d", "?") for text in ODD]
    assert "NaN" not in view.store.file.read_text()


def store_of(file: Path, answers: list[str], reward: Path) -> write.View:
    """A view of stored answers, scored by a reward without options."""
    resolvers.register()
    said = settings.Reward(
        "odd", Subject(settings.compose(["hw=cpu", *settings.reward_words(str(reward))]))
    )
    store = Store(file, {"models": {"m": ""}, "n": 1})
    scorer = Scorer([said], store.add)
    for row in rows_of([questions_file(file.with_suffix(".in"), answers)], Columns()):
        scorer.add("m", row, [Answer(answers[row.number], 1, "stop")])
    scorer.finish()
    scorer.close()
    store.close()
    return write.View(
        store,
        write.columns_of(store),
        [write.Table("=t", ["", "=h"], [["\uffff", 10**30]])],
        {"s": ODD[1]},
    )


def questions_file(file: Path, answers: list[str]) -> Path:
    file.write_text(
        "".join(json.dumps({"prompt": "q", "n": i}) + "\n" for i in range(len(answers)))
    )
    return file


def test_a_reward_that_raises_is_told_and_answers_are_kept(ask, tmp_path):
    (tmp_path / "bad.py").write_text("def compute_score(data_source, solution_str, ground_truth, extra_info=None):\n"
                                     "    return oops\n")  # fmt: skip
    code, out, _ = ask(score=f"reward={tmp_path / 'bad.py'}")
    assert code == 2 and "NameError: name 'oops' is not defined" in out.err


def test_a_server_that_fails_keeps_what_it_has_answered(questions, tmp_path, capsys, monkeypatch):
    """Behind the first answers it says 500 for good; up again, the rest is asked, and nothing twice."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    with ChatServer("even") as server:
        given = [
            server.url,
            "--input",
            str(questions),
            "--output",
            str(tmp_path / "s.csv"),
            "hw=cpu",
            "reward=length",
        ]
        assert evaluate.main([*given, "--rows", "2"]) == 0
        assert len(server.payloads) == 2
        server.status = 500
        assert evaluate.main(given) == 2
        told = capsys.readouterr().err
        assert (
            "500" in told
            and "the same command goes on from there" in told
            and "Traceback" not in told
        )
        server.status = 200
        asked = len(server.payloads)
        assert evaluate.main(given) == 0
        assert [p["messages"][-1]["content"] for p in server.payloads[asked:]] == ["三"]
        assert len({p["seed"] for p in server.payloads}) == 3
    with open(tmp_path / "s.csv", encoding="utf-8-sig", newline="") as file:
        assert [row["answer"] for row in csv.DictReader(file)] == ["even"] * 3


def test_files_of_all_kinds(tmp_path):
    rows = [
        {"question": "a", "answer": "1", "db_id": "x"},
        {"question": "b", "answer": "2", "db_id": "y"},
    ]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "q.csv").write_text("question,answer,db_id\na,1,x\nb,2,y\n")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "q.parquet")
    found = [
        list(rows_of([tmp_path / f"q.{kind}"], Columns())) for kind in ("jsonl", "csv", "parquet")
    ]
    assert found[0] == found[1] == found[2]
    assert found[0][1].messages == [{"role": "user", "content": "b"}]
    assert found[0][1].truth == "2" and found[0][1].columns == {"db_id": "y"}


def test_rows_of_verl_and_of_sft(tmp_path):
    verl = {"data_source": "s", "prompt": [{"role": "user", "content": "q"}],
            "reward_model": {"ground_truth": "g"}, "extra_info": {"db": "x" * 9, "level": 3}}  # fmt: skip
    sft = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "g"}]}
    alpaca = {"instruction": "do", "input": "this", "output": "g"}
    for row, prompt in ((verl, "q"), (sft, "q"), (alpaca, "do\n\nthis")):
        (tmp_path / "r.jsonl").write_text(json.dumps(row) + "\n")
        (one,) = rows_of([tmp_path / "r.jsonl"], Columns(system="sys"))
        assert one.messages == [
            {"role": "system", "content": "sys"},
            {"role": "user", "content": prompt},
        ]
        assert one.truth == "g"
    (tmp_path / "r.jsonl").write_text(json.dumps(verl) + "\n")
    (one,) = rows_of([tmp_path / "r.jsonl"], Columns())
    assert (
        one.source == "s"
        and one.info["db"] == "x" * 9
        and one.columns == {"data_source": "s", "level": 3}
    )


@pytest.mark.parametrize(
    "row", ["{", '{"prompt": 3}', '{"prompt": [{"role": "user"}]}', '{"x": "y"}', '{"prompt": ""}']
)
def test_a_row_that_cannot_be_asked(tmp_path, row):
    (tmp_path / "r.jsonl").write_text('{"prompt": "good"}\n' + row + "\n")
    (tmp_path / "first.jsonl").write_text('{"prompt": "good"}\n' * 3)
    with pytest.raises(Mistake, match=r"r.jsonl, row 1 \(from 0\)"):
        list(rows_of([tmp_path / "first.jsonl", tmp_path / "r.jsonl"], Columns()))


@pytest.mark.parametrize("raw", [b'{"prompt": "caf\xe9"}', b'{"prompt": "a", "x": ["\\ud800"]}'])
def test_text_that_is_not_utf_8(tmp_path, raw):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"prompt": "a"}\n' + raw)
    with pytest.raises(Mistake, match=r"row 1 \(from 0\): its text is not UTF-8"):
        list(rows_of([file], Columns()))


@pytest.mark.parametrize("name", ["my (own) reward", "it's", "a=b", "inf"])
def test_a_reward_in_a_folder_of_any_name(tmp_path, name):
    resolvers.register()
    file = tmp_path / name / "r.py"
    file.parent.mkdir()
    file.write_text(
        "def inf(data_source, solution_str, ground_truth, extra_info=None):\n    return 1.0\n"
    )
    [reward] = settings.rewards_of(settings.sorted_words(["hw=cpu", f"reward={file}:inf"]))
    assert (reward.subject.path, reward.subject.name) == (str(file), "inf")


def test_ctrl_c_is_no_traceback(capsys):
    def stopped():
        raise KeyboardInterrupt

    assert guarded(stopped) == 130 and capsys.readouterr().err == "stopped\n"


def test_a_csv_with_semicolons(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text('\ufeffprompt;ground_truth\n"a; b, c";1\n', encoding="utf-8")
    [row] = rows_of([file], Columns())
    assert (row.messages[0]["content"], row.truth) == ("a; b, c", "1")


def test_ground_truths_of_every_type_are_kept(tmp_path):
    from datetime import UTC, datetime
    from decimal import Decimal

    for number, truth in enumerate(
        [Decimal("1.5"), datetime(2020, 1, 1, tzinfo=UTC), b"ab", float("nan"), [1.0]]
    ):
        file = tmp_path / f"{number}.parquet"
        pq.write_table(pa.table({"prompt": ["a"], "ground_truth": [truth]}), file)
        [row] = rows_of([file], Columns())
        store = Store(tmp_path / f"{number}.jsonl", {"models": {"m": ""}, "n": 1})
        store.add([Scorer.line("m", row, 0, Answer("a", 1, "stop"), {})], [])
        store.close()
        [[line]] = store.questions()
        assert line["ground_truth"] == {3: None, 4: [1.0]}.get(number, str(truth))


def test_a_million_rows_take_little_memory(tmp_path):
    """Of stored answers only places are held: in a process of its own, to see its peak."""
    program = f"""
import json, resource
from pathlib import Path
from tools._evaluate.store import Store
from tools._models.engine import Answer
from tools._evaluate.summary import summarize
file = Path({str(tmp_path / "big.jsonl")!r})
settings = {{"models": {{"m": "x"}}, "n": 1}}
store = Store(file, settings)
store.add([{{"model": "m", "row": 0, "sample": 0, "prompt": "p", "answer": "a" * 200, "ground_truth": None,
            "finish": "stop", "tokens": 1, "score": 1.0}}], [])
store.close()
line = json.loads(file.read_text())
with open(file, "w") as out:
    for i in range(100_000):
        out.write(json.dumps(line | {{"row": i}}) + "\\n")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
store = Store(file, settings)
assert store.rows == 100_000
found = summarize(store.questions(), ["r"], [], [])
print(found["m"]["all"].questions, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    questions, mib = map(float, done.stdout.split())
    assert questions == 100_000
    assert mib < 25  # the file has 33 MB


def lines_of(store: Path, change: str, to: str) -> str:
    text = store.read_text()
    assert change in text
    store.write_text(text.replace(change, to, 1))
    return store.read_text()


@pytest.mark.parametrize(
    ("change", "to"),
    [
        ('{"model"', "{model"),
        ('"sample": 0', '"sample": 1'),
        ('"row": 0', '"row": "x"'),
        ("{", "\n{"),
    ],
)
def test_a_store_that_was_edited_is_left_as_it_is(tmp_path, change, to):
    asked = {"models": {"m": ""}, "n": 1}
    store = Store(tmp_path / "r.jsonl", asked)
    for row in range(3):
        store.add([{"model": "m", "row": row, "sample": 0}], [])
    store.close()
    edited = lines_of(store.file, change, to)
    with pytest.raises(Mistake, match="line 1: not the answer that was written there"):
        Store(store.file, asked)
    assert store.file.read_text() == edited


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_settings_that_are_broken_lose_no_answer(tmp_path, text):
    asked = {"models": {"m": ""}, "n": 1}
    store = Store(tmp_path / "r.xlsx", asked)
    store.add([{"model": "m", "row": 0, "sample": 0}], [])
    store.close()
    store.settings_file.write_text(text)
    with pytest.raises(Mistake, match=r"settings\.json is broken"):
        Store(store.output, asked)
    assert store.file.stat().st_size
    again = Store(store.output, asked, force=True)
    assert not again.rows and not store.file.stat().st_size
    again.close()


@pytest.mark.parametrize("at", ["add", "write"])
def test_a_full_disk_keeps_the_answers(ask, monkeypatch, tmp_path, at):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if at == "write":
            patch.setitem(write.WRITERS, ".csv", full)
        else:
            add = Store.add
            patch.setattr(Store, "add", lambda self, *a: full() if self.rows else add(self, *a))
        code, out, lines = ask(output="r.csv", score=None)
        assert code == 2 and "No space left on device" in out.err and "r.answers.jsonl" in out.err
    assert len(lines) == (3 if at == "write" else 1)
    code, out, lines = ask(output="r.csv", score=None)
    assert code == 0 and len(lines) == 3 and (tmp_path / "r.csv").is_file()


def test_an_empty_file_is_no_other_evaluation(tmp_path):
    (tmp_path / "r.jsonl").touch()
    Store(tmp_path / "r.jsonl", {"models": {}, "n": 1}).close()


def test_one_process_at_a_time_writes(tmp_path):
    asked = {"models": {"m": ""}, "n": 1}
    store = Store(tmp_path / "r.jsonl", asked)
    store.add([{"model": "m", "row": 0, "sample": 0}], [])
    for force in (False, True):
        with pytest.raises(Mistake, match="another process is writing it"):
            Store(store.file, asked, force)
    store.close()
    again = Store(store.file, asked)
    assert again.rows == 1
    again.close()


def test_the_store_keeps_order_and_finds_its_end(tmp_path):
    def line(row, sample):
        return dict.fromkeys(FIXED, "") | {"model": "m", "row": row, "sample": sample}

    settings = {"models": {"m": "1"}, "n": 2}
    store = Store(tmp_path / "s.jsonl", settings)
    for row in (5, 2, 9):
        store.add([line(row, 0), line(row, 1)], ["level"])
    assert [lines[0]["row"] for lines in store.questions()] == [2, 5, 9]
    store.close()
    again = Store(tmp_path / "s.jsonl", settings)
    assert again.columns == ["level"]
    assert [row for row in range(12) if again.has("m", row)] == [2, 5, 9]
    again.close()
    with pytest.raises(Mistake, match="n was 2, is 3"):
        Store(tmp_path / "s.jsonl", settings | {"n": 3})
    with pytest.raises(Mistake, match="models was"):
        Store(tmp_path / "s.jsonl", settings | {"models": {"m": "2"}})


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer(right, data):
    k = data.draw(st.integers(1, len(right)))
    subsets = list(combinations(right, k))
    assert pass_at(len(right), sum(right), k) == pytest.approx(fmean(any(s) for s in subsets))


def test_majority_by_hand():
    assert majority([True, False, False], ["a", "b", "b"], 3, 0) == 0
    assert majority([True, False, True], ["a", "b", "a"], 3, 0) == 1
    assert majority([False, True], ["b", "a"], 2, 0) == 0  # of equal ones the first counts
    many = majority([True] * 6 + [False] * 2, ["a"] * 6 + ["b"] * 2, 4, 0)
    # wrong only where both b come before the second a; ties of two are won by whoever is first
    exact = fmean(
        (lambda c: c.most_common(1)[0][0] == "a")(Counter("aaaaaabb"[i] for i in s))
        for s in combinations(range(8), 4)
    )
    assert many == pytest.approx(exact, abs=0.25)


def test_figures_of_several_answers():
    lines = [{"row": 0, "answer": str(i), "score": s, "acc": a} for i, (s, a) in
             enumerate([(1.0, 1.0), (0.1, 0.0), (None, None), (1.0, 1.0)])]  # fmt: skip
    found = of_several(lines)
    assert (
        found["pass@1"] == pytest.approx(2 / 3) and found["pass@2"] == 1 and "pass@4" not in found
    )
    assert of_several(lines[:1]) == {} == of_several([lines[2]] * 2)


def test_moments_against_numpy():
    import numpy as np

    rng = random.Random(0)
    values = [rng.gauss(3, 2) for _ in range(500)]
    moments = Moments()
    for value in values:
        moments.add(value)
    assert moments.mean == pytest.approx(np.mean(values))
    assert moments.margin == pytest.approx(1.96 * np.std(values, ddof=1) / math.sqrt(500))


def test_a_column_with_the_name_of_a_part_is_no_score():
    lines = [{"model": "m", "row": 0, "sample": i, "answer": str(i), "finish": "stop", "tokens": 1, "acc": 0,
              "score": 0, "exact/score": 1.0, "exact/acc": 1.0} for i in range(2)]  # fmt: skip
    means = summarize([lines], ["exact"], ["acc"], ["acc", "score"])["m"]["all"].means
    assert {name: mean.mean for name, mean in means.items()} == {
        "exact/score": 1, "exact/acc": 1, "pass@1": 1, "pass@2": 1, "maj@2": 1,
    }  # fmt: skip


def test_categories():
    def line(row, acc, level):
        return [
            dict.fromkeys(FIXED, "")
            | {"model": "m", "row": row, "tokens": 1, "acc": acc, "level": level}
        ]

    found = summarize(
        [line(0, 1.0, "x"), line(1, 0.0, "x"), line(2, 1.0, "y")], ["r"], ["level"], ["level"]
    )["m"]
    assert found["all"].means["acc"].mean == pytest.approx(2 / 3)
    assert found["level=x"].means["acc"].mean == 0.5 and found["level=y"].questions == 1
    assert "level" not in found["all"].means
