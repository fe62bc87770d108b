"""The answers of a job that sampled (_prompts.py): verl's dump of them, and metrics under verl's names."""

import itertools
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from plugins.rollout.reward_parts import Parts

NO_PART = {"input", "output", "gts", "score", "step", "uid", "row_id", "prompt", "data_source"}


def read(folder: Path) -> dict[str, list[list[dict]]]:
    """Groups of the answers to each prompt, by kind.

    An answer is a line of verl's dump, with `prompt` (messages) and `data_source` of its row.
    """
    columns = ["row_id", "prompt", "data_source"]
    rows = pq.read_table(folder.with_suffix(".parquet"), columns=columns).to_pylist()
    with open(folder / "validation/0.jsonl") as dump:
        lines = {line["row_id"]: line for line in map(json.loads, dump)}
    kinds = {"train": defaultdict(list), "val": defaultdict(list)}
    for row in rows:  # in their order; verl may have left out prompts that are too long
        if line := lines.get(row["row_id"]):
            kind, prompt, _ = row["row_id"].split("-")
            kinds[kind][prompt].append(line | row)
    return {kind: list(groups.values()) for kind, groups in kinds.items()}


def save(groups: list[list[dict]], file: Path) -> None:
    """Write answers as verl dumps those of a step; none, no file."""
    if groups:
        file.parent.mkdir(exist_ok=True)
        with open(file, "w") as out:
            for line in itertools.chain.from_iterable(groups):
                shown = {k: v for k, v in line.items() if k not in ("prompt", "data_source")}
                out.write(json.dumps(shown | {"step": int(file.stem)}, ensure_ascii=False) + "\n")


def parts(groups: list[list[dict]]) -> list[dict]:
    """What the reward returned with each answer."""
    lines = itertools.chain.from_iterable(groups)
    return [{k: v for k, v in line.items() if k not in NO_PART} for line in lines]


def summary(groups: list[list[dict]]) -> dict[str, float]:
    """What verl logs of the answers of a training step: the mean score, and the reward's parts."""
    scores = [x["score"] for x in itertools.chain.from_iterable(groups) if not x.get("masked")]
    metrics = {"critic/score/mean": sum(scores) / len(scores)} | Parts().summarize(parts(groups))
    metrics.pop("reward/reward", None)  # the score again, as verl's validation calls it
    return metrics


def held_out(groups: list[list[dict]], n: int) -> Iterator[tuple[str, float]]:
    """Validation metrics under verl's names: means over the answers, n to a prompt, that have a part."""
    for source in sorted({group[0]["data_source"] for group in groups}):
        values = defaultdict(list)
        for info in parts([group for group in groups if group[0]["data_source"] == source]):
            for part, value in info.items():
                if isinstance(value, int | float):
                    values[part].append(value)
        core = "acc" if "acc" in values else "reward"
        for part, numbers in values.items():
            section = "val-core" if part == core else "val-aux"
            yield f"{section}/{source}/{part}/mean@{n}", sum(numbers) / len(numbers)
