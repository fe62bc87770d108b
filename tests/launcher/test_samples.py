"""lab.show_samples: a few answers of a step on the screen."""

import json
import os
import time

import pytest

from launcher.progress import Progress
from launcher.samples import Samples, shown


def rows(scores, **parts):
    return [
        {"input": "system\nbe short\nuser\nschema\nWhich one?\nassistant\n", "output": f"```sql\nSELECT {i}\n```",
         "gts": "x", "score": score, "step": 5, **parts, "uid": f"abc_{i}_0"}
        for i, score in enumerate(scores)
    ]  # fmt: skip


def write(folder, step, answers):
    (folder / "rollouts").mkdir(exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in answers)
    (folder / f"rollouts/{step}.jsonl").write_text(text)


def step(folder, number):
    line = {"step": number, "data": {"critic/score/mean": 0.5, "training/global_step": number}}
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")


def test_best_middle_and_worst_of_a_group():
    answers = rows([0.25, 1.0, 0.5, 0.0], acc=1.0, outcome="match", rows=3.0, more=1.0)
    head, *lines = shown(5, answers, 120)
    assert head.strip() == "step 5: Which one?"
    assert [line.split()[:4] for line in lines] == [
        ["best", "1.000", "SELECT", "1"],
        ["middle", "0.250", "SELECT", "0"],
        ["worst", "0.000", "SELECT", "3"],
    ]
    assert lines[0].endswith("[acc=1, outcome=match, rows=3]")


def test_answers_of_two_prompts_are_never_mixed():
    answers = rows([0.0, 0.1]) + [
        row | {"uid": f"other_{i}_0"} for i, row in enumerate(rows([5.0, 6.0]))
    ]
    for number in range(1, 20):
        scores = {float(line.split()[1]) for line in shown(number, answers, 120)[1:]}
        assert scores in ({0.0, 0.1}, {5.0, 6.0})
    assert {shown(n, answers, 120)[1].split()[1] for n in range(1, 20)} == {"0.100", "6.000"}


def test_a_long_answer_and_one_that_moves_the_cursor():
    wild = [row | {"output": "\x1b[2Jgone\r\n" + "x" * 500} for row in rows([1.0, 0.5, 0.0])]
    for line in shown(1, wild, 80):
        assert len(line) <= 80 and line.isprintable()


@pytest.mark.parametrize("score", [None, 0.0])
def test_a_masked_answer_has_no_score(score):
    answers = [*rows([1.0, 0.5]), rows([score], masked=1.0)[0]]
    assert shown(1, answers, 100)[-1].split()[:2] == ["worst", "masked"]


def test_nothing_is_shown_without_answers():
    assert shown(1, [], 80) == []


def test_a_run_shows_every_second_step(tmp_path, capsys):
    progress = Progress(tmp_path, "rl", 4, show_samples=2)
    for number in (1, 2, 3):
        write(tmp_path, number, rows([1.0, 0.0]))
        step(tmp_path, number)
    progress()
    out = capsys.readouterr().out
    assert "step 2: Which one?" in out and "step 1:" not in out and "step 3:" not in out


def test_never_by_default(tmp_path, capsys):
    progress = Progress(tmp_path, "rl", 4)
    write(tmp_path, 2, rows([1.0, 0.0]))
    step(tmp_path, 2)
    progress()
    assert "Which one?" not in capsys.readouterr().out


def test_answers_that_come_after_the_metrics_and_in_two_halves(tmp_path, capsys):
    progress = Progress(tmp_path, "rl", 4, show_samples=1)
    step(tmp_path, 1)
    progress()
    write(tmp_path, 1, rows([1.0, 0.0]))
    whole = (tmp_path / "rollouts/1.jsonl").read_text()
    (tmp_path / "rollouts/1.jsonl").write_text(whole[:-40])
    progress()
    assert "Which one?" not in capsys.readouterr().out
    (tmp_path / "rollouts/1.jsonl").write_text(whole)
    progress()
    progress()
    assert capsys.readouterr().out.count("Which one?") == 1


def test_a_resumed_run_shows_its_own_answers(tmp_path):
    write(tmp_path, 3, rows([0.0, 0.0]))
    past = time.time() - 100
    os.utime(tmp_path / "rollouts/3.jsonl", (past, past))
    samples = Samples(tmp_path, 3)
    samples.made(3)
    assert samples.lines() == []
    write(tmp_path, 3, rows([1.0, 0.5]))
    assert samples.lines()[1].split()[:2] == ["best", "1.000"]
