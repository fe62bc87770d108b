"""Speed of the advantage functions beside verl's: `python tests/bench/bench_algos.py`.

The same batch for all, as verl's V1 trainer has it: float32 rewards, an int64 mask (answers of 1 to 512
tokens), groups of 8 by uuid, shuffled; one thread, which is what Ray gives to verl's trainer. verl's two
look at whole answers; grpo_process and grpo_token look at every token. One token in a hundred has a
reward ("steps"), or every token ("dense"). In each round all are timed one after another, by the CPU
time, in which other processes count least; medians of the times and of the ratios within a round are
shown. The plain loops are those of the tests (algos_reference.py).
"""

import argparse
import os
import statistics
import sys
import time
import uuid
from pathlib import Path

os.environ.setdefault("VERL_PLATFORM", "cpu")
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/support")]

import algos_reference  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from verl.trainer.ppo import core_algos  # noqa: E402

from algos import grpo_process, grpo_token, grpo_weighted  # noqa: E402

SIZES = (512, 4096, 32768)
LOOP_SIZE = 4096  # answers, for the plain loops: larger ones take minutes
TOKENS, GROUP = 512, 8
BASE = "verl grpo_vectorized"


def batch(answers: int) -> tuple[dict, dict]:
    """Arguments with a reward on one token in a hundred, and with one on every token."""
    generator = torch.Generator().manual_seed(0)
    length = torch.randint(1, TOKENS + 1, (answers, 1), generator=generator)
    mask = torch.arange(TOKENS) < length
    dense = torch.randint(1, 20, (answers, TOKENS), generator=generator) / 10 * mask
    steps = dense * (torch.rand(answers, TOKENS, generator=generator) < 0.01)
    ids = np.array([str(uuid.UUID(int=i // GROUP)) for i in range(answers)], dtype=object)
    shuffled = ids[torch.randperm(answers, generator=generator).numpy()]
    rest = {"response_mask": mask.long(), "index": shuffled}
    return {"token_level_rewards": steps, **rest}, {"token_level_rewards": dense, **rest}


def cases(answers: int) -> dict:
    """What is timed: name → call."""
    steps, dense = batch(answers)
    return {
        BASE: lambda: core_algos.compute_grpo_vectorized_outcome_advantage(**steps),
        "verl grpo": lambda: core_algos.compute_grpo_outcome_advantage(**steps),
        "grpo_weighted": lambda: grpo_weighted.compute_advantage(**steps),
        "grpo_process, steps": lambda: grpo_process.compute_advantage(**steps),
        "grpo_process, dense": lambda: grpo_process.compute_advantage(**dense),
        "grpo_token": lambda: grpo_token.compute_advantage(**steps),
    }


def seconds(call) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def measure(answers: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Name → median seconds, and the median of its share of the base's time in a round."""
    calls = cases(answers)
    for call in calls.values():
        call()
    times = [{name: seconds(call) for name, call in calls.items()} for _ in range(rounds)]
    return {
        name: (
            statistics.median(row[name] for row in times),
            statistics.median(row[name] / row[BASE] for row in times),
        )
        for name in calls
    }


def loops() -> dict[str, float]:
    """Name → seconds of the plain loop; once, as it takes many."""
    steps, _ = batch(LOOP_SIZE)
    rewards, mask, index = (steps[k] for k in ("token_level_rewards", "response_mask", "index"))
    return {
        name: seconds(lambda name=name: getattr(algos_reference, name)(rewards, mask, index))
        for name in ("grpo_weighted", "grpo_process", "grpo_token")
    }


def rows(rounds: int = 9) -> list[list[str]]:
    """The table: times, shares of verl's vectorised one, and how many times faster than the loop."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    measured = {size: measure(size, rounds) for size in SIZES}
    loop = loops()
    torch.set_num_threads(threads)
    table = []
    for name in measured[SIZES[0]]:
        cells = [
            f"{t * 1e3:.1f} ms ({share:.2f})" for t, share in (measured[s][name] for s in SIZES)
        ]
        slow = loop.get(name.partition(",")[0])
        faster = f"{slow / measured[LOOP_SIZE][name][0]:.0f}" if slow else "-"
        table.append([name, *cells, faster])
    return table


HEAD = ["advantage function", *(f"{size} answers" for size in SIZES), f"× a loop at {LOOP_SIZE}"]

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    for row in [HEAD, *rows(options.rounds)]:
        print(f"{row[0]:22}", *(f"{cell:>20}" for cell in row[1:]))
