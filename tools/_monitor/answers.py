"""The answers of a step, by group, and the same prompt over the steps: from rollouts/ and validation/STEP.jsonl."""

import hashlib
import json
import math
from collections import OrderedDict
from pathlib import Path
from statistics import fmean, stdev
from threading import Lock

from launcher.samples import GIVEN, groups, question

LONGEST = 20_000  # characters of one text that are sent to the page
KEPT_FILES = 24  # read ones that are kept in memory
EPSILON = 1e-6  # added to the std, as verl's GRPO does


class Files:
    """Rows of files, read once as long as they don't change; the least used are forgotten."""

    def __init__(self) -> None:
        self.kept: OrderedDict[Path, tuple[tuple, list[dict]]] = OrderedDict()
        self.lock = Lock()

    def rows(self, file: Path) -> list[dict]:
        """The rows of a file. Raises OSError if it is not there."""
        found = file.stat()
        stamp = (found.st_mtime_ns, found.st_size)
        with self.lock:
            if file in self.kept and self.kept[file][0] == stamp:
                self.kept.move_to_end(file)
                return self.kept[file][1]
        rows = read(file)
        with self.lock:
            self.kept[file] = (stamp, rows)
            self.kept.move_to_end(file)
            while len(self.kept) > KEPT_FILES:
                self.kept.popitem(last=False)
        return rows


def read(file: Path) -> list[dict]:
    """The rows of a file; a line that is half-written is left out."""
    rows = []
    with open(file, errors="replace") as lines:
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                rows.append(row)
    return rows


def number(value: object) -> float | None:
    """A value that is a number and finite, else None."""
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return None


def score(row: dict) -> float | None:
    """The score of an answer; None if it was masked."""
    return None if row.get("masked") == 1 else number(row.get("score"))


def advantages(scores: list[float | None], by_std: bool = True) -> list[float | None]:
    """The advantage of each answer within its group, as GRPO defines it: score - mean, divided by the std.

    Args:
        scores: of one group; None for an answer that takes no part.
        by_std: False: not divided (algorithm.norm_adv_by_std_in_grpo=false, Dr. GRPO).
    """
    taken = [s for s in scores if s is not None]
    if len(taken) < 2:
        return [None] * len(scores)
    mean, divisor = fmean(taken), (stdev(taken) + EPSILON if by_std else 1.0)
    return [None if s is None else (s - mean) / divisor for s in scores]


def prompt_id(prompt: str) -> str:
    """A short name of a prompt, for addresses."""
    return hashlib.sha1(prompt.encode(errors="replace")).hexdigest()[:16]


def text(value: object) -> str:
    """What a person can read of a value; long ones are cut, which they say."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    words = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(words) <= LONGEST:
        return words
    return f"{words[:LONGEST]}\n… cut here: {len(words) - LONGEST} more characters"


def parts(row: dict) -> dict[str, float | str | None]:
    """The parts of the reward that a row has: numbers and classes."""
    found: dict[str, float | str | None] = {}
    for name, value in row.items():
        if name in GIVEN:
            continue
        if isinstance(value, int | float):
            found[name] = number(value)
        elif isinstance(value, str) and value:
            found[name] = value[:200]
    return found


def shown(group: list[dict], by_std: bool) -> dict:
    """A group as the page takes it."""
    scores = [score(row) for row in group]
    taken = [s for s in scores if s is not None]
    prompt = text(group[0].get("input", ""))
    return {
        "id": prompt_id(str(group[0].get("input", ""))),
        "question": question(prompt)[:500],
        "prompt": prompt,
        "reference": text(group[0]["gts"]) if group[0].get("gts") is not None else None,
        "mean": fmean(taken) if taken else None,
        "std": stdev(taken) if len(taken) > 1 else None,
        "answers": [
            {
                "text": text(row.get("output", "")),
                "score": number(row.get("score")),
                "masked": s is None,
                "advantage": advantage,
                "parts": parts(row),
            }
            for row, s, advantage in zip(group, scores, advantages(scores, by_std), strict=True)
        ],
    }


ORDERS = {  # of groups: the name in an address → key
    "file": lambda g: 0,
    "best": lambda g: -mean_of(g),
    "worst": lambda g: mean_of(g),
    "spread": lambda g: -spread_of(g),
}


def mean_of(group: list[dict]) -> float:
    scores = [s for row in group if (s := score(row)) is not None]
    return fmean(scores) if scores else 0.0


def spread_of(group: list[dict]) -> float:
    scores = [s for row in group if (s := score(row)) is not None]
    return stdev(scores) if len(scores) > 1 else 0.0


def page_of(rows: list[dict], by_std: bool, order: str, words: str, begin: int, count: int) -> dict:
    """Some groups of a step: those that hold `words`, sorted, from the `begin`-th on."""
    found = groups(rows)
    if words:
        needle = words.casefold()
        found = [
            g
            for g in found
            if any(needle in f"{r.get('input')}\n{r.get('output')}".casefold() for r in g)
        ]
    found.sort(key=ORDERS[order])
    return {
        "groups": [shown(group, by_std) for group in found[begin : begin + count]],
        "begin": begin,
        "of": len(found),
        "answers": sum(map(len, found)),
    }


def matrix(steps: dict[int, list[dict]], begin: int, count: int) -> dict:
    """The prompts of all validations: the mean score of each at each step."""
    scores: dict[str, dict[int, list[float]]] = {}
    prompts: dict[str, str] = {}
    for step, rows in steps.items():
        for row in rows:
            prompt = str(row.get("input", ""))
            name = prompt_id(prompt)
            prompts.setdefault(name, prompt)
            if (value := score(row)) is not None:
                scores.setdefault(name, {}).setdefault(step, []).append(value)

    def change(name: str) -> tuple:
        at = scores.get(name, {})
        means = [fmean(at[s]) for s in sorted(at)] or [0.0]
        return (means[0] - means[-1], prompts[name])  # what was learned first

    order = sorted(prompts, key=change)
    return {
        "steps": sorted(steps),
        "prompts": [
            {
                "id": name,
                "question": question(prompts[name])[:300],
                "scores": [
                    fmean(values) if (values := scores.get(name, {}).get(step)) else None
                    for step in sorted(steps)
                ],
            }
            for name in order[begin : begin + count]
        ],
        "begin": begin,
        "of": len(order),
    }


def history(steps: dict[int, list[dict]], name: str) -> list[dict]:
    """The answers to one prompt at each step."""
    made = []
    for step in sorted(steps):
        group = [row for row in steps[step] if prompt_id(str(row.get("input", ""))) == name]
        if group:
            made.append({"step": step, **shown(group, True)})
    return made
