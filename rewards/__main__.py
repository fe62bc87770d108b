"""Score a file of rows with any reward, by name: `python -m rewards NAME --file rows.jsonl`.

A row holds the response (`solution_str`, `response` or `output`), the ground truth (`ground_truth`,
`gts`, or verl's `reward_model.ground_truth`) and `extra_info` (or `db` beside them).
With --check no response is needed: the rows' data is checked instead, as before a training.
A row that takes longer than --timeout, runs out of memory or kills its process is stopped, as in a run.
Exit code 2 for a mistake in what was given, bad rows included (the good ones are still scored);
1 for a reward that raises.
"""

import argparse
import asyncio
import contextlib
import difflib
import importlib
import json
import logging
import math
import os
import re
import sys
import time
from collections import Counter, defaultdict
from itertools import islice
from pathlib import Path

from rewards._limits.calls import Limits, RewardError, call
from rewards._options import options_of
from rewards._rows import RowError, ground_truth_of, info_of, read_rows, response_of

ROWS_AT_ONCE = 1024
ROWS_SHOWN = 5  # bad ones, and those that were stopped


class Mistake(Exception):
    """The user's; the message says what to do."""


class Broken(Exception):
    """A reward raised; the message says where."""


def names() -> list[str]:
    return sorted(f.stem for f in Path(__file__).parent.glob("*.py") if not f.stem.startswith("_"))


def suggest(given: str, known: list[str]) -> str:
    close = difflib.get_close_matches(given, known, 1)
    return (f"did you mean {close[0]}? " if close else "") + f"Available: {', '.join(known)}"


def load(name: str):
    if name not in names():
        raise Mistake(f"unknown reward {name!r}. {suggest(name, names())}")
    try:
        return importlib.import_module(f"rewards.{name}")
    except ImportError as error:
        raise Mistake(f"reward {name!r} cannot be loaded: {error}") from None


def parse_options(function, pairs: list[str]) -> dict:
    known, options = options_of(function), {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise Mistake(f"--set takes key=value, not {pair!r}")
        if key not in known:
            raise Mistake(f"unknown option {key!r}. {suggest(key, list(known))}")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = {"True": True, "False": False, "None": None}.get(value, value)
    return options


async def score_rows(
    name: str, rows: list[tuple[int, dict]], options: dict, limits: Limits
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
            known = options_of(load(name).compute_score)
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


def finite(value):
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {key: finite(part) for key, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def run(name: str, path: Path, out, options: dict, limits: Limits) -> int:
    """Score the file; the number of bad rows."""
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
                if isinstance(result, RowError):
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
    print_table(scores, done)
    print(f"{done} rows in {seconds:.2f} s ({done / seconds:.0f} rows/s)")
    if shown["stopped"]:
        print(f"{shown['stopped']} rows were stopped: they have no score", file=sys.stderr)
    if shown["bad"]:
        print(f"{shown['bad']} bad rows were left out", file=sys.stderr)
    return shown["bad"]


def print_table(scores: dict[str, list[float]], done: int) -> None:
    print(f"{'outcome':20}{'count':>8}{'share':>8}{'mean score':>12}")
    everything = [score for part in scores.values() for score in part]
    parts = sorted(scores.items(), key=lambda item: -len(item[1]))
    for outcome, part in [*parts, ("all", everything)]:
        counted = [score for score in part if math.isfinite(score)]
        mean = f"{sum(counted) / len(counted):.4f}" if counted else "-"
        print(f"{outcome:20}{len(part):8}{len(part) / max(1, done):8.1%}{mean:>12}")


def check(module, name: str, path: Path, options: dict) -> int:
    """Check the file's data; the number of faults."""
    if not hasattr(module, "row_faults"):
        raise Mistake(f"reward {name!r} has no data to check")
    numbers, rows, bad = [], [], 0
    for number, row in read_rows(path):
        if isinstance(row, RowError):
            bad += 1
            print(f"{path}:{number}: {row}", file=sys.stderr)
        else:
            numbers.append(number)
            rows.append(row)
    faults = module.row_faults(rows, **options)
    for fault in faults:
        where = f"{path}:{numbers[fault['index']]}"
        print(f"{where}: {fault['outcome']}: {fault['message']}", file=sys.stderr)
    print(f"{len(rows)} rows, {len({fault['index'] for fault in faults}) + bad} with faults")
    return len(faults) + bad


def parser_for(argv: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rewards",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=help_options(argv),
    )
    parser.add_argument("name", help="one of: " + ", ".join(names()))
    parser.add_argument("--file", required=True, type=Path, help="JSON lines or parquet")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
                        help="options of the reward")  # fmt: skip
    parser.add_argument("--out", type=Path, help="write each row with its `result`, as JSON lines")
    parser.add_argument("--force", action="store_true", help="overwrite --out")
    parser.add_argument("--check", action="store_true", help="check the rows' data, score nothing")
    parser.add_argument("--timeout", type=float, metavar="S",
                        help=f"seconds that a row may take ({Limits().timeout_s:.0f}; a reward that"
                        " limits itself has its own)")  # fmt: skip
    return parser


def help_options(argv: list[str]) -> str:
    """The options of the reward that is named, if one is."""
    if not argv or argv[0] not in names():
        return "python -m rewards NAME --help lists the options of a reward."
    try:
        known = options_of(load(argv[0]).compute_score)
    except Mistake as mistake:
        return str(mistake)
    lines = [f"  {name}={json.dumps(default)}" for name, default in known.items()]
    return "\n".join([f"options of {argv[0]}, with defaults:", *lines])


def main(argv: list[str]) -> int:
    if argv and not argv[0].startswith("-") and argv[0] not in names():
        raise Mistake(f"unknown reward {argv[0]!r}. {suggest(argv[0], names())}")
    arguments = parser_for(argv).parse_args(argv)
    module = load(arguments.name)
    function = module.compute_score
    options = parse_options(function, arguments.set)
    if "reward_router_address" in options_of(function):
        raise Mistake(
            f"reward {arguments.name!r} scores inside of a run, where verl serves its model"
        )
    path, out = arguments.file, arguments.out
    if not path.is_file():
        raise Mistake(f"no such file: {path}")
    if arguments.check:
        return 2 if check(module, arguments.name, path, options) else 0
    if out and out.exists() and (not arguments.force or out.samefile(path)):
        raise Mistake(f"{out} exists: choose another name, or add --force to overwrite it")
    limits = Limits(processes=os.cpu_count() or 1)
    if arguments.timeout is not None:
        if not arguments.timeout > 0:
            raise Mistake(f"--timeout must be more than 0 s, not {arguments.timeout:g}")
        limits = limits._replace(timeout_s=arguments.timeout, loop_timeout_s=arguments.timeout)
    logging.getLogger("rewards._limits.calls").setLevel(
        logging.CRITICAL
    )  # stopped rows are shown here
    if not out:
        return 2 if run(arguments.name, path, None, options, limits) else 0
    if not out.parent.is_dir():
        raise Mistake(f"no such folder: {out.parent}")
    with open(out, "w", encoding="utf-8") as file:
        return 2 if run(arguments.name, path, file, options, limits) else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (Mistake, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except Broken as broken:
        print(f"error: {broken}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
