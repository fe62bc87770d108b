"""What a run has learned: held-out answers before and after it, with intervals, some questions, a plot.

    python -m tools.report outputs/demo/2026-11-21_08-00-00/grpo
    python -m tools.report RUN --all            every part of the reward, with its standard deviation
    python -m tools.report answers.jsonl        an evaluation: means with intervals

Of a run of RL it reads the first and the last validation (RUN/validation/STEP.jsonl) and RUN/metrics.jsonl; of SFT, DPO
and reward models the losses, accuracies and margins. Writes RUN/learning.png. Two runs: tools.compare.
"""

import argparse
import sys
from pathlib import Path
from statistics import fmean, pstdev

import numpy as np
import yaml
from rich.console import Console
from rich.text import Text

from launcher.samples import one_line, question
from preflight import tables
from preflight.mistakes import Mistake
from tools import Parser, _report_curves, guarded
from tools._compare import statistics
from tools._compare.reading import Answers, lines, read, validations
from tools._compare.text import between

PARTS = {  # what the reward returned with each answer → what the table calls it
    "acc": "right answers",
    "executed": "answers that run",
    "score": "reward",
}
TEXTS = ("input", "output", "gts", "uid")  # of a row: what is no part of the reward


def number(row: dict, part: str) -> float | None:
    """A part of an answer, None if it has none; a class, `PART/VALUE`, is 1 or 0."""
    found = row.get(part)
    if found is None and "/" in part:
        name, _, value = part.rpartition("/")
        return float(row[name] == value) if isinstance(row.get(name), str) else None
    return found if isinstance(found, int | float) else None


def numbers(rows: list[dict], part: str) -> list[float]:
    """A part of the answers that have it."""
    return [value for row in rows if (value := number(row, part)) is not None]


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


def title(run: Path, rows: list[dict]) -> str:
    """What was compared: how many questions, and how they were answered, as far as the run's config says it."""
    questions = len({row["input"] for row in rows})
    each = "" if len(rows) == questions else f", {len(rows)} answers"
    file = run / "resolved.yaml"
    try:
        config = yaml.safe_load(file.read_text()) if file.exists() else {}
    except yaml.YAMLError as error:
        raise Mistake(f"{file} is broken: {' '.join(str(error).split())[:200]}") from None
    try:
        sampled = config["actor_rollout_ref"]["rollout"]["val_kwargs"]["do_sample"]
    except KeyError:
        return f"{questions} held-out questions{each}"
    return f"{questions} held-out questions{each or ', ' + ('sampled' if sampled else 'greedy') + ' answers'}"


def comparison(before: list[dict], after: list[dict], everything: bool) -> str:
    """The table before and after: a few parts, or all of them with their standard deviations."""
    spread = ("std before", "std after") if everything else ()
    heads = ["", "before", "after", "change", "95 % interval", *spread]
    both = before + after
    shown = parts_of(both) if everything else PARTS
    shown = {
        part: name for part, name in shown.items() if numbers(before, part) and numbers(after, part)
    }
    old, new = (by_question(rows, list(shown)) for rows in (before, after))
    shared = [question for question in old if question in new]
    changes = np.array([new[q] - old[q] for q in shared]).reshape(len(shared), len(shown))
    rows = []
    for (part, name), change in zip(shown.items(), intervals(changes), strict=True):
        values = numbers(before, part), numbers(after, part)
        means = fmean(values[0]), fmean(values[1])
        cells = [f"{means[0]:.3f}", f"{means[1]:.3f}", f"{means[1] - means[0]:+.3f}", change]
        rows.append(
            [name, *cells, *([f"{pstdev(some):.3f}" for some in values] if everything else [])]
        )
    return tables.text(heads, rows)


def by_question(rows: list[dict], parts: list[str]) -> dict[tuple, np.ndarray]:
    """The mean of each part over the answers to each question; NaN where none has it."""
    found: dict[tuple, list] = {}
    for row in rows:
        values = [number(row, part) for part in parts]
        key = (row["input"], str(row["gts"]))
        found.setdefault(key, []).append([np.nan if v is None else v for v in values])
    means = {}
    for key, group in found.items():
        values = np.array(group, dtype=float)
        there = ~np.isnan(values)
        sums = np.where(there, values, 0).sum(0)
        means[key] = np.where(there.any(0), sums / np.maximum(there.sum(0), 1), np.nan)
    return means


def intervals(values: np.ndarray, sign: str = "+") -> list[str]:
    """The 95 % interval of the mean of each column, (Q, K); questions without it are left out."""
    there = ~np.isnan(values)
    texts = ["-"] * values.shape[1]
    # parts that the same questions have are drawn together
    for mask in {column.tobytes(): column for column in there.T}.values():
        columns = [k for k in range(values.shape[1]) if (there[:, k] == mask).all()]
        if mask.sum() > 1:
            found = statistics.estimates(values[np.ix_(mask, columns)])
            for k, one in zip(columns, found, strict=True):
                texts[k] = between(one, sign)
    return texts


