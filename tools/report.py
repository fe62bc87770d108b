"""What a run of RL learned: a table before and after, three questions, a plot.

    python -m tools.report outputs/demo/2026-11-21_08-00-00/grpo

Reads the validation answers of the first and the last validation (validation/STEP.jsonl) and
metrics.jsonl of the run's folder; writes learning.png there.
"""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from plugins.progress import VALIDATION, pick, read_metrics

PARTS = {  # what the reward returned with each answer → what the table calls it
    "acc": "right answers (execution accuracy)",
    "executed": "answers that run",
    "score": "reward",
}


def answers(file: Path) -> list[dict]:
    """The answers of one validation."""
    with open(file) as lines:
        return [json.loads(line) for line in lines]


def mean(rows: list[dict], part: str) -> float | None:
    """Mean of a part over the answers that have it."""
    values = [row[part] for row in rows if isinstance(row.get(part), (int, float))]
    return sum(values) / len(values) if values else None


def validations(run: Path) -> list[Path]:
    """The validation files of a run, first to last."""
    return sorted((run / "validation").glob("*.jsonl"), key=lambda file: int(file.stem))


def comparison(before: list[dict], after: list[dict]) -> Table:
    """The table before and after."""
    table = Table(title=f"{len(after)} held-out questions, greedy answers", title_justify="left")
    table.add_column("")
    for column in ("before", "after", "change"):
        table.add_column(column, justify="right")
    for part, name in PARTS.items():
        old, new = mean(before, part), mean(after, part)
        if old is not None and new is not None:
            table.add_row(name, f"{old:.3f}", f"{new:.3f}", f"{new - old:+.3f}")
    return table


def examples(before: list[dict], after: list[dict], count: int) -> list[tuple[str, dict, dict]]:
    """Questions to show: first those that became right, then those still wrong, then the others."""
    old, new = ({row["input"]: row for row in rows} for rows in (before, after))

    def order(prompt: str) -> tuple:
        was, now = old[prompt].get("acc") or 0, new[prompt].get("acc") or 0
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
            label="validation accuracy",
        )
    axes.set(xlabel="step", ylim=(0, 1), title=run.resolve().name)
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
    args = parser.parse_args(argv)
    files = validations(args.run)
    if len(files) < 2:
        print(f"error: {args.run} has fewer than two validations in validation/", file=sys.stderr)
        return 2
    before, after = answers(files[0]), answers(files[-1])
    console = Console(highlight=False, soft_wrap=True)
    console.print()
    console.print(comparison(before, after))
    for prompt, old, new in examples(before, after, args.examples):
        console.print(Text(f"\n{question(prompt)}", style="bold"))
        for name, row in (("before", old), ("after", new)):
            mark = "✓" if row.get("acc") else "✗"
            console.print(Text(f"  {name:<7}{mark}  {one_line(row['output'])}"))
        gold = old["gts"] if isinstance(old["gts"], str) else old["gts"][0]
        console.print(Text(f"  gold      {one_line(gold)}", style="dim"))
    picture = args.run / "learning.png"
    plot(args.run, picture)
    console.print(f"\nreward and validation accuracy over the steps: {picture}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
