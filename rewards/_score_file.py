"""Every row of a file scored by a reward, with the limits of a run, and what came of it as a table."""

import asyncio
import contextlib
import json
import math
import re
import sys
import time
from collections import Counter, defaultdict
from itertools import islice
from pathlib import Path
from types import ModuleType

from preflight import tables
from preflight.mistakes import Mistake
from rewards._limits.calls import Limits, RewardError, call, shown
from rewards._options import options_of
from rewards._rows import (
    NO_TRUTH,
    RowError,
    ground_truth_of,
    info_of,
    place_of,
    read_rows,
    response_of,
)

ROWS_AT_ONCE = 1024
ROWS_SHOWN = 5  # bad ones, and those that were stopped


class Broken(Exception):
    """A reward raised; the message is where, in a few lines."""


def ground_truths(module, rows: list[dict | RowError], options: dict) -> list:
    """Of each row; None for one that has none and needs none, a RowError for one that needs it.

    Who needs one, the reward's own check of the data says; one without such a check is asked without.
    """
    found: list = []
    for row in rows:
        try:
            found.append(row if isinstance(row, RowError) else ground_truth_of(row))
        except RowError:
            found.append(None)
    without = [index for index, truth in enumerate(found) if truth is None]
    if without and hasattr(module, "row_faults"):
        for fault in module.row_faults([rows[index] for index in without], **options):
            found[without[fault["index"]]] = RowError(fault["message"])
    return found


async def score_rows(
    path: str,
    module: ModuleType,
    rows: list[tuple[int, dict | RowError]],
    options: dict,
    limits: Limits,
) -> list[dict | RowError]:
    """One result a row. Broken if the reward raises, Mistake if it does because of an option."""
    truths = ground_truths(module, [row for _, row in rows], options)

    async def score(number: int, row, truth) -> dict | RowError:
        try:
            if isinstance(truth, RowError):
                return truth
            values = (row.get("data_source", ""), response_of(row), truth, info_of(row))
            return await call(path, "compute_score", values, options, limits)
        except RowError as error:
            return error
        except RewardError as error:
            kind, _, message = error.cause.partition(": ")
            if kind == "ValueError" and set(re.findall(r"\w+", message)) & set(options_of(module)):
                raise Mistake(message) from None
            missing = "" if truth is not None else f"\n    the row has {NO_TRUTH}"
            raise Broken(
                f"{number}: {error.brief}\n    the row: {shown(values)}{missing}"
            ) from None

    tasks = [
        asyncio.ensure_future(score(*row, truth)) for row, truth in zip(rows, truths, strict=True)
    ]
    try:
        return await asyncio.gather(*tasks)
    finally:  # nothing to do, unless one has raised
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def score_file(
    reward: str, module: ModuleType, path: Path, out, options: dict, limits: Limits
) -> int:
    """Score the file, and print a table; the number of bad rows.

    Args:
        reward, module: the path of the reward, as verl's custom_reward_function.path, and its module.
        out: for the rows with their results, or None.
    """
    from tqdm import tqdm

    scores: dict[str, list[float]] = defaultdict(list)
    shown: Counter[str] = Counter()

    def tell(kind: str, number: int, message: object) -> None:
        shown[kind] += 1
        if shown[kind] <= ROWS_SHOWN:
            tqdm.write(f"{place_of(path, number)}: {message}", file=sys.stderr)

    done, start, rows = 0, time.perf_counter(), read_rows(path)
    loop = asyncio.new_event_loop()  # one for all chunks: what a reward keeps, it keeps by loop
    with tqdm(unit=" rows", disable=None) as bar, contextlib.closing(loop):
        while chunk := list(islice(rows, ROWS_AT_ONCE)):
            try:
                results = loop.run_until_complete(
                    score_rows(reward, module, chunk, options, limits)
                )
            except Broken as broken:
                raise Broken(f"{path}:{broken}") from None
            for (number, row), result in zip(chunk, results, strict=True):
                if isinstance(result, RowError) or isinstance(row, RowError):
                    tell("bad", number, result)
                    continue
                done += 1
                outcome = str(result.get("outcome", result.get("band", "scored")))
                if result["stopped"] != "no":
                    outcome = f"stopped: {result['stopped']}"
                    tell("stopped", number, outcome)
                scores[outcome].append(result["score"])
                if out:
                    out.write(json.dumps(finite({**row, "result": result}), default=str) + "\n")
            bar.update(len(chunk))
    seconds = time.perf_counter() - start
    print(table(scores))
    print(f"{done} rows in {seconds:.2f} s ({done / seconds:.0f} rows/s)")
    if shown["stopped"]:
        print(f"{shown['stopped']} rows were stopped: they have no score", file=sys.stderr)
    if shown["bad"]:
        print(f"{shown['bad']} bad rows were left out", file=sys.stderr)
    return shown["bad"]


def finite(value):
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {key: finite(part) for key, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(scores: dict[str, list[float]]) -> str:
    """Rows by outcome, the most frequent first: how many, their share, their mean score."""
    everything = [score for part in scores.values() for score in part]
    parts = sorted(scores.items(), key=lambda item: -len(item[1]))
    lines = []
    for outcome, part in [*parts, ("all", everything)]:
        counted = [score for score in part if math.isfinite(score)]
        mean = f"{sum(counted) / len(counted):.4f}" if counted else "-"
        lines.append((outcome, len(part), f"{len(part) / max(1, len(everything)):.1%}", mean))
    return tables.text(["outcome", "count", "share", "mean score"], lines)