def levels(rows: list[dict], everything: bool) -> str:
    """The table of a single validation or evaluation: means with intervals, no change."""
    shown = parts_of(rows) if everything else PARTS
    shown = {part: name for part, name in shown.items() if numbers(rows, part)} or parts_of(rows)
    means = np.array(list(by_question(rows, list(shown)).values()))
    made = []
    for (part, name), interval in zip(shown.items(), intervals(means, ""), strict=True):
        values = numbers(rows, part)
        made.append([name, f"{fmean(values):.3f}", interval, f"{pstdev(values):.3f}"])
    return tables.text(["", "mean", "95 % interval", "std"], made)


def examples(before: list[dict], after: list[dict], count: int) -> list[tuple[str, dict, dict]]:
    """Questions to show: first those that became right, then those with no change, then those that became wrong."""
    old, new = ({row["input"]: row for row in rows} for rows in (before, after))

    def order(prompt: str) -> tuple:
        was, now = (row[prompt].get("acc", row[prompt]["score"]) or 0 for row in (old, new))
        return (was - now, now, prompt)

    return [(p, old[p], new[p]) for p in sorted(old.keys() & new.keys(), key=order)[:count]]


def of_run(run: Path, args: argparse.Namespace, console: Console) -> None:
    """The report of a run's folder. Raises Mistake if there is nothing to report."""
    files = validations(run)
    console.print()
    if files:
        checked = [list(lines(file)) for file in (files[0], files[-1])]
        before, after = (
            known(rows, file) for rows, file in zip(checked, (files[0], files[-1]), strict=True)
        )
        console.print(f"{title(run, after)}\n", markup=False)
        if len(files) == 1:
            console.print(levels(after, args.all), markup=False)
            console.print(
                f"\none validation, of step {files[0].stem}: there is no change to show",
                markup=False,
            )
        else:
            console.print(comparison(before, after, args.all), markup=False)
            show_examples(before, after, args.examples, console)
    elif metrics := _report_curves.table(run):
        console.print(f"{_report_curves.summary(run)}\n", markup=False)
        console.print(metrics, markup=False)
    else:
        raise Mistake(f"{run} has neither validations (validation/STEP.jsonl) nor metrics (metrics.jsonl): name the"
                      " folder of a run that has made a step, or an evaluation")  # fmt: skip
    picture = run / "learning.png"
    if _report_curves.plot(run, picture):
        what = "reward and the validation" if files else "losses"
        console.print(f"\nplot of the {what} over the steps: {picture}", markup=False)


def known(rows: list[dict], file: Path) -> list[dict]:
    """The rows of a validation. Raises Mistake if they are something else."""
    if not rows or any(not {"input", "output", "gts"} <= row.keys() for row in rows):
        raise Mistake(
            f"{file} is empty, or no validation: rows with input, output, gts and score were expected"
        )
    return rows


def of_file(found: list[Answers], everything: bool, console: Console) -> None:
    """The report of an evaluation, a table for each of its models."""
    for one in found:
        rows = [answer.parts | {"input": answer.prompt, "gts": answer.truth} for answer in one.rows]
        if not any(numbers(rows, part) for part in parts_of(rows)):
            raise Mistake(f"{one.source} has no score: give tools.evaluate a reward=NAME")
        questions = len({(row["input"], row["gts"]) for row in rows})
        each = "" if len(rows) == questions else f", {len(rows)} answers"
        console.print(f"\n{one.name}: {questions} questions{each}\n", markup=False)
        console.print(levels(rows, everything), markup=False)


def show_examples(before: list[dict], after: list[dict], count: int, console: Console) -> None:
    """Some questions with both answers."""
    for prompt, old, new in examples(before, after, count):
        console.print(Text(f"\n{question(prompt)}", style="bold"))
        for name, row in (("before", old), ("after", new)):
            mark = "✓" if row.get("acc") else "✗"
            if "acc" not in row:
                mark = "–" if row["score"] is None else f"{row['score']:.2f}"
            console.print(Text(f"  {name:<7}{mark}  {one_line(row['output'])}"))
        reference = old["gts"] if isinstance(old["gts"], str) else old["gts"][0]
        console.print(Text(f"  reference      {one_line(reference)}", style="dim"))


def report(args: argparse.Namespace) -> int:
    """Print what there is to say; returns the exit status."""
    console = Console(highlight=False, soft_wrap=True)
    if args.run.is_dir():
        of_run(args.run, args, console)
    elif args.run.is_file():
        of_file(read(args.run), args.all, console)
    else:
        raise Mistake(f"no such file or folder: {args.run}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser(prog="python -m tools.report", description=__doc__.splitlines()[0])
    parser.add_argument(
        "run", metavar="RUN", type=Path, help="a run's folder, or an evaluation's file"
    )
    parser.add_argument("--examples", type=int, default=3, help="questions to show (%(default)s)")
    parser.add_argument(
        "--all", action="store_true", help="every part of the reward, with its standard deviation"
    )
    args = parser.parse_args(argv)
    return guarded(lambda: report(args), OSError)


if __name__ == "__main__":
    sys.exit(main())
