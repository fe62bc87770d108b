"""A sweep: its jobs, what each has of its own, and going on with one that was cut.

Hydra writes the words of a sweep into SWEEP/multirun.yaml. From these come the jobs again, also those that have not
begun; a job that ended well is not repeated, one that was cut goes on from its checkpoint, the others begin.
"""

import os
import shlex
from pathlib import Path

import yaml
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from launcher import folders, results
from launcher.halving import Halving
from launcher.metrics import read_metrics
from launcher.stages import seconds
from preflight import cluster, hydra_words, names
from preflight.facts import STAGE, is_of_a_sweep
from preflight.mistakes import Mistake, near
from preflight.resolvers import SEARCH

WORDS = "multirun.yaml"
OVERRIDES, RECORD = ".hydra/overrides.yaml", "run.json"  # of a job
OF_ONE_START = ("hydra.sweep.dir", "hydra.output_subdir", "hydra.mode", "hydra.run.dir")
SEED, SEEDS, BUDGET = "lab.seed", "lab.sweep.seeds", "lab.sweep."
SHOWS = frozenset(("--cfg", "-c", "--info", "-i"))  # switches with which nothing runs
taken: list[Path] = []  # the folder of this process's sweep, with its lock
goes_on: list[Path] = []  # the folder of a sweep that this start goes on with
changed: list[str] = []  # words that it adds: then the jobs that have ended go on, too


def arguments(argv: list[str]) -> list[str]:
    """The command line; `resume=SWEEP` becomes the words of that sweep, and a `-m`. Raises Mistake."""
    folder = names.resumed(argv)
    again = folder is not None and is_one(folder)
    shows = SHOWS.intersection(arg.partition("=")[0] for arg in argv)
    if not again and not names.MULTIRUN.intersection(argv):
        presets = [word for word in argv if hydra_words.key_of(word) == "sweep"]
        if folder is None and not shows and set(presets) - set(names.NO_PRESET):
            raise Mistake(f"{presets[-1]} is of several runs: add -m.")
        return argv
    if shows:
        raise Mistake(
            f"{min(shows)} shows one config, and -m makes several: leave out one of them."
        )
    os.environ[STAGE] = "1"
    switches, more = hydra_words.sorted_out(argv)
    more = [word for word in more if not word.startswith("resume=")]
    given = {hydra_words.key_of(word): word for word in more}
    place = given.get("hydra.sweep.dir")
    if folder is None or not again:
        there = Path(str(hydra_words.parsed(place))) if place else None
        if there and is_one(there) and any(there.glob(f"*/{OVERRIDES}")):
            raise Mistake(
                f"{near(there)} holds a sweep already: `{command(there)}`, or take another folder."
            )
        return argv
    if place:
        raise Mistake(
            f"resume={near(folder)} goes on in its own folder: leave out hydra.sweep.dir."
        )
    keys = [SEEDS, *(hydra_words.key_of(word) for word in words_of(folder) if is_swept(word))]
    if other := [word for key, word in given.items() if key in keys or is_swept(word)]:
        raise Mistake(f"{other[0]}: what a sweep varies stays as it is. For more values begin a second sweep;"
                      " `python -m tools.sweep A B` shows both as one.")  # fmt: skip
    if is_search(folder) and (other := [key for key in given if not key.startswith(BUDGET)]):
        raise Mistake(f"{given[other[0]]}: a search goes on as it began, or its trials would be no measure of each"
                      f" other. With another {other[0]} begin a second search.")  # fmt: skip
    saved = [word for word in words_of(folder) if hydra_words.key_of(word) not in given]
    take(folder.absolute())
    goes_on.append(folder.absolute())
    changed.extend(word for word in more if not hydra_words.key_of(word).startswith(BUDGET))
    multirun = [] if names.MULTIRUN.intersection(switches) else ["-m"]
    return [*multirun, *switches, *saved, f"hydra.sweep.dir={names.quoted(folder)}", *more]


