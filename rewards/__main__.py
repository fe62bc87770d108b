"""Score a file of rows with any reward, by its name or its file.

    python -m rewards NAME --file rows.jsonl
    python -m rewards my_reward.py --file rows.jsonl --set bonus=0.1

A row holds the response (`solution_str`, `response` or `output`), the ground truth (`ground_truth`,
`gts`, or verl's `reward_model.ground_truth`; none where the reward needs none), `prompt` (a text or
messages) and `extra_info` (or `db` beside them). The function in a file of yours is `compute_score`.
With --check no response is needed: the rows' data is checked instead, as before a training.
A row that takes longer than --timeout, runs out of memory or kills its process is stopped, as in a run.
Exit code 2 for a mistake in what was given, bad rows included (the good ones are still scored);
1 for a reward that raises.
"""

import argparse
import json
import logging
import os
import sys
from pathlib import Path
from types import ModuleType

from preflight.mistakes import Mistake, unknown
from rewards._limits.calls import Limits, loaded
from rewards._names import names, path_of
from rewards._options import is_served, options_of, takes_any
from rewards._rows import RowError, place_of, read_rows
from rewards._score_file import Broken, score_file


def reward(name: str) -> ModuleType:
    """The module of a reward. Mistake for an unknown name, a file that isn't there or can't be imported."""
    try:
        path = path_of(name)
    except ValueError as error:
        raise Mistake(str(error)) from None
    if name.endswith(".py") and not Path(name).is_file():
        raise Mistake(f"no such file: {name}")
    return loaded(path, "compute_score")


def parse_options(module, pairs: list[str]) -> dict:
    known, options = options_of(module), {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise Mistake(f"--set takes key=value, not {pair!r}")
        if key not in known and not takes_any(module):
            raise Mistake(unknown("option", key, known))
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = {"True": True, "False": False, "None": None}.get(value, value)
    return options


def check(module, name: str, path: Path, options: dict) -> int:
    """Check the file's data; the number of faults."""
    if not hasattr(module, "row_faults"):
        raise Mistake(f"reward {name!r} has no data to check")
    numbers, rows, bad = [], [], 0
    for number, row in read_rows(path):
        if isinstance(row, RowError):
            bad += 1
            print(f"{place_of(path, number)}: {row}", file=sys.stderr)
        else:
            numbers.append(number)
            rows.append(row)
    faults = module.row_faults(rows, **options)
    for fault in faults:
        where = place_of(path, numbers[fault["index"]])
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
    parser.add_argument("name", help="a file of yours (FILE.py), or one of: " + ", ".join(names()))
    parser.add_argument("--file", required=True, type=Path, help="JSON lines, CSV or parquet")
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
    if not argv or argv[0].startswith("-"):
        return "python -m rewards NAME --help lists the options of a reward."
    try:
        known = options_of(reward(argv[0]))
    except Mistake as mistake:
        return str(mistake)
    lines = [f"  {name}={json.dumps(default)}" for name, default in known.items()]
    return "\n".join([f"options of {argv[0]}, with defaults:", *lines])


def main(argv: list[str]) -> int:
    if argv and not argv[0].startswith("-"):
        reward(argv[0])
    arguments = parser_for(argv).parse_args(argv)
    module = reward(arguments.name)
    options = parse_options(module, arguments.set)
    if is_served(module):
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
        return 2 if score_file(path_of(arguments.name), module, path, None, options, limits) else 0
    if not out.parent.is_dir():
        raise Mistake(f"no such folder: {out.parent}")
    with open(out, "w", encoding="utf-8") as file:
        return 2 if score_file(path_of(arguments.name), module, path, file, options, limits) else 0


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
