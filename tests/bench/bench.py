"""`make bench`: what the project claims to be fast at, side by side in one run, as tables.

    python tests/bench/bench.py [sql] [compose] [run] [rollout] [algos] [log_probs] [evaluate]

Timings depend on the machine and on what else it does: read the ratios.
"""

import inspect
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from launcher.metrics import read_metrics
from preflight.names import ROOT

REPEAT = 3
STEPS = 8
LOG_PROBS = [(1024, 4096, "float32"), (32_000, 512, "bfloat16"), (151_936, 256, "bfloat16")]
PHASES = (
    "gen",
    "old_log_prob",
    "ref",
    "values",
    "adv",
    "update_critic",
    "update_actor",
    "update_weights",
)


def show(title: str, head: list[str], rows: list[list[str]]) -> None:
    """Print one table."""
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(head):
        table.add_column(column, justify="right" if i else "left")
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, width=120).print(table)


def bench_sql() -> None:
    """(a) Rows per second of the SQL reward against bare sqlite3."""
    import bench_rewards_sql

    bench_rewards_sql.main([])


def bench_compose() -> None:
    """(b) Composing a config here, and verl's own `--cfg job`."""
    commands = {
        "python launch.py --cfg job --resolve": [
            sys.executable,
            "launch.py",
            "--cfg",
            "job",
            "--resolve",
        ],
        "python -m verl.trainer.main_ppo --cfg job": [
            sys.executable,
            "-m",
            "verl.trainer.main_ppo",
            "--cfg",
            "job",
        ],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(REPEAT):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - start)
    ours = statistics.median(seconds["python launch.py --cfg job --resolve"])
    rows = [
        [name, f"{(m := statistics.median(s)):.2f} s", f"{m / ours:.1f}"]
        for name, s in seconds.items()
    ]
    show(f"composing one job (median of {REPEAT})", ["command", "time", "ratio"], rows)


def first_step(run: Path, process: subprocess.Popen) -> float | None:
    """Seconds from now to the end of the first step; waits for the run's end."""
    start, first = time.perf_counter(), None
    while process.poll() is None:
        time.sleep(0.1)
        if first is None and any(step > 0 for step in read_metrics(run / "metrics.jsonl")):
            first = time.perf_counter() - start
    return first


def bench_run() -> None:
    """(c) The demo's GRPO: to the end of the first step, a step, the share of each phase."""
    ways = {
        "forked": [],
        "lab.hw.prefork=false": ["lab.hw.prefork=false"],
    }
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for i, (name, more) in enumerate(ways.items()):
            run = Path(folder) / str(i)
            command = [sys.executable, "launch.py", "experiment=demo_grpo", f"hydra.run.dir={run}",
                       f"trainer.total_training_steps={STEPS}", "trainer.val_before_train=false",
                       "trainer.test_freq=-1", "trainer.save_freq=-1", *more]  # fmt: skip
            first = first_step(run, subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL))
            metrics = read_metrics(run / "metrics.jsonl")
            if first is None or STEPS not in metrics:
                raise SystemExit(f"the run failed: {(run / 'log.txt').read_text()[-2000:]}")
            later = [metrics[step] for step in range(2, STEPS + 1)]
            step = statistics.median(m["timing_s/step"] for m in later)
            shares = {
                phase: statistics.median(m[f"timing_s/{phase}"] for m in later) / step
                for phase in PHASES
                if f"timing_s/{phase}" in later[0]
            }
            rows.append([name, f"{first:.1f} s", f"{step:.2f} s", shares])
    seen = [phase for phase in PHASES if any(phase in shares for *_, shares in rows)]
    rows = [
        [*row, *(f"{shares[p]:.0%}" if p in shares else "-" for p in seen)] for *row, shares in rows
    ]
    show(
        f"GRPO of the demo, {psutil.cpu_count()} cores, load {os.getloadavg()[0]:.1f} (a step: median of {STEPS - 1})",
        ["start", "to the end of step 1", "a step", *seen],
        rows,
    )


def bench_rollout() -> None:
    """(d) The batched rollout and verl's own, a prompt at a time."""
    import bench_rollout

    head = ["samples a step", "gen", "verl's", "ratio", "step", "with verl's", "ratio"]
    show("GRPO, the rollout a batch at a time and verl's own", head, bench_rollout.rows())


