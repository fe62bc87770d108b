"""The runs that were handed to clusters (`cluster=`), and how each is: waiting, running at which step, ended.

python launch.py status            of all below outputs/ and multirun/
python launch.py status FOLDER...  of these runs or folders alone
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from launcher import clusters
from launcher.metrics import read_metrics
from launcher.results import last_attempt
from preflight import tables
from preflight.mistakes import Mistake, near
from tools import Parser, guarded
from tools._monitor.runs import ENDS, folders

PLACES = Path("outputs"), Path("multirun")


def handed_over(places: Iterable[Path]) -> dict[Path, dict]:
    """The runs below these folders that a cluster's job has or had, with what is written of it; the newest first."""
    found = {
        run: record
        for place in places
        for run in folders(place)
        if (record := clusters.record(run))
    }
    return dict(sorted(found.items(), key=lambda item: item[1]["submitted"], reverse=True))


def states(records: Iterable[dict]) -> dict[tuple[str, str], str | None]:
    """By place and job, of those that have not ended; (place, "") says why nobody knows of a place's."""
    asked: dict[str, list[dict]] = {}
    for record in records:
        if record["job"]:
            asked.setdefault(place_of(record), []).append(record)
    found: dict[tuple[str, str], str | None] = {}
    for place, jobs in asked.items():
        try:
            answers = clusters.module(jobs[0]["cluster"]).states(jobs)
            found |= {(place, job): state for job, state in answers.items()}
        except (OSError, ImportError) as error:
            found[place, ""] = f"not known ({error})"
    return found


def place_of(record: dict) -> str:
    """Of a job: its engine, and which one of these where there are several."""
    return f"{record['cluster']} {record.get('address', '')}"


def how(run: Path, record: dict, known: dict) -> str:
    """In words."""
    place, job = place_of(record), record["job"]
    attempt = last_attempt(run)
    if job is None and not attempt:
        return "not submitted"
    if job and (state := known.get((place, job))):
        return state
    if attempt and attempt.get("exit") is not None:
        return ENDS.get(attempt["exit"], f"ended with exit status {attempt['exit']}")
    if job and (why := known.get((place, ""))):
        return why
    return "ended early: its log and what the job printed say why" if job else "not known"


def table(places: Iterable[Path]) -> str:
    """A line a run. Raises Mistake where there is none."""
    runs = handed_over(places)
    if not runs:
        raise Mistake("no run here was handed to a cluster (`python launch.py ... cluster=slurm`).")
    known = states(runs.values())
    rows = [
        [
            near(run),
            record["cluster"],
            record["job"] or "-",
            how(run, record, known),
            str(max(read_metrics(run / "metrics.jsonl"), default=0)),
            record["submitted"][:16].replace("T", " "),
        ]
        for run, record in runs.items()
    ]
    return tables.text(["run", "cluster", "job", "state", "step", "submitted"], rows)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser(
        prog="python launch.py status",
        description=__doc__,
    )
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="outputs multirun")
    args = parser.parse_args(argv)

    def run() -> int:
        places = args.folders or [place for place in PLACES if place.is_dir()]
        if gone := [place for place in places if not place.is_dir()]:
            raise Mistake(f"no folder {gone[0]}")
        print(table(places))
        return 0

    return guarded(run, OSError)


if __name__ == "__main__":
    sys.exit(main())
