"""Comparisons: the statistics by simulation and by hand, the readers, the page."""

import csv
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from preflight.mistakes import Mistake
from tools._compare import statistics
from tools._compare.arguments import is_setting, labels, understood
from tools._compare.figures import Options, compare
from tools._compare.reading import read
from tools.compare import main

SIMULATIONS = 2000  # a share of 5 % has a standard error of 0.5 %
RESAMPLES = 1500
TOLERANCE = 0.02


# --- statistics


def simulated(clusters: int, size: int, shift: float = 0.0, within: float = 0.7):
    """Differences of right or wrong (-1, 0, 1) of many comparisons, (Q, simulations), and the cluster of each row."""
    rng = np.random.default_rng(20)
    sizes = rng.integers(1, 2 * size, clusters) if size > 1 else np.ones(clusters, int)
    labels = np.repeat(np.arange(clusters), sizes)
    common = rng.normal(size=(clusters, SIMULATIONS))[labels] * (within if size > 1 else 0)
    latent = common + rng.normal(size=(len(labels), SIMULATIONS)) + shift
    return np.where(latent > 1, 1.0, np.where(latent < -1, -1.0, 0.0)), labels


def intervals(differences, labels):
    sums, counts = statistics.clustered(differences, labels)
    means = statistics.resampled_means(sums, counts, resamples=RESAMPLES)
    low, high = statistics.interval(means, len(counts))
    return low, high, statistics.p_value(means, len(counts))


@pytest.mark.parametrize("shift", [0.0, 0.4])
@pytest.mark.parametrize(("clusters", "size"), [(200, 1), (40, 1), (20, 10), (40, 5)])
def test_the_interval_covers_the_truth(clusters, size, shift):
    differences, labels = simulated(clusters, size, shift)
    variance = 1 + (0.7**2 if size > 1 else 0)
    scale = np.sqrt(variance)
    truth = stats.norm.sf((1 - shift) / scale) - stats.norm.cdf((-1 - shift) / scale)
    low, high, p = intervals(differences, labels)
    assert abs(((low <= truth) & (truth <= high)).mean() - 0.95) <= TOLERANCE
    if shift == 0:
        assert abs((p < 0.05).mean() - 0.05) <= TOLERANCE
        assert abs(((low > 0) | (high < 0)).mean() - 0.05) <= TOLERANCE


def test_without_its_clusters_an_interval_is_too_short():
    """What clusters are for: taken as independent, the same rows give false alarms."""
    differences, labels = simulated(20, 10)
    _, _, p = intervals(differences, np.arange(len(labels)))
    assert (p < 0.05).mean() > 0.05 + 2 * TOLERANCE


def test_false_alarms_of_mcnemar():
    rng = np.random.default_rng(5)
    found = []
    for changed in rng.binomial(256, 0.2, SIMULATIONS):
        won = int(rng.binomial(changed, 0.5))
        found.append(statistics.mcnemar(won, int(changed) - won) < 0.05)
    assert 0.01 < np.mean(found) <= 0.05 + TOLERANCE  # exact: never more than 5 %


def test_the_smallest_difference_is_seen_in_four_of_five():
    """Of comparisons whose true difference is the smallest visible one."""
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(256, SIMULATIONS))
    smallest = statistics.smallest(1 / 16, 256)
    low, high, _ = intervals(noise + smallest, None)
    assert abs(((low > 0) | (high < 0)).mean() - 0.8) < 0.04


def test_mcnemar_by_hand():
    assert statistics.mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 2**10)
    assert statistics.mcnemar(0, 5) == pytest.approx(2 / 2**5)
    assert statistics.mcnemar(4, 4) == statistics.mcnemar(0, 0) == 1
    for won, lost in ((3, 108), (57, 40), (1, 1), (0, 1)):
        known = stats.binomtest(won, won + lost).pvalue
        assert statistics.mcnemar(won, lost) == pytest.approx(known, rel=1e-9)


