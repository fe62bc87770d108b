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

from preflight import tables
from preflight.mistakes import Mistake
from rewards._limits.calls import Limits, RewardError, call
from rewards._names import load
from rewards._options import options_of
from rewards._rows import RowError, ground_truth_of, info_of, read_rows, response_of

ROWS_AT_ONCE = 1024
ROWS_SHOWN = 5  # bad ones, and those that were stopped


class Broken(Exception):
    """A reward raised; the message is where, and its traceback."""


async def score_rows(
    name: str, rows: list[tuple[int, dict | RowError]], options: dict, limits: Limits
) -> list[dict | RowError]:
    """One result a row. Broken if the reward raises, Mistake if it does because of an option."""

    async def score(number: int, row) -> dict | RowError:
        try:
            if isinstance(row, RowError):
                raise row
            values = (
                row.get("data_source", ""),
                response_of(row),
                ground_truth_of(row),
                info_of(row),
            )
            return await call(f"pkg://rewards.{name}", "compute_score", values, options, limits)
        except RowError as error:
            return error
        except RewardError as error:
            kind, _, message = error.cause.partition(": ")
            known = options_of(load(name))
            if kind == "ValueError" and set(re.findall(r"\w+", message)) & set(known):
                raise Mistake(message) from None
            raise Broken(f"{number}: {error}") from None

    tasks = [asyncio.ensure_future(score(*row)) for row in rows]
    try:
        return await asyncio.gather(*tasks)
    finally:  # nothing to do, unless one has raised
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def score_file(name: str, path: Path, out, options: dict, limits: Limits) -> int:
    """Score the file, and print a table; the number of bad rows. out: for the rows with their results, or None."""
    from tqdm import tqdm

    scores: dict[str, list[float]] = defaultdict(list)
    shown: Counter[str] = Counter()

    def show(kind: str, number: int, message: object) -> None:
        shown[kind] += 1
        if shown[kind] <= ROWS_SHOWN:
            tqdm.write(f"{path}:{number}: {message}", file=sys.stderr)

    done, start, rows = 0, time.perf_counter(), read_rows(path)
    loop = asyncio.new_event_loop()  # one for all chunks: what a reward keeps, it keeps by loop
    with tqdm(unit=" rows", disable=None) as bar, contextlib.closing(loop):
        while chunk := list(islice(rows, ROWS_AT_ONCE)):
            try:
                results = loop.run_until_complete(score_rows(name, chunk, options, limits))
            except Broken as broken:
                raise Broken(f"{path}:{broken}") from None
            for (number, row), result in zip(chunk, results, strict=True):
                if isinstance(result, RowError) or isinstance(row, RowError):
                    show("bad", number, result)
                    continue
                done += 1
                outcome = str(result.get("outcome", result.get("band", "scored")))
                if result["stopped"] != "no":
                    outcome = f"stopped: {result['stopped']}"
                    show("stopped", number, outcome)
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
