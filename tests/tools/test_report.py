"""What a run learned, from its folder."""

import json

import pytest

from tools._compare.arguments import understood
from tools._compare.figures import Options, compare
from tools.report import main


@pytest.fixture
def folder(tmp_path):
    rows = {
        0: [{"work": 0.2, "outcome": "ok", "score": -1.0}, {"work": 0.8, "outcome": "no_json", "score": -1.0}],
        5: [{"work": 0.5, "outcome": "ok", "score": 0.5}, {"work": 0.5, "outcome": "ok", "score": None}],
    }  # fmt: skip
    (tmp_path / "validation").mkdir()
    for step, answers in rows.items():
        same = {"output": "x\ny", "gts": "gold", "step": step, "uid": "u"}
        asked = [{"input": f"user\nq{i}?\nassistant\n"} | row for i, row in enumerate(answers)]
        lines = [json.dumps(same | row) for row in asked]
        (tmp_path / f"validation/{step}.jsonl").write_text("\n".join(lines) + "\n")
    steps = [{"step": s, "data": {"critic/score/mean": s / 5}} for s in range(6)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, steps)) + "\n")
    return tmp_path


def row(text: str, name: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"{name}  "))
    return line.removeprefix(name).split()


def test_a_reward_without_right_and_wrong(folder, capsys):
    assert main([str(folder)]) == 0
    out = capsys.readouterr().out
    assert row(out, "reward") == [
        "-1.000",
        "0.500",
        "+1.500",
        "-",
    ]  # of a single question there is no interval
    assert "outcome" not in out and "right answers" not in out
    assert "before -1.00  x y" in out and "after  0.50  x y" in out and "after  –" in out
    assert (folder / "learning.png").stat().st_size > 1000


def test_all_parts_with_their_spread(folder, capsys):
    """A collapse shows: the same mean, and no spread."""
    assert main([str(folder), "--all"]) == 0
    out = capsys.readouterr().out
    assert row(out, "work") == [
        "0.500",
        "0.500",
        "+0.000",
        "-0.300",
        "to",
        "+0.300",
        "0.300",
        "0.000",
    ]
    assert row(out, "outcome: ok") == [
        "0.500",
        "1.000",
        "+0.500",
        "+0.000",
        "to",
        "+1.000",
        "0.500",
        "0.000",
    ]


def test_the_interval_of_the_change_is_that_of_the_comparison(folder, capsys):
    """Paired by question: a change of the same size everywhere has no spread, however far apart the questions are."""
    for step, more in ((0, 0.0), (5, 0.25)):
        rows = [{"input": f"user\nq{i}?\nassistant\n", "output": "x", "gts": "g", "score": i / 50 + more * (1 + i % 2)}
                for i in range(40)]  # fmt: skip
        (folder / f"validation/{step}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main([str(folder)]) == 0
    found = row(capsys.readouterr().out, "reward")
    sides = [side for some in understood([str(folder)]).sides for side in some]
    d = compare(sides, ["a", "b"], Options()).compared[0].difference
    assert found[2:] == [f"{d.value:+.3f}", f"{d.low:+.3f}", "to", f"{d.high:+.3f}"]
    assert 0.25 < d.low < 0.375 < d.high < 0.5


def test_a_broken_config_is_a_line(folder, capsys):
    (folder / "resolved.yaml").write_text("a: [")
    assert main([str(folder)]) == 2
    assert "resolved.yaml is broken" in capsys.readouterr().err


def test_one_validation_shows_its_level(folder, capsys):
    (folder / "validation/5.jsonl").unlink()
    assert main([str(folder)]) == 0
    out = capsys.readouterr().out
    assert row(out, "reward") == ["-1.000", "-1.000", "to", "-1.000", "0.000"]
    assert "there is no change to show" in out and "before" not in out


def test_an_evaluation_with_two_models(tmp_path, capsys):
    rows = [
        {"model": m, "row": i, "sample": 0, "prompt": f"q{i}", "answer": "a", "ground_truth": "g",
         "score": float(i % 2) if m == "a" else 1.0}
        for m in "ab" for i in range(50)
    ]  # fmt: skip
    file = tmp_path / "e.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    assert main([str(file)]) == 0
    first, second = capsys.readouterr().out.split("b: 50 questions")
    assert row(first, "reward")[0] == "0.500" and row(second, "reward")[:2] == ["1.000", "1.000"]
    low, high = (float(row(first, "reward")[i]) for i in (1, 3))
    assert low == pytest.approx(0.5 - 0.141, abs=0.02) and high == pytest.approx(
        0.5 + 0.141, abs=0.02
    )


@pytest.mark.parametrize("names", [("loss",), ("loss", "accuracy", "margin")])
def test_sft_and_preferences(tmp_path, capsys, names):
    """First, last and best: the lowest loss, the highest accuracy."""
    steps = [
        {"step": s, "data": {f"train/{n}": abs(s - 3) + s / 10 for n in names}} for s in range(1, 6)
    ]
    steps += [{"step": s, "data": {f"val/{n}": float(s) for n in names}} for s in (2, 4)]
    steps.sort(key=lambda line: line["step"])
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, steps)))
    assert main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert row(out, "loss") == ["2.100", "2.500", "0.300", "3"]
    assert row(out, "validation loss") == ["2.000", "4.000", "2.000", "2"]
    assert ("accuracy" in out) == (len(names) > 1)
    if len(names) > 1:
        assert row(out, "validation accuracy") == ["2.000", "4.000", "4.000", "4"]
    assert (tmp_path / "learning.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("", "neither validations"),
        ("{\n", "line 1: not a JSON object"),
        ('{"a": 1}\n', "no validation: rows with"),
    ],
)
def test_a_folder_with_nothing_to_say(tmp_path, capsys, broken, said):
    if broken:
        (tmp_path / "validation").mkdir()
        for step in (0, 1):
            (tmp_path / f"validation/{step}.jsonl").write_text(broken)
    assert main([str(tmp_path)]) == 2
    assert said in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "no such file or folder" in capsys.readouterr().err