def test_standard_errors_by_hand():
    values = np.array([1.0, 0.0, 1.0, 1.0])
    # sums of clusters 1 and 2, expected 1.5 each: sqrt(2/1 · (0.25 + 0.25)) / 4
    assert statistics.estimate(values, np.array(list("aabb"))).error == pytest.approx(0.25)
    assert statistics.estimate(values).error == pytest.approx(values.std(ddof=1) / 2)


def test_a_single_cluster_says_nothing():
    one = statistics.estimate(np.array([1.0, 2.0]), np.array(["a", "a"]))
    assert one.value == 1.5 and np.isnan([one.low, one.high, one.error, one.smallest]).all()
    assert one.p == 1 and not one.apart


def test_the_interval_agrees_with_scipys():
    values = np.random.default_rng(1).exponential(size=400)
    ours = statistics.estimate(values)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", rng=2).confidence_interval
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=0.01)


def test_holm_by_hand():
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.6, 0.5]) == [1, 1]


def test_iqm_by_hand():
    assert statistics.iqm(np.arange(8.0)) == 3.5  # of 2, 3, 4, 5
    assert statistics.iqm(np.array([0, 0, 0, 100.0])) == 0  # one lucky seed is no progress


def test_seeds_are_drawn_within_each_task():
    """A task that is the same in all seeds has no spread, however far apart the tasks are."""
    scores = np.array([[0.0, 1.0]] * 4)
    one = statistics.seeds_estimate(scores)
    assert (one.value, one.low, one.high) == (0.5, 0.5, 0.5)
    better = statistics.seeds_estimate(scores + 0.1, scores)
    assert better.value == pytest.approx(0.1) and better.apart


# --- files


def rows(scores, model="m", **columns):
    """An evaluation: a score of 0 or 1 for each question; None: not graded."""
    return [
        {"model": model, "row": i, "sample": 0, "prompt": f"How many {i}?", "answer": f"{model} says {i}",
         "ground_truth": str(i), "finish": "stop", "tokens": 5 + i % 3,
         **{name: values[i] for name, values in columns.items()},
         "score": s, "acc": s, "outcome": "match" if s else "mismatch"}
        for i, s in enumerate(scores)
    ]  # fmt: skip


def write(file, lines):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(file)


def validation(run, step, scores):
    lines = [{"input": f"user\nHow many {i}?\nassistant\n", "output": f"{s}", "gts": str(i), "score": s, "acc": s,
              "step": step, "uid": f"u{i}", "reward": s} for i, s in enumerate(scores)]  # fmt: skip
    write(run / f"validation/{step}.jsonl", lines)
    return str(run)


@pytest.fixture
def sides(tmp_path):
    """60 questions; the second is right in 20 more, and wrong in 2 that the first knew."""
    old = [float(i < 20) for i in range(60)]
    new = [float(i < 40 and i not in (3, 4)) for i in range(60)]
    db = [f"db{i % 12}" for i in range(60)]
    one = write(tmp_path / "old.jsonl", rows(old, "old", db_id=db))
    two = write(tmp_path / "new.jsonl", rows(new, "new", db_id=db))
    return one, two, tmp_path / "out"


def compared(*words, options=Options()):  # noqa: B008 # it is immutable
    found = [side for some in understood([str(word) for word in words]).sides for side in some]
    return compare(found, labels(found), options)


def test_two_evaluations(sides, capsys):
    one, two, out = sides
    assert main([one, two, "--out", str(out)]) == 0
    told = capsys.readouterr().out
    pair = compared(one, two).compared[0]
    assert (pair.won, pair.lost, pair.same) == (20, 2, 38)
    assert pair.difference.value == pytest.approx(18 / 60)
    assert pair.mcnemar == pytest.approx(stats.binomtest(2, 22).pvalue)
    d = pair.difference
    assert f"new is better by 0.300 ({d.low:.3f} to {d.high:.3f})" in told
    assert "won by new against old: 20 questions" in told and "lost by new against old: 2" in told
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")
    figures = json.loads((out / "compare.json").read_text())
    assert figures["pairs"][0]["won"] == 20 and figures["questions"] == 60
    assert main([one, two, "--out", str(out)]) == 0  # its own folder: again


