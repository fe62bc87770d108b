"""A real run whose reward hangs, burns a core, eats memory and kills its process, for some of the answers."""

import collections
import json
import re
import zlib

import pytest

pytestmark = pytest.mark.real
REWARD = r"""
import os, re, signal, time, zlib

def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    fate = zlib.crc32(solution_str.encode()) % 16
    if fate == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(1000)
    if fate == 1:
        re.match("(a+)+$", "a" * 60 + "b")
    if fate in (2, 3):
        return len(bytearray(1 << 32))
    if fate in (4, 5):
        os.kill(os.getpid(), signal.SIGKILL)
    return {"score": fate / 16, "acc": float(fate > 10)}
"""
FATES = {0: "timeout", 1: "timeout", 2: "memory", 3: "memory", 4: "crash", 5: "crash"}


def expected(rows) -> list[str]:
    return [FATES.get(zlib.crc32(row["output"].encode()) % 16, "no") for row in rows]


def test_the_run_goes_on_and_counts_them(run, tmp_path):
    reward = tmp_path / "hostile.py"
    reward.write_text(REWARD)
    result = run("reward=none", f"reward.custom_reward_function.path={reward}",
                 "lab.reward_limits.timeout_s=1", "lab.reward_limits.memory_mib=512")  # fmt: skip
    seen = collections.Counter()
    for step in (1, 2):
        rows = [json.loads(line) for line in (result.folder / f"rollouts/{step}.jsonl").open()]
        fates = collections.Counter(expected(rows))
        seen += fates
        assert sum(fates.values()) == 32
        # the parts of the reward stand beside each answer
        assert [row["stopped"] for row in rows] == expected(rows)
        for reason, count in fates.items():
            assert result.at(step, f"reward/stopped/{reason}") == pytest.approx(count / 32)
        assert result.at(step, "reward/masked") == pytest.approx(1 - fates["no"] / 32)
        graded = [
            row["score"] for row, fate in zip(rows, expected(rows), strict=True) if fate == "no"
        ]
        assert result.at(step, "reward/score") == pytest.approx(sum(graded) / len(graded), abs=1e-5)
        assert 0 < result.at(step, "actor/grad_norm") < 1e4
    assert len(seen) == 4, seen  # each of them happened
    rows = [json.loads(line) for line in (result.folder / "validation/2.jsonl").open()]
    assert [row["stopped"] for row in rows] == expected(rows)
    assert "a reward was stopped (timeout), at data_source='sql_demo'" in result.log()
    # a sample that could not be graded is not a wrong one
    right = [row["acc"] for row, fate in zip(rows, expected(rows), strict=True) if fate == "no"]
    assert 0 < len(right) < len(rows)
    (name,) = [k for k in result.metrics[2] if re.fullmatch("val-core/.*/acc/mean@1", k)]
    assert result.at(2, name) == pytest.approx(sum(right) / len(right))


def test_a_step_without_a_graded_answer_ends_the_run(run, tmp_path):
    """It has nothing to learn from, and the line says why."""
    reward = tmp_path / "silent.py"
    reward.write_text(
        "def compute_score(**row):\n    return {'score': float('nan'), 'outcome': 'no_idea'}\n"
    )
    result = run("reward=none", f"reward.custom_reward_function.path={reward}",
                 "trainer.val_before_train=false", status=1)  # fmt: skip
    assert "none of the 32 answers of this step could be graded" in result.done.stdout
    assert "outcome=no_idea" in result.done.stdout
