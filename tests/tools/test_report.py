"""What a run learned, from its folder."""

import json

import pytest

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
    assert row(out, "reward") == ["-1.000", "0.500", "+1.500"]
    assert "outcome" not in out and "right answers" not in out
    assert "before -1.00  x y" in out and "after  0.50  x y" in out and "after  –" in out
    assert (folder / "learning.png").stat().st_size > 1000


def test_all_parts_with_their_spread(folder, capsys):
    """A collapse shows: the same mean, and no spread."""
    assert main([str(folder), "--all"]) == 0
    out = capsys.readouterr().out
    assert row(out, "work") == ["0.500", "0.500", "+0.000", "0.300", "0.000"]
    assert row(out, "outcome: ok") == ["0.500", "1.000", "+0.500", "0.500", "0.000"]


def test_one_validation_is_too_few(folder, capsys):
    (folder / "validation/5.jsonl").unlink()
    assert main([str(folder)]) == 2
    assert "fewer than two validations" in capsys.readouterr().err