def test_the_order_of_the_sides_and_the_same_side_twice(sides):
    one, two, _ = sides
    assert compared(two, one).verdicts == compared(one, two).verdicts
    same = compared(one, one)
    assert (
        "old.jsonl" not in same.verdicts[0]
        and "the same right answers in all of these 60 rows" in same.verdicts[0]
    )


def test_a_side_is_not_compared_with_itself(sides, capsys):
    one, _, out = sides
    assert main([one, one, "--out", str(out)]) == 2 and not out.exists()
    assert (
        capsys.readouterr().err == "error: old is named twice, and would be compared with itself\n"
    )


def test_no_difference_says_what_these_rows_could_show(tmp_path):
    one = write(tmp_path / "a.jsonl", rows([float(i % 2) for i in range(100)], "a"))
    two = write(tmp_path / "b.jsonl", rows([float(i % 2 or i < 6) for i in range(100)], "b"))
    found = compared(one, two)
    small = found.compared[0].difference.smallest
    assert found.verdicts == [
        f"no difference that these 100 rows could show (smallest that they could: {small:.2g})"
    ]


def test_few_changes_need_mcnemars_agreement(tmp_path):
    """Five of 200 changed, all in one direction: a bootstrap interval leaves 0 out, which is chance in 1 of 16."""
    one = write(tmp_path / "a.jsonl", rows([0.0] * 200, "a"))
    two = write(tmp_path / "b.jsonl", rows([float(i < 5) for i in range(200)], "b"))
    found = compared(one, two)
    assert found.compared[0].difference.apart and found.compared[0].mcnemar == pytest.approx(1 / 16)
    assert found.verdicts[0].startswith("no difference") and any(
        "McNemar" in n for n in found.notes
    )


@pytest.mark.parametrize("kind", ["json", "csv", "parquet", "xlsx"])
def test_all_kinds_of_files_say_the_same(sides, tmp_path, kind):
    one, two, _ = sides
    count = len(read(tmp_path / "new.jsonl")[0].rows)
    table = [json.loads(line) for line in Path(two).read_text().splitlines()]
    table[7]["score"] = table[7]["acc"] = None
    write(tmp_path / "new.jsonl", table)
    file = tmp_path / f"new.{kind}"
    if kind == "json":
        file.write_text(json.dumps(table))
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(table), file)
    elif kind == "csv":
        with open(file, "w", newline="") as out:
            writer = csv.DictWriter(out, table[0])
            writer.writeheader()
            writer.writerows(table)
    else:
        file.write_bytes(b"PK")
        write(tmp_path / "new.answers.jsonl", table)
    options = Options(by="db_id")
    here, there = (compared(one, other, options=options) for other in (file, two))
    for what in ("metric", "means", "compared", "categories", "parts"):
        assert getattr(here, what) == getattr(there, what)
    assert len(read(file)[0].rows) == count


def test_a_csv_that_excel_saved(tmp_path):
    """Semicolons, a comma in numbers, an apostrophe before what looks like a formula, whole numbers as categories."""
    table = [
        r | {"prompt": f"=1+{i}", "lev": i % 2} for i, r in enumerate(rows([0.5, 1.0, 0.25] * 9))
    ]
    table = [{k: r[k] for k in sorted(r, key=lambda k: k != "lev")} for r in table]
    write(tmp_path / "a.jsonl", table)
    saved = [
        r | {"prompt": f"'{r['prompt']}", "score": str(r["score"]).replace(".", ",")} for r in table
    ]
    file = tmp_path / "b.csv"
    with open(file, "w", newline="", encoding="utf-8-sig") as out:
        writer = csv.DictWriter(out, table[0], delimiter=";")
        writer.writeheader()
        writer.writerows(saved)
    found = compared(
        str(tmp_path / "a.jsonl"), str(file), options=Options(metric="score", by="lev")
    )
    assert found.pairs.told_by == "prompt and ground truth" and not found.pairs.others
    assert found.compared[0].same == len(table) and [c.name for c in found.categories] == ["0", "1"]
    file.write_bytes(file.read_bytes() + b"caf\xe9")
    with pytest.raises(Mistake, match="not UTF-8"):
        read(file)


