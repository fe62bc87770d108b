"""tools.sweep: what differs by more than chance, over seeds and questions; and what its table and files say."""

import csv
import json
import re

import numpy as np
import pytest
from scipy import stats
from sweeps import METRIC, make_job, make_sweep, row

from launcher.results import EndedJob
from tools import sweep
from tools._compare import statistics
from tools._compare.reading import Answers, validated
from tools._sweep import figures, reading
from tools._sweep.reading import OK, Job, Sweep

FAST = 500  # resamples


# --- the interval over seeds and questions


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize(
    ("of_seed", "of_question", "of_both"),
    [(0.1, 0, 0.3), (0.03, 0.4, 0.5), (0, 0.5, 0.1), (0, 0, 1)],
)
def test_the_interval_covers_the_truth(seeds, of_seed, of_question, of_both):
    """Whatever the noise comes from; a bootstrap over three seeds would miss in 25 of 100, over two in 50."""
    rng, missed, trials = np.random.default_rng(seeds), 0, 250
    for _ in range(trials):
        values = (rng.normal(0, of_seed, (seeds, 1)) + rng.normal(0, of_question, (1, 50))
                  + rng.normal(0, of_both, (seeds, 50)))  # fmt: skip
        missed += statistics.crossed(values, resamples=FAST).apart
    assert missed / trials <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / trials)


def test_the_interval_is_no_wider_than_it_must_be():
    """Seen in the same draws: with five seeds a difference of three standard errors shows in most cases."""
    rng, seen = np.random.default_rng(0), 0
    for _ in range(100):
        values = 0.15 + rng.normal(0, 0.05, (5, 1)) + rng.normal(0, 0.4, (5, 100))
        seen += statistics.crossed(values, resamples=FAST).low > 0
    assert seen > 80


def test_without_rows_it_is_students():
    values = np.array([[0.1], [0.4], [0.2], [0.2]])
    found = statistics.crossed(values)
    low, high = stats.t.interval(0.95, 3, values.mean(), stats.sem(values.ravel()))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-3)
    assert found.p == pytest.approx(stats.ttest_1samp(values.ravel(), 0).pvalue, rel=0.02)
    assert found.clusters == 4


def test_with_one_seed_only_the_questions_count():
    values = (np.random.default_rng(0).random((1, 200)) < 0.5).astype(float)
    found, same = statistics.crossed(values), statistics.estimate(values[0])
    assert (found.low, found.high) == pytest.approx((same.low, same.high), abs=0.002)
    nothing = statistics.crossed(np.array([[0.3]]))
    assert nothing.value == 0.3 and np.isnan(nothing.low) and not nothing.apart


# --- winners


def a_sweep(lifts: list[float], seeds: int, questions: int, rng: np.random.Generator) -> Sweep:
    """A sweep of models that differ by `lifts`, and by chance: of the questions, the seeds and each answer."""
    jobs, hard = [], rng.normal(0, 1.5, questions)
    for setting, lift in enumerate(lifts):
        for seed in range(seeds):
            chance = 1 / (1 + np.exp(-(hard + lift + rng.normal(0, 0.3))))
            right = (rng.random(questions) < chance).astype(float)
            made = [validated(row(number, value)) for number, value in enumerate(right)]
            job = Job(len(jobs), None, {}, OK, str(seed), {"algo": f"a{setting}"})
            job.metrics, job.after = {1: {METRIC: right.mean()}}, float(right.mean())
            job.rows = (None, Answers("", None, made))
            jobs.append(job)
    return Sweep([], jobs, ["algo"], "acc", METRIC, True, seeds > 1, True)


@pytest.mark.parametrize("seeds", [2, 4])
def test_a_sweep_of_settings_that_are_alike_names_no_winner(seeds):
    """Six settings, and one of them always has the highest mean. Neither a winner nor a difference in 95 of 100."""
    rng, winners, told, trials = np.random.default_rng(1), 0, 0, 120
    for _ in range(trials):
        found = figures.find(a_sweep([0] * 6, seeds, 40, rng), FAST)
        winners += found.best is not None
        told += any(pair.difference.apart for pair in found.against if pair)
    assert winners <= 0.05 * trials
    assert told <= trials * 0.05 + 2 * np.sqrt(trials * 0.05 * 0.95)


