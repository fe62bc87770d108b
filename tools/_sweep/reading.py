"""The jobs of a sweep, as their folders have them."""

import math
import sys
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from launcher import judged, results, sweep
from launcher.best import is_loss
from launcher.metrics import read_metrics
from launcher.progress import ACCURACY, named
from preflight.mistakes import Mistake, near
from tools._compare import reading
from tools._compare.pairing import metric_of
from tools._compare.reading import Answers

OK = "ok"
STOPPED = "stopped early"


@dataclass
class Job:
    """One job of a sweep."""

    number: int  # as its folder is called, or as it would be
    folder: Path | None  # None: it has not begun
    words: dict[str, str]  # all its overrides
    state: str  # OK, "exit N", "not ended", "not begun", "refused", "stopped early at step N"
    seed: str = ""
    setting: dict[str, str] = field(default_factory=dict)  # what was varied, without the seed
    metrics: dict[int, dict[str, float]] = field(default_factory=dict)
    graded: str = ""  # by what: jobs with different ones have no figures in common
    before: float | None = None  # the sweep's metric at step 0
    after: float | None = None  # at the last validation
    rows: tuple[Answers | None, Answers | None] = (None, None)  # the same, answer by answer

    @property
    def steps(self) -> int:
        """How many it has made."""
        return max(self.metrics, default=0)

    @property
    def was_stopped(self) -> bool:
        """Whether it has lost its place at a rung of successive halving: it has ended, and has no figure."""
        return self.state.startswith(STOPPED)

    @property
    def counts(self) -> bool:
        """Whether its figures are those of a whole job."""
        return self.state == OK and self.after is not None


@dataclass
class Sweep:
    """All jobs, and what they are judged by."""

    folders: list[Path]
    jobs: list[Job]
    varied: list[str]  # keys, without the seed
    metric: (
        str | None
    )  # of the rows a part of the reward, else a name in metrics.jsonl; None: nothing in common
    logged: str | None  # the same in metrics.jsonl
    by_rows: bool  # whether the jobs have validations to be compared question by question
    seeds_varied: bool
    alike: bool  # whether all jobs that count are graded by the same reward, on the same files
    searches: bool = False  # whether its settings were chosen by their figures

    @property
    def less_is_better(self) -> bool:
        """Whether the metric is a loss."""
        return self.metric is not None and is_loss(self.metric)


def read(folders: list[Path], ends: dict[Path, int] | None = None) -> Sweep:
    """The sweeps in some folders, as one. Raises Mistake for a folder that holds none.

    Args:
        ends: exit statuses of jobs that this process has just ended, also of those that were refused and left nothing.
    """
    jobs = [job for folder in folders for job in jobs_in(folder, ends or {})]
    if not jobs:
        raise Mistake(f"{' and '.join(map(near, folders))}: no sweep there (a sweep's folder has {sweep.WORDS}, and"
                      " its jobs below it)")  # fmt: skip
    keys = sweep.varied([job.words for job in jobs])
    for job in jobs:
        job.setting = {key: job.words.get(key, "-") for key in keys if key != sweep.SEED}
    logged = [
        names for job in jobs if job.state == OK and (names := set(judged.series(job.metrics)))
    ]
    metric = judged.metric_of(set.intersection(*logged)) if logged else None
    if metric:
        for job in jobs:
            measure(job, metric)
    by_rows = with_rows(jobs) if metric and named([metric], ACCURACY) else None
    counted = [job for job in jobs if job.counts]
    for job in counted:
        config = judged.config_of(job.folder) if job.folder else {}
        job.graded = judged.grader(config, by_rows or metric)
    return Sweep(
        folders,
        jobs,
        [key for key in keys if key != sweep.SEED],
        by_rows or metric,
        metric,
        by_rows is not None,
        len({job.seed for job in jobs}) > 1,
        len({job.graded for job in counted}) < 2,
        any(map(sweep.is_search, folders)),
    )


def jobs_in(folder: Path, ends: dict[Path, int]) -> list[Job]:
    """The jobs of one sweep, in their order: those that have begun, and those that have not."""
    begun = {}
    for file in folder.glob(f"*/{sweep.OVERRIDES}"):
        words = yaml.safe_load(file.read_text())
        begun[file.parent.parent] = sweep.values(words if isinstance(words, list) else [])
    found = []
    planned = [sweep.values(words) for words in sweep.jobs(folder)] if sweep.is_one(folder) else []
    keys = sweep.varied(planned)
    for number, words in enumerate(planned):
        mine = [at for at, has in begun.items() if all(has.get(k) == words.get(k) for k in keys)]
        if mine:
            found.append(job_of(number, mine[0], begun.pop(mine[0]), ends))
        else:
            refused = ends.get((folder / str(number)).absolute())
            found.append(Job(number, None, words, "refused" if refused else "not begun"))
            found[-1].seed = words.get(sweep.SEED, "")
    others = sorted(begun, key=lambda at: (not at.name.isdigit(), at.name.zfill(9)))
    for at in others:  # of a search, which has planned nothing
        number = int(at.name) if at.name.isdigit() else len(found)
        found.append(job_of(number, at, begun[at], ends))
    return found


def job_of(number: int, folder: Path, words: dict[str, str], ends: dict[Path, int]) -> Job:
    """A job that has begun."""
    code = ends.get(folder.absolute(), sweep.exit_of(folder))
    state = "not ended" if code is None else OK if code == 0 else f"exit {code}"
    if code == 0 and (early := results.stopped_early(folder)):
        state = f"{STOPPED} at step {early['step']}"
    job = Job(number, folder, words, state)
    job.metrics = read_metrics(folder / "metrics.jsonl")
    job.seed = judged.seed_of(judged.config_of(folder)) or words.get(sweep.SEED, "")
    return job


def measure(job: Job, metric: str) -> None:
    """Its metric before and after: no before of a run that was only validated, no after of one that diverged."""
    values = judged.series(job.metrics).get(metric, [])
    before = next((value for step, value in values[:-1] if step == 0), math.nan)
    job.before = before if math.isfinite(before) else None
    job.after = values[-1][1] if values and math.isfinite(values[-1][1]) else None


def with_rows(jobs: list[Job]) -> str | None:
    """Read the validations of the jobs that count; the part that they are compared by.

    None, and nothing read, where a job has none, or they have no graded answer in common.
    """
    counted = [job for job in jobs if job.counts and job.folder]
    pairs = []
    for job in counted:
        files = reading.validations(job.folder)
        if not files:
            return None
        try:
            after = slim(reading.read(files[-1])[0])
            before = slim(reading.read(files[0])[0]) if job.before is not None else None
        except (Mistake, OSError):
            return None
        pairs.append((before, after))
    try:
        metric = metric_of([after for _, after in pairs], None) if pairs else None
    except Mistake:
        return None
    for job, rows in zip(counted, pairs, strict=True):
        job.rows = rows
    return metric


def slim(answers: Answers) -> Answers:
    """The same without the answers' texts, and with one copy of each question: a sweep has many jobs."""
    for row in answers.rows:
        row.text = ""
        row.prompt, row.question, row.truth = map(sys.intern, (row.prompt, row.question, row.truth))
    return answers
