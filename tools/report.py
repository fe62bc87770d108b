"""What a run of RL learned: a table before and after, three questions, a plot.

    python -m tools.report outputs/demo/2026-11-21_08-00-00/grpo

Reads the validation answers of the first and the last validation (validation/STEP.jsonl) and
metrics.jsonl of the run's folder; writes learning.png there.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import fmean, pstdev

from rich.console import Console
from rich.table import Table
from rich.text import Text

from launcher.progress import VALIDATION, pick, read_metrics

PARTS = {  # what the reward returned with each answer → what the table calls it
    "acc": "right answers",
    "executed": "answers that run",
    "score": "reward",
}
TEXTS = ("input", "output", "gts", "uid")  # of a row: what is no part of the reward


def answers(file: Path) -> list[dict]:
    """The answers of one validation."""
    with open(file) as lines:
        return [json.loads(line) for line in lines]


def numbers(rows: list[dict], part: str) -> list[float]:
    """A part of the answers that have it; a class, `PART/VALUE`, is 1 or 0."""
    name, _, value = part.partition("/")
    if value:
        return [float(row[name] == value) for row in rows if name in row]
    return [row[name] for row in rows if isinstance(row.get(name), int | float)]


def parts_of(rows: list[dict]) -> dict[str, str]:
    """Every part of the reward: its name in the rows, as `numbers` takes it → in the table."""
    parts = {}
    for row in rows:
        for name, value in row.items():
            if isinstance(value, str) and name not in TEXTS:
                parts[f"{name}/{value}"] = f"{name}: {value}"
            elif isinstance(value, int | float) and name not in ("step", "reward"):
                parts[name] = PARTS.get(name, name)
    return dict(sorted(parts.items()))


def validations(run: Path) -> list[Path]:
    """The validation files of a run, first to last."""
    return sorted((run / "validation").glob("*.jsonl"), key=lambda file: int(file.stem))


def comparison(before: list[dict], after: list[dict], everything: bool) -> Table:
    """The table before and after: a few parts, or all of them with their standard deviations."""
    table = Table(title=f"{len(after)} held-out questions, greedy answers", title_justify="left")
    table.add_column("")
    for column in ("before", "after", "change", *(("std before", "after") if everything else ())):
        table.add_column(column, justify="right")
    for part, name in (parts_of(before + after) if everything else PARTS).items():
        old, new = numbers(before, part), numbers(after, part)
        if not old or not new:
            continue
        means = fmean(old), fmean(new)
        cells = [f"{means[0]:.3f}", f"{means[1]:.3f}", f"{means[1] - means[0]:+.3f}"]
        spread = [f"{pstdev(values):.3f}" for values in (old, new)] if everything else []
        table.add_row(name, *cells, *spread)
    return table


def examples(before: list[dict], after: list[dict], count: int) -> list[tuple[str, dict, dict]]:
    """Questions to show: first those that became right, then those still wrong, then the others."""
    old, new = ({row["input"]: row for row in rows} for rows in (before, after))

    def order(prompt: str) -> tuple:
        was, now = (row[prompt].get("acc", row[prompt]["score"]) or 0 for row in (old, new))
        return (was - now, now, prompt)

    return [(p, old[p], new[p]) for p in sorted(old.keys() & new.keys(), key=order)[:count]]


def question(prompt: str) -> str:
    """The last line that the user wrote, from a decoded chat prompt."""
    lines = [line for line in prompt.strip().splitlines() if line.strip()]
    return lines[-2] if len(lines) > 1 and lines[-1] == "assistant" else lines[-1]


def one_line(text: str) -> str:
    """An answer without its fence, on one line."""
    return " ".join(line for line in text.split() if not line.startswith("```"))


def plot(run: Path, file: Path) -> None:
    """Reward of each step, and validation accuracy, over the steps."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    steps = sorted(read_metrics(run / "metrics.jsonl").items())
    reward = [(s, v) for s, m in steps if (v := pick(m, "critic/score/mean")) is not None]
    accuracy = [(s, v) for s, m in steps if (v := pick(m, VALIDATION)) is not None]
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    if reward:
        axes.plot(
            *zip(*reward, strict=True),
            color="#9db7d5",
            linewidth=1.2,
            label="reward of sampled answers",
        )
    if accuracy:
        axes.plot(
            *zip(*accuracy, strict=True),
            "o-",
            color="#c0392b",
            markersize=4,
            label="validation",
        )
    axes.set(xlabel="step", title=run.resolve().name)
    if all(0 <= value <= 1 for _, value in reward + accuracy):
        axes.set_ylim(0, 1)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")
    figure.savefig(file, dpi=150)
    plt.close(figure)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.report", description=__doc__.splitlines()[0]
    )
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("--examples", type=int, default=3, help="questions to show")
    parser.add_argument("--all", action="store_true", help="all parts of the reward, with spread")
    args = parser.parse_args(argv)
    files = validations(args.run)
    if len(files) < 2:
        print(f"error: {args.run} has fewer than two validations in validation/", file=sys.stderr)
        return 2
    before, after = answers(files[0]), answers(files[-1])
    console = Console(highlight=False, soft_wrap=True)
    console.print()
    console.print(comparison(before, after, args.all))
    for prompt, old, new in examples(before, after, args.examples):
        console.print(Text(f"\n{question(prompt)}", style="bold"))
        for name, row in (("before", old), ("after", new)):
            mark = "✓" if row.get("acc") else "✗"
            if "acc" not in row:
                mark = "–" if row["score"] is None else f"{row['score']:.2f}"
            console.print(Text(f"  {name:<7}{mark}  {one_line(row['output'])}"))
        reference = old["gts"] if isinstance(old["gts"], str) else old["gts"][0]
        console.print(Text(f"  reference      {one_line(reference)}", style="dim"))
    picture = args.run / "learning.png"
    plot(args.run, picture)
    console.print(f"\nreward and validation over the steps: {picture}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
