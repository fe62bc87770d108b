"""A sweep's table: each setting over its seeds, before and after, and whether one is the best.

    python -m tools.sweep multirun/TIME          a sweep that has ended, or one that runs
    python -m tools.sweep multirun/A multirun/B  two sweeps as one: further seeds, further settings

A sweep ends with it. It writes sweep.html, sweep.json and sweep.csv into its folder: docs/sweeps.md.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from launcher.results import EndedJob
from preflight.mistakes import Mistake, near
from tools import Parser, guarded
from tools._sweep import figures, final, reading, text, write


def shown(folders: list[Path], to: Path | None, ends: dict[Path, int] | None = None) -> str:
    """The table, and where it is written. Raises Mistake for a folder that holds no sweep.

    Args:
        to: the folder that it is written to; None: nothing is.
        ends: of jobs that have just ended, also of those that left nothing behind.
    """
    found = figures.find(reading.read(folders, ends))
    said = text.whole(found)
    if to is None:
        return said
    next_one = final.follows(found, to)
    page, *others = write.files(found, to, next_one)
    where = f"{near(page)}, {', '.join(file.name for file in others)}"
    return "\n\n".join(filter(None, [said, next_one, where]))


def of_ended(jobs: Iterable[EndedJob], taken: Iterable[Path] = ()) -> str:
    """What launch.py says at the end of a sweep.

    Args:
        taken: the sweep's folder, also where no job was left to do (a search that had ended).
    """
    jobs = list(jobs)
    folders = [*taken, *(job.run_dir.absolute().parent for job in jobs)]
    if not folders:  # --cfg job
        return ""
    ends = {job.run_dir.absolute(): job.code for job in jobs if job.code}
    folder = folders[0]
    try:
        begun = any(any(run_dir.iterdir()) for run_dir in folder.iterdir() if run_dir.is_dir())
        return shown([folder], folder if begun else None, ends)
    except Mistake as mistake:
        return f"no table: {mistake}"


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser(
        prog="python -m tools.sweep",
        description=__doc__,
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="SWEEP", help="multirun/TIME")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="where the page goes (the first sweep's folder)"
    )
    args = parser.parse_args(argv)

    def run() -> int:
        print(shown(args.folders, args.out or args.folders[0]))
        return 0

    return guarded(run, OSError)


if __name__ == "__main__":
    sys.exit(main())
