"""The laboratory tells good rewards from bad ones, before any training."""

import json
import re

import pytest

from tools import _lab_page
from tools.reward_lab import main

pytestmark = pytest.mark.usefixtures("own_hydra")

# Three of the field's usual mistakes, and one reward as it should be.
REWARDS = """
import re, time

def bars(**options):
    return {"range": (0.0, 1.0), "reference": 1.0, "empty": 0.0}

def honest(data_source, solution_str, ground_truth, extra_info=None):
    right = re.sub(r"\\s", "", ground_truth) in re.sub(r"\\s", "", solution_str)
    return {"score": float(right), "acc": float(right), "constant": 0.5, "length": len(solution_str)}

def counts_words(data_source, solution_str, ground_truth, extra_info=None):
    words = set(ground_truth.split())
    return len(words & set(solution_str.split())) / len(words)

def pays_length(data_source, solution_str, ground_truth, extra_info=None):
    return min(1.0, 0.2 + len(solution_str) / 100)

def out_of_range(data_source, solution_str, ground_truth, extra_info=None):
    return 2.0 * (ground_truth in solution_str)

def slow(data_source, solution_str, ground_truth, extra_info=None):
    time.sleep(0.05)
    return float(ground_truth in solution_str)

def buggy(data_source, solution_str, ground_truth, extra_info=None):
    return extra_info["answers"]

def forgets(data_source, solution_str, ground_truth, extra_info=None):
    float(ground_truth in solution_str)

def hangs(data_source, solution_str, ground_truth, extra_info=None):
    while "perfect" in solution_str:
        time.sleep(1)
    return float(ground_truth in solution_str)
"""


@pytest.fixture
def lab(tmp_path, sql_demo, capsys, monkeypatch):
    """`lab("honest", ...)` → exit status, what was printed, the page."""
    page = tmp_path / "page.html"

    def go(name: str, *more: str, text: str = REWARDS):
        (tmp_path / "rewards.py").write_text(text)
        chosen = "reward.custom_reward_function"
        status = main(["reward=none", f"{chosen}.path={tmp_path}/rewards.py", f"{chosen}.name={name}",
                       f"lab.dataset.dir={sql_demo}", "--rows=12", f"--out={page}", *more])  # fmt: skip
        text = capsys.readouterr()
        return status, text.out + text.err, page.read_text() if page.exists() else ""

    return go


def failed(out: str) -> list[str]:
    found = re.search(r"failed: (.*)", out)
    return found[1].split(", ") if found else []


def test_an_honest_reward_passes(lab):
    status, out, page = lab("honest")
    assert status == 0 and "all bars hold" in out, out
    assert page.startswith("<!doctype html>") and "<svg" in page and "keyword soup" in page


def test_the_page_shows_the_score_of_each_example(lab):
    _, _, page = lab("honest", "--rows=2")
    shown = dict(re.findall(r"<h3>([\w ]+): (.+?)</h3>", page))
    assert (shown["reference"], shown["empty"], shown["random"]) == ("1", "0", "0")
    stopped = {"examples": {"hung": ("x", float("nan"))}, "spreads": {}}
    measured = {"results": {"hung": [{"score": 0.0}]}, "sampled": []}
    assert "<h3>hung: no score</h3>" in _lab_page.page(
        "t", [_lab_page.Table("a", ["b"], [])], measured, **stopped
    )


def test_a_reward_that_raises_is_a_few_lines_with_its_own(lab):
    status, out, _ = lab("buggy", "--rows=2")
    error, place, row = out.splitlines()
    assert status == 2 and error == "error: the reward raised KeyError: 'answers'"
    assert place.endswith('rewards.py, line 26, in buggy: return extra_info["answers"]')
    assert "response=" in row
    status, out, _ = lab("forgets", "--rows=2")
    assert status == 2 and "it returned None" in out and len(out.splitlines()) == 3


@pytest.mark.parametrize(
    ("function", "arguments"),
    [("reference_answer", "ground_truth, extra_info"), ("bars", "**options")],
)
def test_a_promise_that_raises_is_a_line(lab, function, arguments):
    text = f"{REWARDS}\ndef {function}({arguments}):\n    return {{}}['none']\n"
    status, out, _ = lab("honest", text=text)
    assert status == 2 and out.count("\n") == 1, out
    assert f"{function} raised KeyError: 'none' (" in out and f"in {function}: return" in out


def test_a_reward_that_cannot_be_imported_is_a_line(lab):
    status, out, _ = lab("honest", text="import nosuch_lib\n" + REWARDS)
    assert status == 2 and out.count("\n") == 1, out
    assert "can't be imported: ModuleNotFoundError: No module named 'nosuch_lib'" in out


def test_a_page_shows_answers_and_does_not_obey_them():
    bad = "</pre><script>alert(1)</script>"
    tables = [_lab_page.Table(bad, ["bar", "holds", "what"], [[bad, "no", bad]])]
    measured = {"results": {"reference": [{"score": 1.0}]}, "sampled": []}
    page = _lab_page.page(bad, tables, measured, {}, {bad: (bad, 0.0)})
    assert "<script" not in page and "&lt;script&gt;" in page
    assert "<svg" in page and '<td class="no">no</td>' in page


@pytest.mark.parametrize(
    ("name", "bars"),
    [
        ("counts_words", {"attack:keyword_soup"}),
        ("pays_length", {"empty", "attack:very_long", "attack:keyword_soup"}),
        ("out_of_range", {"range"}),
    ],
)
def test_a_bad_one_fails_by_name(lab, name, bars):
    status, out, _ = lab(name)
    assert status == 1 and bars <= set(failed(out)), out


def test_time_is_a_bar(lab):
    status, out, _ = lab("slow", "--max-seconds=0.01", "--rows=2")
    assert status == 1 and failed(out) == ["time"], out


def test_a_reward_that_hangs_is_stopped_and_told(lab):
    status, out, _ = lab("hangs", "lab.reward_limits.timeout_s=0.5", "--rows=1", "--max-seconds=60")
    assert status == 1 and failed(out) == ["range"], out
    assert re.search(r"[1-9]\d* stopped", out), out


def test_parts_without_signal_are_named(lab, tmp_path):
    reference = "SELECT 1"
    answers = [
        {"prompt": f"q{q}", "response": reference if right else "no", "ground_truth": reference}
        for q, group in enumerate([(1, 0, 0), (0, 0, 0), (1, 1, 1), (0, 0, 0)])
        for right in group
    ]
    file = tmp_path / "answers.jsonl"
    file.write_text("\n".join(map(json.dumps, answers)) + "\n")
    status, out, _ = lab("honest", f"--answers={file}", "--min-signal=0.25")
    assert status == 0, out
    assert re.search(r"constant +0.0000 +0% +no signal", out) and re.search(
        r"score +0.1179 +25%", out
    ), out
    status, out, _ = lab("honest", f"--answers={file}", "--min-signal=0.3")
    assert status == 1 and failed(out) == ["signal"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["reward=sqk"], "Did you mean sql?"),
        (["reward=none"], "reward=none leaves scoring to verl"),
        (["reward=model", "lab.reward_model.path=x"], "scores only inside a run"),
        (["reward=sql", "dataset=spider"], "no data file data/spider"),
        (["reward=sql", "reward.custom_reward_function.reward_kwargs.shapping=x"], "'shapping'. Did you mean shaping?"),
    ],
)  # fmt: skip
def test_mistakes_are_a_line(capsys, words, told):
    assert main(words) == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1, err
