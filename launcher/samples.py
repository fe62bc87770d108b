"""A few answers of a step on the screen, every `lab.show_samples` steps, from RUN/rollouts/STEP.jsonl."""

import json
import random
import re
import shutil
import time
from pathlib import Path

GIVEN = (
    "input",
    "output",
    "gts",
    "score",
    "step",
    "uid",
)  # of a row; all else is a part of the reward
PARTS = 3  # of the reward that are shown
PLACE = re.compile(r"_\d+_\d+$")  # behind a group's uid: the number of the sample, and of its turn
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]+")  # an answer moves no cursor and sets no title


def groups(rows: list[dict]) -> list[list[dict]]:
    """Answers to the same prompt, in the order of the file."""
    found: dict[str, list[dict]] = {}
    for row in rows:
        uid = row.get("uid")
        key = PLACE.sub("", uid) if isinstance(uid, str) else str(row.get("input"))
        found.setdefault(key, []).append(row)
    return list(found.values())


def question(prompt: str) -> str:
    """The last line that the user wrote, from a decoded chat prompt."""
    lines = [line.strip() for line in prompt.strip().splitlines() if line.strip()]
    if len(lines) > 1 and lines[-1] == "assistant":
        return lines[-2]
    return lines[-1] if lines else ""


def one_line(text: str) -> str:
    """An answer without its fence, on one line."""
    words = (word for word in text.split() if not word.startswith("```"))
    return UNPRINTABLE.sub(" ", " ".join(words))


def is_masked(row: dict) -> bool:
    """Whether the answer could not be graded."""
    return row.get("masked") == 1 or not isinstance(row.get("score"), int | float)


def cut(text: str, width: int) -> str:
    """At most so many characters."""
    return text if len(text) <= width else text[: max(1, width - 1)] + "…"


def line(name: str, row: dict, width: int) -> str:
    """An answer: its place, its score, itself, and some parts of the reward."""
    score = "masked" if is_masked(row) else f"{row['score']:.3f}"
    parts = []
    for part, value in row.items():
        if part in GIVEN or part in ("masked", "reward") or value in (None, ""):
            continue
        parts.append(f"{part}={value:.3g}" if isinstance(value, int | float) else f"{part}={value}")
    end = one_line("  [" + ", ".join(parts[:PARTS]) + "]") if parts else ""
    begin = f"{name:>17} {score:>8}  "
    room = max(20, width - len(begin) - len(end))
    return cut(
        begin + cut(one_line(str(row.get("output", ""))), room) + " " * bool(end) + end, width
    )


def shown(step: int, rows: list[dict], width: int) -> list[str]:
    """The best, the worst and a middle answer of one group, which the step's number chooses."""
    found = groups(rows)
    if not found:
        return []
    group = random.Random(step).choice(found)
    graded = sorted((row for row in group if not is_masked(row)), key=lambda row: -row["score"])
    ordered = graded + [row for row in group if is_masked(row)]
    places = {"best": 0, "middle": len(ordered) // 2, "worst": len(ordered) - 1}
    if len(ordered) < 3:
        places = {"best": 0, "worst": 1} if len(ordered) == 2 else {"answer": 0}
    head = cut(f"{'':>9}step {step}: {one_line(question(str(group[0].get('input', ''))))}", width)
    return [head, *(line(name, ordered[place], width) for name, place in places.items())]


class Samples:
    """What is to be shown of the steps that are made.

    Args:
        run_dir: the run's folder.
        every: show the answers of each step that this divides; 0: of none.
    """

    def __init__(self, run_dir: Path, every: int):
        self.folder, self.every = run_dir / "rollouts", every
        # On resume a step may have answers of a start before: those of this one are written later.
        self.since = time.time() - 1
        self.waiting: list[int] = []

    def made(self, step: int) -> None:
        """A step has ended; its answers may come a moment later, since verl writes them in a thread."""
        if self.every > 0 and step > 0 and step % self.every == 0:
            self.waiting.append(step)

    def lines(self) -> list[str]:
        """The lines of the steps whose answers are there by now."""
        found, width = [], shutil.get_terminal_size((120, 24)).columns
        for step in list(self.waiting):
            rows = self.rows(self.folder / f"{step}.jsonl")
            if rows is not None:
                self.waiting.remove(step)
                found += shown(step, rows, width)
        del self.waiting[:-2]  # of a step that wrote none
        return found

    def rows(self, file: Path) -> list[dict] | None:
        """All answers; None if they are not there yet, or not all."""
        try:
            if file.stat().st_mtime < self.since:
                return None
            text = file.read_text(errors="replace")
            return [json.loads(row) for row in text.splitlines()] if text.endswith("\n") else None
        except (OSError, ValueError):
            return None