@pytest.mark.parametrize("score", ["NaN", "Infinity", "1" + "0" * 400])
def test_what_is_no_number_is_no_score(tmp_path, score):
    table = rows([1.0, 0.0])
    text = "".join(json.dumps(r | {"answer": "\ud800"}) + "\n" for r in table)
    (tmp_path / "a.jsonl").write_text(text.replace('"score": 1.0', f'"score": {score}'))
    [side] = read(tmp_path / "a.jsonl")
    assert side.rows[0].parts["score"] is None and {row.text for row in side.rows} == {"?"}


def test_a_side_that_nobody_could_grade(tmp_path):
    write(tmp_path / "a.jsonl", rows([1.0, 0.0]))
    write(tmp_path / "b.jsonl", [r | {"score": None, "acc": None} for r in rows([1.0, 0.0], "b")])
    with pytest.raises(Mistake, match="no answer of b could be graded"):
        compared(str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl"))


def test_objects_as_ground_truth_and_messages_are_the_same_in_a_table(tmp_path):
    table = rows([1.0, 0.0, 1.0])
    for row in table:
        row["ground_truth"] = {"b": 1, "a": row["row"]}
        row["prompt"] = [
            {"role": "system", "content": "S"},
            {"role": "user", "content": f"Q {row['row']}"},
        ]
    one = write(tmp_path / "a.jsonl", table)
    with open(tmp_path / "b.csv", "w", newline="") as out:
        writer = csv.DictWriter(out, table[0])
        writer.writeheader()
        for row in table:
            cells = {k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in row.items()}
            writer.writerow(cells)
    found = compared(one, tmp_path / "b.csv")
    assert len(found.pairs.keys) == 3 and found.pairs.told_by == "prompt and ground truth"


def test_a_file_with_several_models(tmp_path, capsys):
    scores = [
        [float(i % 3 == 0) for i in range(90)],
        [float(i % 3 != 1) for i in range(90)],
        [1.0] * 90,
    ]
    file = write(
        tmp_path / "all.jsonl", [r for n, s in zip("abc", scores, strict=True) for r in rows(s, n)]
    )
    found = compared(file)
    assert found.names == ["a", "b", "c"]
    assert [(p.first, p.second) for p in found.compared] == [(0, 1), (0, 2)]
    assert all(p.p >= max(p.difference.p, p.mcnemar) for p in found.compared)
    assert "b is better than a by 0.333" in found.verdicts[0]
    assert len(compared(file, options=Options(all_pairs=True)).compared) == 3
    assert main([file, "--out", str(tmp_path / "o"), "--all-pairs"]) == 0
    assert "p by Holm" in capsys.readouterr().out


def test_samples_of_a_question_are_averaged_first(tmp_path):
    """And the number of answers to a question gives it no weight."""
    few, many = rows([1.0, 0.0], "a"), rows([0.0, 1.0], "b")
    more = [many[0] | {"sample": i, "score": 1.0, "acc": 1.0} for i in (1, 2, 3)]
    found = compared(write(tmp_path / "a.jsonl", few), write(tmp_path / "b.jsonl", many + more))
    assert [m.value for m in found.means] == [0.5, (0.75 + 1) / 2]
    assert found.compared[0].mcnemar is None  # neither right nor wrong
    assert found.parts.overall[1].answers == 5 and found.parts.overall[1].within == 0.25


def test_what_is_not_shared_or_not_graded_is_left_out_and_counted(tmp_path):
    one = write(tmp_path / "a.jsonl", rows([1.0, 1.0, None, 0.0, 0.0], "a"))
    two = write(tmp_path / "b.jsonl", rows([1.0, 0.0, 1.0], "b"))
    found = compared(one, two)
    assert len(found.pairs.keys) == 2 and found.pairs.others == 2 and found.pairs.ungraded == 1
    assert [m.value for m in found.means] == [1.0, 0.5]
    assert "2 questions left out" in " ".join(found.notes) and "1 question left out" in " ".join(
        found.notes
    )
    assert [round(o.ungraded, 2) for o in found.parts.overall] == [0.33, 0.0]


def test_a_masked_answer_of_a_run_is_not_wrong(tmp_path):
    """verl's validation notes it with the score 0."""
    run = tmp_path / "grpo"
    for step, scores in ((0, [1.0, 0.0, 0.0, 1.0]), (5, [1.0, 1.0, 0.0, 0.0])):
        validation(run, step, scores)
    file = run / "validation/5.jsonl"
    lines = [json.loads(line) | {"masked": 0.0} for line in file.read_text().splitlines()]
    lines[3]["masked"] = 1.0
    write(file, lines)
    found = compared(run)
    assert found.pairs.ungraded == 1 and found.compared[0].lost == 0
    assert found.parts.overall[1].ungraded == 0.25


def test_clusters_and_categories(sides, capsys):
    one, two, out = sides
    found = compared(one, two, options=Options(by="db_id", cluster="db_id"))
    assert found.compared[0].difference.clusters == 12
    assert [c.questions for c in found.categories] == [5] * 12
    total = sum(c.difference.value * c.questions for c in found.categories) / 60
    assert total == pytest.approx(found.compared[0].difference.value)
    assert main([one, two, "--by", "city", "--out", str(out)]) == 2
    assert "no column 'city'. There is: db_id" in capsys.readouterr().err


def test_a_run_alone_two_runs_and_a_step(tmp_path):
    run = tmp_path / "grpo"
    for step, right in ((0, 5), (5, 10), (10, 30)):
        validation(run, step, [float(i < right) for i in range(40)])
    assert compared(run).names == ["grpo@0", "grpo@10"]
    assert compared(run).compared[0].difference.value == pytest.approx(25 / 40)
    assert compared(f"{run}@0", f"{run}@5").compared[0].difference.value == pytest.approx(5 / 40)
    other = validation(tmp_path / "two/grpo", 10, [1.0] * 40)
    found = compared(run, other)
    assert len(set(found.names)) == 2 and found.names[1] == "two/grpo@10"
    assert compared(f"mine={run}@0", f"yours={other}").names == ["mine", "yours"]


def test_a_validation_and_an_evaluation_of_the_same_questions(tmp_path):
    run = validation(tmp_path / "grpo", 3, [1.0, 0.0, 0.0])
    found = compared(run, write(tmp_path / "e.jsonl", rows([1.0, 1.0, 0.0], "e")))
    assert len(found.pairs.keys) == 3 and found.pairs.told_by == "last message and ground truth"


def test_groups_of_seeds(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name, chance in (("old", 0.3), ("new", 0.6)):
        for seed in range(5):
            validation(
                tmp_path / f"{name}_{seed}", 9, (rng.random(80) < chance).astype(float).tolist()
            )
    words = [f"old={tmp_path}/old_*", f"new={','.join(f'{tmp_path}/new_{i}' for i in range(5))}"]
    found = compared(*words)
    assert found.names == ["old", "new"] and [len(s.seeds) for s in found.sides] == [5, 5]
    assert re.fullmatch(r"new is better by 0\.\d+ \(.*\), over 5 and 5 seeds", found.verdicts[0])
    assert main([*words, "--out", str(tmp_path / "o")]) == 0
    assert "IQM" in capsys.readouterr().out
    assert main([words[0], f"{tmp_path}/new_0", "--out", str(tmp_path / "o")]) == 2
    assert "single run" in capsys.readouterr().err


def test_a_collapse_is_told(tmp_path):
    """The means are alike; the spread, and the answers, are not."""
    spread = [
        {**row, "work": 0.2 + 0.6 * (i % 7) / 6} for i, row in enumerate(rows([0.5] * 70, "base"))
    ]
    alike = [{**row, "work": 0.5, "answer": "work 0.5"} for row in rows([0.5] * 70, "lora")]
    found = compared(write(tmp_path / "a.jsonl", spread), write(tmp_path / "b.jsonl", alike))
    told = " ".join(found.parts.warnings)
    assert (
        "lora: the spread of work fell" in told
        and "lora: 100% of the answers are the same one" in told
    )
    assert "base:" not in told
    work = next(part for part in found.parts.numbers if part.name == "work")
    assert work.sides[0].mean == pytest.approx(0.5) and work.sides[1].std == 0
    assert sum(work.sides[0].bars) == pytest.approx(1)


def test_all_right_is_no_collapse(tmp_path):
    one = write(tmp_path / "a.jsonl", rows([float(i % 2) for i in range(60)], "a"))
    assert not compared(one, write(tmp_path / "b.jsonl", rows([1.0] * 60, "b"))).parts.warnings


def test_several_rewards(tmp_path):
    def named(scores, name):
        return [
            {k: v for k, v in row.items() if k not in ("score", "acc", "outcome")}
            | {"sql/score": s, "sql/acc": s, "length/score": None if row["row"] == 0 else 0.5}
            for row, s in zip(rows(scores, name), scores, strict=True)
        ]

    one, two = (
        write(tmp_path / f"{n}.jsonl", named([s] * 5, n)) for n, s in (("a", 0.0), ("b", 1.0))
    )
    assert compared(one, two).metric == "sql/acc" and len(compared(one, two).pairs.keys) == 5
    other = compared(one, two, options=Options(metric="length/score"))
    assert len(other.pairs.keys) == 4 and other.pairs.ungraded == 1


def test_answers_are_text_on_the_page(sides):
    one, two, out = sides
    lines = [json.loads(line) for line in Path(two).read_text().splitlines()]
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    for line in lines:
        line["answer"], line["model"], line["ground_truth"] = evil, evil, line["ground_truth"]
        line["prompt"] = line["prompt"]
    write(out.parent / "new.jsonl", lines)
    assert main([one, two, "--out", str(out)]) == 0
    page = (out / "compare.html").read_text()
    assert "<script" not in page and "<img" not in page and "&lt;script&gt;" in page
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page)  # self-contained


# --- models


class Calculator(BaseHTTPRequestHandler):
    """A server with two models: `right` doubles the number that it is asked for, `wrong` only odd ones."""

    def reply(self, found):
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.reply(
            {"object": "list", "data": [{"id": n, "object": "model"} for n in ("right", "wrong")]}
        )

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        number = int(asked["messages"][-1]["content"].split()[-1])
        fine = asked["model"] == "right" or number % 2
        message = {"role": "assistant", "content": str(2 * number if fine else -1)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"completion_tokens": 1, "prompt_tokens": 1, "total_tokens": 2}
        self.reply({"id": "1", "object": "chat.completion", "created": 0, "model": asked["model"],
                    "choices": [choice], "usage": usage})  # fmt: skip

    def log_message(self, *_):
        pass


def test_models_are_evaluated_first(tmp_path, capfd):
    """By tools.evaluate, in its process; the second time nobody is asked."""
    file = tmp_path / "questions.json"
    file.write_text(
        json.dumps([{"prompt": f"double {i}", "ground_truth": str(2 * i)} for i in range(40)])
    )
    out = tmp_path / "out"
    with ThreadingHTTPServer(("127.0.0.1", 0), Calculator) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/v1"
        words = [
            f"old={url}#wrong",
            f"new={url}#right",
            "reward=exact",
            "--input",
            str(file),
            "--out",
            str(out),
        ]
        status = main(words)
        told = capfd.readouterr()
        assert status == 0, told.err
        server.shutdown()
    assert (
        "new is better by 0.500" in told.out and "won by new against old: 20 questions" in told.out
    )
    assert main([*words, "--examples", "0"]) == 0
    assert "new is better by 0.500" in capfd.readouterr().out
    assert main([*words, "--evaluate=--seed 1"]) == 2  # its mistake: other answers lie there
    assert "another evaluation" in capfd.readouterr().err


# --- mistakes


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{}/nowhere", "{}/a.jsonl"], "no such folder"),
        (["{}/nowhere.jsonl", "{}/a.jsonl"], "no such file"),
        (["{}/a.jsonl", "{}/broken.jsonl"], "broken.jsonl, line 2: not a JSON object"),
        (["{}/a.jsonl", "{}/other.jsonl"], "no question in common"),
        (["{}/a.jsonl", "{}/list.jsonl"], "row 0 (from 0): neither an answer"),
        (["{}/a.jsonl", "{}/empty.jsonl"], "is empty"),
        (["{}/a.jsonl", "{}/notes.txt"], "answers are read from .jsonl"),
        (["{}/a.jsonl", "{}/book.xlsx"], "book.answers.jsonl"),
        (["{}/a.jsonl", "{}/bad.parquet"], "no parquet file"),
        (["{}/a.jsonl"], "two sides"),
        (["{}/run"], "one validation only"),
        (["{}/run@7", "{}/a.jsonl"], "no validation of step '7'. There is: 3"),
        (["{}/nothing", "{}/a.jsonl"], "no validations"),
        (["{}/a.jsonl", "x={}/none_*"], "nothing is called"),
        (["{}/a.jsonl", "b={}/a.jsonl", "--metric", "beauty"], "no answer has a number 'beauty'. There is: acc"),
        (["{}/a.jsonl", "{}/plain.jsonl"], "no score in common"),
    ],
)  # fmt: skip
def test_bad_input_is_a_line(tmp_path, capsys, words, said):
    write(tmp_path / "a.jsonl", rows([1.0, 0.0]))
    write(tmp_path / "other.jsonl", [r | {"prompt": "x", "ground_truth": "y"} for r in rows([1.0])])
    graded = ("score", "acc", "outcome")
    plain = [{k: v for k, v in r.items() if k not in graded} for r in rows([1.0, 1.0])]
    write(tmp_path / "plain.jsonl", plain)
    (tmp_path / "broken.jsonl").write_text(json.dumps(rows([1.0])[0]) + '\n{"model": "m", "ro')
    (tmp_path / "list.jsonl").write_text('{"question": "q"}\n')
    for name in ("empty.jsonl", "notes.txt", "book.xlsx", "bad.parquet"):
        (tmp_path / name).touch()
    (tmp_path / "nothing").mkdir()
    validation(tmp_path / "run", 3, [1.0])
    given = [word.format(tmp_path) for word in words]
    assert main([*given, "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr()
    assert said in told.err and told.err.startswith("error: ") and "Traceback" not in told.err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_others_stays_as_it_is(sides, capsys):
    one, two, out = sides
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    assert main([one, two, "--out", str(out)]) == 2
    assert "thesis.txt" in capsys.readouterr().err and [f.name for f in out.iterdir()] == [
        "thesis.txt"
    ]


@pytest.mark.parametrize(
    ("word", "setting"),
    [
        ("reward=sql", True),
        ("lab.reward.mode=bird", True),
        ("+data.x=1", True),
        ("sql:lab.reward.mode=bird", True),
        ("reward=rewards/sql.py", True),
        ("mine=conf", False),
        ("mine=Qwen/Qwen2.5-0.5B", False),
        ("mine=http://host:1/v1#a", False),
        ("lab.reward.url=http://host:1/v1", True),
        ("mine=outputs/x", False),
        ("mine=a*/b", False),
        ("http://host:1/v1?a=b", False),
        ("tiny", False),
    ],
)
def test_words_and_names(word, setting):
    assert is_setting(word) is setting