def is_swept(word: str) -> bool:
    """Whether an override has several values, for as many jobs."""
    try:
        return OverridesParser.create().parse_override(word).is_sweep_override()
    except HydraException:
        return False  # Hydra says what it can't read


def is_one(folder: Path) -> bool:
    """Whether a folder is a sweep's."""
    return (folder / WORDS).is_file()


def is_search(folder: Path) -> bool:
    """Whether a sweep is a search (search.py), which chooses its jobs as it goes. Raises Mistake as `words_of`."""
    return is_one(folder) and written(folder)[0].get("_target_") == SEARCH


def written(folder: Path) -> tuple[dict, dict[str, str]]:
    """What Hydra has written of a sweep: its sweeper, and its words by key. Raises Mistake if it can't be read."""
    try:
        hydra = yaml.safe_load((folder / WORDS).read_text())["hydra"]
        words = [*hydra["overrides"]["hydra"], *hydra["overrides"]["task"]]
        return dict(hydra["sweeper"]), {hydra_words.key_of(word): word for word in words}
    except (OSError, yaml.YAMLError, LookupError, TypeError, AttributeError, ValueError):
        raise Mistake(
            f"{near(folder / WORDS)} is damaged (was the disk full?): `resume={near(folder)}/JOB` goes on with a job."
        ) from None


def words_of(folder: Path) -> list[str]:
    """The words that a sweep was begun with: of the command line, and of its YAML file in conf/sweep.

    Raises Mistake if what is written of it can't be read.
    """
    sweeper, words = written(folder)
    params = sweeper.get("params") or {}
    swept = [f"{key}={value}" for key, value in params.items() if key not in words]
    return [*swept, *(word for key, word in words.items() if key not in OF_ONE_START)]


def jobs(folder: Path) -> list[list[str]]:
    """The overrides of each job of a sweep, in their order; [] of a search, which doesn't know them before."""
    if is_search(folder):
        return []
    words = [w for w in words_of(folder) if not hydra_words.key_of(w).startswith("hydra")]
    hydra = GlobalHydra.instance()
    loader = hydra.config_loader() if hydra.is_initialized() else None
    try:
        overrides = OverridesParser.create(config_loader=loader).parse_overrides(words)
        return BasicSweeper.split_arguments(overrides, None)[0]
    except (HydraException, AttributeError):  # glob(*) without Hydra's tree
        return []


def values(words: list[str]) -> dict[str, str]:
    """Key and value of overrides, without Hydra's signs and quotes."""
    return {key: value.strip("'\"") for key, value in map(hydra_words.split, words)}


def varied(some: list[dict[str, str]]) -> list[str]:
    """The keys that are not the same in all of some jobs, in the order of the command line."""
    keys = dict.fromkeys(key for words in some for key in words)
    return [key for key in keys if len({words.get(key) for words in some}) > 1]


def own(folder: Path, words: list[str]) -> dict[str, str]:
    """What a job of a sweep has of its own: key and value of what was varied."""
    everything, mine = jobs(folder), values(words)
    if everything:
        keys = varied([values(one) for one in everything])
    else:
        common = values([w for w in words_of(folder) if w in words])
        keys = [key for key in mine if key not in common]
    return {key: mine[key] for key in keys if key in mine}


def folder_of_job() -> Path | None:
    """The sweep that Hydra runs now; None for a single run."""
    return Path(HydraConfig.get().sweep.dir).absolute() if is_of_a_sweep() else None


def halving_of(config: DictConfig, run_dir: Path) -> Halving | None:
    """What may end a job early: it looks at the other jobs of the sweep that Hydra runs, or whose jobs a cluster runs.

    None for a single run, also for one that goes on with a job of a sweep, and where no halving is asked for.
    """
    of_cluster = os.environ.get(cluster.JOB) and is_one(run_dir.parent)
    folder = folder_of_job() or (run_dir.parent if of_cluster else None)
    return Halving(config, run_dir, folder) if folder and config.lab.sweep.halving else None