def bench_algos() -> None:
    """(e) The advantage functions of algos/ and verl's."""
    import bench_algos

    show(
        "advantages of answers of at most 512 tokens (in brackets: of verl's grpo_vectorized)",
        bench_algos.HEAD,
        bench_algos.rows(),
    )


def bench_log_probs() -> None:
    """(f) Log-probabilities of packed tokens and their gradient, in chunks and as verl takes them: one by one."""
    import torch
    from verl.utils import torch_functional

    ours = torch_functional.logprobs_from_logits_v2
    rows = []
    for words, tokens, dtype in LOG_PROBS:
        logits = torch.randn(tokens, words).to(getattr(torch, dtype)).requires_grad_()
        labels = torch.randint(words, (tokens,))
        seconds: dict = {ours: [], inspect.unwrap(ours): []}
        for _ in range(REPEAT):
            for log_probs, took in seconds.items():
                logits.grad, start = None, time.perf_counter()
                log_probs(logits, labels).sum().backward()
                took.append(time.perf_counter() - start)
        here, theirs = map(statistics.median, seconds.values())
        rows.append([f"{tokens} tokens of {words} words, {dtype}", f"{here:.3f} s", f"{theirs:.3f} s",
                     f"{theirs / here:.1f}"])  # fmt: skip
    head = ["", "here", "verl's", "ratio"]
    show(f"log-probabilities without flash-attn (median of {REPEAT})", head, rows)


def bench_evaluate() -> None:
    """(g) tools.evaluate beside the validation of a training: the same model, questions and reward."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "launch.py", "experiment=demo_grpo", f"hydra.run.dir={run}",
                   "trainer.total_training_steps=3", "trainer.val_before_train=false",
                   "trainer.test_freq=1"]  # fmt: skip
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        seconds = [
            m["timing_s/testing"]
            for m in read_metrics(run / "metrics.jsonl").values()
            if "timing_s/testing" in m
        ]
        questions = len((run / "validation/3.jsonl").read_text().splitlines())
        trainings = questions / statistics.median(seconds)
        rows = [["the training's own validation", f"{trainings:.1f}", "1.00"]]
        for engine in ("vllm", "transformers"):
            rates = []
            for i in range(REPEAT):
                command = [sys.executable, "-m", "tools.evaluate", run, "--engine", engine,
                           "--output", Path(folder) / f"{engine}{i}.jsonl"]  # fmt: skip
                done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
                rates.append(float(re.search(r"\(([\d.]+) answers/s\)", done.stderr)[1]))
            rate = statistics.median(rates)
            rows.append(
                [f"tools.evaluate --engine {engine}", f"{rate:.1f}", f"{rate / trainings:.2f}"]
            )
    show(
        f"{questions} questions of sql_demo, model=tiny (median of {REPEAT})",
        ["", "answers/s", "ratio"],
        rows,
    )


def bench_export() -> None:
    """Exporting a LoRA run of 0.5B: whole weights, and the adapter alone."""
    import bench_export

    show(
        "tools.export, random weights in the shape of Qwen2.5-0.5B",
        bench_export.HEAD,
        bench_export.rows(),
    )


def bench_compare() -> None:
    """tools.compare on 10,000 rows, from the command to the page."""
    import bench_compare

    title = f"tools.compare, two evaluations of {bench_compare.ROWS:,} rows (median of {bench_compare.REPEAT})"
    show(title, bench_compare.HEAD, bench_compare.rows())


def bench_monitor() -> None:
    """tools.monitor in a real browser: ten runs of 1,000 steps and 100,000 answers."""
    import bench_monitor

    title = f"tools.monitor, {psutil.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    show(title, bench_monitor.HEAD, bench_monitor.rows())


def main(argv: list[str]) -> None:
    """Run the named benchmarks, or all."""
    known = {"sql": bench_sql, "compose": bench_compose, "run": bench_run, "rollout": bench_rollout,
             "algos": bench_algos, "log_probs": bench_log_probs, "export": bench_export,
             "evaluate": bench_evaluate, "compare": bench_compare,
             "monitor": bench_monitor}  # fmt: skip
    if wrong := [name for name in argv if name not in known]:
        raise SystemExit(f"error: unknown benchmark {wrong[0]!r}. There is: {', '.join(known)}")
    for name in argv or known:
        known[name]()


if __name__ == "__main__":
    print(json.dumps({"python": sys.version.split()[0], "cores": psutil.cpu_count()}))
    main(sys.argv[1:])
