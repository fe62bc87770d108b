"""A real run whose reward hangs, burns a core, eats memory and kills its process, for some of the answers."""

import collections
import json
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