def heading(name: str) -> str:
    """What stands over a job: of a sweep its number and what it has of its own, else the run's name."""
    folder = folder_of_job()
    if folder is None:
        return name
    hydra = HydraConfig.get()
    own_words = own(folder, list(hydra.overrides.task))
    total = len(jobs(folder))
    number = f"job {hydra.job.num + 1}{f' of {total}' if total else ''}"
    said = ", ".join(f"{key}={value}" for key, value in own_words.items())
    return f"{number}: {said}" if said else number


def take(folder: Path | None) -> None:
    """Have a sweep's folder until this process ends; None: of no sweep. Raises Mistake if another start has it."""
    if folder and folder not in taken:
        folders.until_the_end.enter_context(folders.taken(folder))
        taken.append(folder)


def asked(run_dir: Path) -> Path | None:
    """The job's own folder, if this start goes on with its sweep and the job has begun. Raises Mistake.

    Raises:
        Mistake: another job is there: what was varied is no more the same.
    """
    file = run_dir / OVERRIDES
    if not goes_on or not file.is_file():
        return None
    was = values(list(OmegaConf.load(file)))
    now = own(goes_on[0], list(HydraConfig.get().overrides.task))
    if other := [f"{key}={was.get(key)}" for key, value in now.items() if was.get(key) != value]:
        raise Mistake(f"{near(run_dir)} is the job with {', '.join(other)}, and would be another one now: the words of"
                      f" {WORDS} give other jobs than they did (shuffle, glob).")  # fmt: skip
    return run_dir


def has_ended(run_dir: Path, heading: str) -> bool:
    """Whether a sweep goes on whose job here has ended well, and nothing new is asked of it; then it is told.

    One that was stopped early has lost its place, whatever is asked.
    """
    if not goes_on or exit_of(run_dir) != 0 or asked(run_dir) is None:
        return False
    early = results.stopped_early(run_dir)
    if changed and not early:
        return False
    print(f"{heading}: has {'been stopped early' if early else 'ended well'}", flush=True)
    return True


def refuse_wrong(config: DictConfig) -> None:
    """Raises Mistake for a wrong value of `lab.sweep` in a job of a sweep, before anything goes by it."""
    from preflight.checks.sweep import check_sweep  # --cfg job doesn't wait for it

    if folder_of_job() and (wrong := check_sweep(config)):
        raise Mistake(wrong)


def is_spent(folder: Path | None, budget: DictConfig, heading: str) -> bool:
    """Whether a sweep's jobs have made as many steps, or taken as many hours, as they all may; then it is told.

    Args:
        folder: of the sweep; None: of no sweep.
        budget: `lab.sweep`; null: no limit. A job that has begun is never cut by it.
    """
    if folder is None or (budget.budget_steps is None and budget.budget_hours is None):
        return False
    begun = [record.parent for record in folder.glob(f"*/{RECORD}")]
    steps = sum(max(read_metrics(job / "metrics.jsonl"), default=0) for job in begun)
    hours = sum(map(seconds, begun)) / 3600
    for key, spent in (("budget_steps", steps), ("budget_hours", hours)):
        if budget[key] is not None and spent >= budget[key]:
            print(f"{heading}: not begun, lab.sweep.{key}={budget[key]} is spent", flush=True)
            return True
    return False


def exit_of(run_dir: Path) -> int | None:
    """The exit status of a run's last start; None if it has not ended, or not begun."""
    return results.last_readable(run_dir).get("exit")


def command(folder: Path) -> str:
    """How one goes on with a sweep."""
    return f"python launch.py {shlex.quote(f'resume={near(folder)}')}"


def how_to_go_on(run_dir: Path) -> str:
    """The command that goes on with this process's sweep, or with its run; "" where there is none."""
    return f"go on: {command(taken[0])}" if taken else results.how_to_go_on(run_dir)