def test_two_that_are_alike_before_the_others_are_no_winners():
    """Both are better than the first, and that is said; which of the two, chance would say."""
    rng, winners, told, trials = np.random.default_rng(2), 0, 0, 120
    for _ in range(trials):
        found = figures.find(a_sweep([0, 2, 2], 4, 60, rng), FAST)
        winners += found.best is not None
        told += all(pair.difference.low > 0 for pair in found.against[1:])
    assert winners <= trials * 0.05 + 2 * np.sqrt(trials * 0.05 * 0.95)
    assert told > 0.8 * trials


def test_a_true_winner_is_named_wherever_it_stands():
    rng = np.random.default_rng(3)
    for place in (0, 1, 2):
        named = []
        for _ in range(15):
            lifts = [0.0, 0.0, 0.0]
            lifts[place] = 2.0
            named.append(figures.find(a_sweep(lifts, 5, 80, rng), FAST).best)
        assert named.count(place) >= 12 and set(named) <= {place, None}


# --- folders


def right(share: float, questions: int = 100, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random(questions) < share).astype(float)


@pytest.fixture
def two_by_three(tmp_path):
    """grpo and rloo with seeds 0 to 2, and a word that all of them have; rloo learns more."""
    folder = make_sweep(tmp_path / "s", "algo=grpo,rloo", "lab.seed=range(0,3)", "hw=cpu")
    for number in range(6):
        algo, seed = ("grpo", "rloo")[number // 3], number % 3
        after = right(0.3 if algo == "grpo" else 0.8, seed=seed)
        words = [f"algo={algo}", f"lab.seed={seed}", "hw=cpu"]
        make_job(folder / str(number), words, {0: right(0.1, seed=9), 10: right(0.2), 20: after})
    return folder


def test_the_table_names_what_was_varied_and_nothing_else(two_by_three, capsys):
    assert sweep.main([str(two_by_three)]) == 0
    out = capsys.readouterr().out
    heads, first, second = out.splitlines()[2:5]
    assert re.split(r" {2,}", heads.strip()) == [
        "algo", "seeds", "before", "after", "95 % interval", "less grpo", "interval"]  # fmt: skip
    assert re.match(r" +grpo +3 +0\.\d{3} +0\.\d{3} +0\.\d{3} to 0\.\d{3} +- +-$", first), first
    assert re.match(r"\* +rloo +3 .* \+0\.\d{3} +\+0\.\d{3} to \+0\.\d{3}$", second), second
    assert "hw" not in out and "best: rloo" in out
    assert "right answers on 100 held-out questions, mean over seeds" in out


def test_what_is_written(two_by_three, capsys):
    sweep.main([str(two_by_three)])
    made = json.loads((two_by_three / "sweep.json").read_text())
    assert made["metric"] == "acc" and made["varied"] == ["algo"] and made["best"] == 1
    first, second = made["settings"]
    assert first["against_first"] is None and second["jobs"] == [3, 4, 5]
    of_seeds = [job["after"] for job in made["jobs"]]
    difference = np.mean(of_seeds[3:]) - np.mean(of_seeds[:3])
    assert second["against_first"]["value"] == pytest.approx(difference)
    assert second["change"]["value"] == pytest.approx(second["after"]["value"] - second["before"]["value"])  # fmt: skip
    with open(two_by_three / "sweep.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["algo"], row["seed"], row["steps"]) for row in rows][3] == ("rloo", "0", "20")
    assert float(rows[0]["after"]) == of_seeds[0] and rows[0]["folder"] == str(two_by_three / "0")
    page = (two_by_three / "sweep.html").read_text()
    assert page.count("<svg") == 1 and "best: rloo" in page and "lab.seed=range(0,3)" in page
    assert not re.search(r"<script|<link|src=", page)  # all of it is in the file


def test_jobs_that_failed_or_did_not_begin_are_shown_and_win_nothing(two_by_three, capsys):
    record = two_by_three / "4/run.json"
    record.write_text(record.read_text().replace('"exit": 0', '"exit": 1'))
    (two_by_three / "5/.hydra/overrides.yaml").unlink()
    sweep.main([str(two_by_three)])
    out = capsys.readouterr().out
    assert re.search(r"^ +rloo +1 of 3 ", out, re.MULTILINE), out
    assert f"exit 1: job 4 (algo=rloo, seed=1): {two_by_three}/4/log.txt" in out
    assert "not begun: job 5 (algo=rloo, seed=2)" in out
    assert "best:" not in out and "no winner" in out


def test_one_seed_tells_of_models_and_not_of_settings(tmp_path, capsys):
    folder = make_sweep(tmp_path / "s", "algo=grpo,rloo")
    for number, algo in enumerate(("grpo", "rloo")):
        make_job(folder / str(number), [f"algo={algo}"], {20: right(0.2 + 0.6 * number)})
    sweep.main([str(folder)])
    out = capsys.readouterr().out
    assert "the model of rloo is better than that of grpo by" in out
    assert "no winner: the seed was not varied" in out and "lab.seed=range" in out
    assert "*" not in out.splitlines()[4] and "seeds" not in out.splitlines()[2]


def test_without_rows_the_seeds_alone_decide(tmp_path, capsys):
    """A loss: less of it is better."""
    folder = make_sweep(tmp_path / "s", "lr=1,2", "lab.seed=range(0,4)")
    for number in range(8):
        loss = np.array([(0.5, 0.2)[number // 4] + 0.01 * (number % 4)])
        words = [f"lr={1 + number // 4}", f"lab.seed={number % 4}"]
        made = {1: None, 2: loss}
        make_job(folder / str(number), words, made, metric="val/loss", rows=False)
    sweep.main([str(folder)])
    out = capsys.readouterr().out
    assert "lr=2 is better than lr=1 by 0.300" in out and "best: lr=2" in out
    assert out.startswith("val/loss, mean over seeds")


def test_one_seed_without_rows_has_no_interval(tmp_path, capsys):
    folder = make_sweep(tmp_path / "s", "algo=grpo,rloo")
    for number, algo in enumerate(("grpo", "rloo")):
        values = np.array([0.2 + 0.6 * number])
        make_job(folder / str(number), [f"algo={algo}"], {20: values}, rows=False)
    sweep.main([str(folder)])
    out = capsys.readouterr().out
    assert re.search(r"^ +rloo +0\.800 +- +\+0\.600 +-$", out, re.MULTILINE), out
    assert "no winner: the seed was not varied" in out


def test_figures_of_different_rewards_are_not_compared(two_by_three, tmp_path, capsys):
    folder = make_sweep(tmp_path / "r", "reward=exact,sql", "lab.seed=range(0,3)")
    for number in range(6):
        name = ("exact", "sql")[number // 3]
        make_job(folder / str(number), [f"reward={name}", f"lab.seed={number % 3}"],
                 {20: right(0.2 + 0.1 * number)}, reward=f"pkg://rewards.{name}")  # fmt: skip
    sweep.main([str(folder)])
    out = capsys.readouterr().out
    assert "graded by different rewards" in out and "better" not in out


def test_jobs_without_a_metric_in_common(tmp_path, capsys):
    folder = make_sweep(tmp_path / "s", "algo=grpo,sft")
    make_job(folder / "0", ["algo=grpo"], {20: right(0.2)})
    make_job(folder / "1", ["algo=sft"], {20: None}, rows=False)
    (folder / "1/metrics.jsonl").write_text('{"step": 20, "data": {"val/loss": 0.3}}\n')
    sweep.main([str(folder)])
    out = capsys.readouterr().out
    assert "no metric in common" in out and "nothing to compare" in out
    assert re.search(r"^ +0 +grpo +20 +- +- +ok$", out, re.MULTILINE), out


def test_a_job_that_diverged_has_no_figure(tmp_path, capsys):
    """And not that of an earlier validation."""
    folder = make_sweep(tmp_path / "s", "lr=1,2")
    for number in range(2):
        made = {1: np.array([0.5]), 2: np.array([[0.4], [np.nan]][number])}
        make_job(folder / str(number), [f"lr={number + 1}"], made, metric="val/loss", rows=False)
    sweep.main([str(folder)])
    out = capsys.readouterr().out
    assert "no figure: job 1 (lr=2, seed=0)" in out
    assert re.search(r"^ +2 +0 of 1 +- ", out, re.MULTILINE), out


def test_two_sweeps_are_shown_as_one(two_by_three, tmp_path, capsys):
    """Seeds 3 to 5 of the same settings."""
    more = make_sweep(tmp_path / "t", "algo=grpo,rloo", "lab.seed=range(3,6)", "hw=cpu")
    for number in range(6):
        algo, seed = ("grpo", "rloo")[number // 3], 3 + number % 3
        after = right(0.3 if algo == "grpo" else 0.8, seed=seed)
        make_job(more / str(number), [f"algo={algo}", f"lab.seed={seed}", "hw=cpu"],
                 {0: right(0.1, seed=9), 20: after})  # fmt: skip
    sweep.main([str(two_by_three), str(more), "--out", str(tmp_path / "both")])
    out = capsys.readouterr().out
    assert re.search(r"^\* +rloo +6 ", out, re.MULTILINE), out
    assert (tmp_path / "both/sweep.html").is_file() and not (more / "sweep.html").exists()


def test_only_the_seed_was_varied(tmp_path, capsys):
    folder = make_sweep(tmp_path / "s", "lab.seed=0,1,2")
    for number in range(3):
        made = {0: right(0.1, seed=9), 20: right(0.7, seed=number)}
        make_job(folder / str(number), [f"lab.seed={number}"], made)
    sweep.main([str(folder)])
    out = capsys.readouterr().out
    assert "better than before by" in out and "over 3 seeds" in out and "best:" not in out


def test_answers_that_could_not_be_graded_are_left_out(two_by_three, capsys):
    file = two_by_three / "5/validation/20.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for one in lines[:7]:
        one.update(masked=1.0, score=None)
    file.write_text("".join(json.dumps(one) + "\n" for one in lines))
    sweep.main([str(two_by_three)])
    assert "up to 7 questions of a pair left out" in capsys.readouterr().out


def test_each_seed_may_have_questions_of_its_own(tmp_path, capsys):
    """As lab.dataset.val_max_samples draws them: paired inside of a seed, and nothing is left out."""
    folder = make_sweep(tmp_path / "s", "algo=grpo,rloo", "lab.seed=range(0,4)")
    for number in range(8):
        algo, seed = ("grpo", "rloo")[number // 4], number % 4
        job = make_job(folder / str(number), [f"algo={algo}", f"lab.seed={seed}"],
                       {20: right(0.3 + 0.4 * (number // 4), seed=seed)})  # fmt: skip
        file = job / "validation/20.jsonl"
        file.write_text(file.read_text().replace("question ", f"question {seed}"))
    sweep.main([str(folder)])
    out = capsys.readouterr().out
    assert "each seed was asked other questions" in out and "left out" not in out
    assert "best: rloo" in out
    means = [job.after for job in reading.read([folder]).jobs]
    differences = np.subtract(means[4:], means[:4])
    low, high = stats.t.interval(0.95, 3, differences.mean(), stats.sem(differences))
    made = json.loads((folder / "sweep.json").read_text())["settings"][1]["against_first"]
    assert (made["low"], made["high"]) == pytest.approx((low, high), rel=1e-3)


def test_a_search_knows_its_jobs_by_their_folders(tmp_path, capsys):
    """What a sweeper tries is not in the words of the sweep."""
    folder = make_sweep(tmp_path / "s", "lr=interval(1,2)", "hw=cpu")
    for number, lr in enumerate(("1.2", "1.7")):
        make_job(folder / str(number), [f"lr={lr}", "hw=cpu"], {20: right(0.5)})
    sweep.main([str(folder)])
    assert re.search(r"^ +1\.7 +0\.", capsys.readouterr().out, re.MULTILINE)


def test_the_end_of_a_sweep_whose_jobs_were_all_refused(tmp_path):
    """Nothing is written: the folder goes again."""
    folder = make_sweep(tmp_path / "s", "lab.model.path=/nowhere/a,/nowhere/b")
    said = sweep.of_ended([EndedJob(folder / "0", 2), EndedJob(folder / "1", 2)])
    assert re.search(r"^ +0 +/nowhere/a +.* refused$", said, re.MULTILINE), said
    assert [file.name for file in folder.iterdir()] == ["multirun.yaml"]


def test_a_folder_without_a_sweep_is_a_line(tmp_path, capsys):
    assert sweep.main([str(tmp_path)]) == 2
    assert "no sweep there" in capsys.readouterr().err


def test_the_metric_is_the_same_for_all_jobs(tmp_path):
    """Where a job has two, the one that the others have."""
    folder = make_sweep(tmp_path / "s", "a=1,2")
    for number in range(2):
        make_job(folder / str(number), [f"a={number + 1}"], {20: np.array([0.5])}, rows=False)
    other = json.dumps({"step": 20, "data": {"val-core/aaa/acc/mean@1": 0.9}})
    with open(folder / "1/metrics.jsonl", "a") as file:
        file.write(other + "\n")
    found = reading.read([folder])
    assert found.metric == METRIC and [job.after for job in found.jobs] == [0.5, 0.5]
