"""What a run of RL has learned: held-out answers before and after it, some questions, a plot.

    python -m tools.report outputs/demo/2026-11-21_08-00-00/grpo
    python -m tools.report RUN --all            every part of the reward, with its standard deviation

Reads the first and the last validation (RUN/validation/STEP.jsonl) and RUN/metrics.jsonl; writes RUN/learning.png.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import fmean, pstdev

import yaml
from rich.console import Console
from rich.text import Text

from launcher.progress import VALIDATION, pick, read_metrics
from preflight import tables

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


def title(run: Path, rows: list[dict]) -> str:
    """What was compared: how many questions, and how they were answered, as far as the run's config says it."""
    questions = len({row["input"] for row in rows})
    each = "" if len(rows) == questions else f", {len(rows)} answers"
    file = run / "resolved.yaml"
    config = yaml.safe_load(file.read_text()) if file.exists() else {}
    try:
        sampled = config["actor_rollout_ref"]["rollout"]["val_kwargs"]["do_sample"]
    except KeyError:
        return f"{questions} held-out questions{each}"
    return f"{questions} held-out questions{each or ', ' + ('sampled' if sampled else 'greedy') + ' answers'}"


def comparison(before: list[dict], after: list[dict], everything: bool) -> str:
    """The table before and after: a few parts, or all of them with their standard deviations."""
    heads = ["", "before", "after", "change", *(("std before", "std after") if everything else ())]
    lines = []
    for part, name in (parts_of(before + after) if everything else PARTS).items():
        old, new = numbers(before, part), numbers(after, part)
        if not old or not new:
            continue
        means = fmean(old), fmean(new)
        cells = [f"{means[0]:.3f}", f"{means[1]:.3f}", f"{means[1] - means[0]:+.3f}"]
        spread = [f"{pstdev(values):.3f}" for values in (old, new)] if everything else []
        lines.append([name, *cells, *spread])
    return tables.text(heads, lines)


def examples(before: list[dict], after: list[dict], count: int) -> list[tuple[str, dict, dict]]:
    """Questions to show: first those that became right, then those with no change, then those that became wrong."""
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
    parser.add_argument("--examples", type=int, default=3, help="questions to show (%(default)s)")
    parser.add_argument(
        "--all", action="store_true", help="every part of the reward, with its standard deviation"
    )
    args = parser.parse_args(argv)
    files = validations(args.run)
    if len(files) < 2:
        print(f"error: {args.run} has fewer than two validations to compare (validation/STEP.jsonl). A run of RL makes"
              " one before it trains and one every trainer.test_freq steps.", file=sys.stderr)  # fmt: skip
        return 2
    before, after = answers(files[0]), answers(files[-1])
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"\n{title(args.run, after)}\n", markup=False)
    console.print(comparison(before, after, args.all), markup=False)
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
    console.print(
        f"\nplot of the reward and the validation over the steps: {picture}", markup=False
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
