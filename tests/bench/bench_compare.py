"""How long tools.compare takes, from the command to the page, for two evaluations of 10,000 rows (aim: 5 s)."""

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from preflight.names import ROOT

ROWS, REPEAT = 10_000, 3
HEAD = ["compared", "time", "page"]
WAYS = {
    "right or wrong": [],
    "right or wrong, clustered, by 60 categories": ["--by", "db_id", "--cluster", "db_id"],
    "scores, by 60 categories": ["--metric", "score", "--by", "db_id"],
}


def evaluation(file: Path, chance: float) -> str:
    """An evaluation with parts of every kind; `chance`: of a right answer."""
    rng = random.Random(1)
    with open(file, "w") as out:
        for i in range(ROWS):
            right = float(rng.random() < chance)
            row = {
                "model": file.stem, "row": i, "sample": 0, "prompt": f"Schema: a(b, c)\nQuestion {i}: how many?",
                "answer": "SELECT " + " ".join(rng.choices("abcdef", k=40)), "ground_truth": f"SELECT {i}",
                "finish": "stop", "tokens": rng.randint(10, 200), "db_id": f"db{i % 60}",
                "score": 0.8 * right + 0.2 * rng.random(), "acc": right, "work": rng.random(),
                "outcome": rng.choice(["ok", "mismatch", "error"]), "stopped": "no",
            }  # fmt: skip
            out.write(json.dumps(row) + "\n")
    return str(file)


def rows() -> list[list[str]]:
    """A line for each way to compare: median seconds, size of the page."""
    made = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        sides = [
            evaluation(folder / f"{n}.jsonl", p) for n, p in (("base", 0.4), ("trained", 0.42))
        ]
        for name, more in WAYS.items():
            seconds = []
            for _ in range(REPEAT):
                command = [
                    sys.executable,
                    "-m",
                    "tools.compare",
                    *sides,
                    "--out",
                    str(folder / "out"),
                    *more,
                ]
                start = time.perf_counter()
                subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
                seconds.append(time.perf_counter() - start)
            size = (folder / "out/compare.html").stat().st_size
            made.append([name, f"{statistics.median(seconds):.1f} s", f"{size // 1000} kB"])
    return made
