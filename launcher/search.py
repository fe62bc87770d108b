"""A search: a sweep whose next setting depends on what the settings before it have brought (`hydra/sweeper=search`).

Optuna's sampler (TPE: Bergstra et al., NeurIPS 2011) proposes, each trial is one setting, a job for each seed of
`lab.sweep.seeds`, and its value the mean of what a sweep's table judges by. The space is written as for Hydra's other
sweepers: interval(a,b), tag(log,interval(a,b)), int(interval(a,b)), range(a,b,step), choice(a,b), a,b.

SWEEP/study.journal holds the study, in Optuna's own format. A trial's jobs have folders by its place: the n-th setting
has the jobs n·seeds and so on. So a search goes on as every sweep does (sweep.py): a job that has ended is not
repeated, one that was cut or has failed goes on. What the sampler draws depends on lab.seed, the place and the trials
before it, so a search that was cut proposes what it would have proposed.

Hydra takes sweepers from the package hydra_plugins alone, whose folder would have to lie at the project's top. So this
module is known under a name of that package, too (`register`).
"""

import importlib
import itertools
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from launcher import judged, results, sweep
from launcher.best import is_loss
from preflight import cluster, names
from preflight.mistakes import Mistake, near
from preflight.resolvers import SEARCH

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, Trial

STUDY, NAME = "study.journal", "search"
PLACE, SETTING = "place", "setting"  # what the study is told of each trial besides
METRIC, SPACE = "metric", "space"  # and of all of them
DIGITS = 3  # of a number that is drawn: more say nothing, and nobody reads them
MOST = 10_000  # settings of a finite space that are looked through for one that was not tried
LEFT_ALONE = ("hydra.", sweep.BUDGET, "lab.run_dir", "lab.name", "lab.cluster.", "cluster")
Space = dict[str, "BaseDistribution"]  # by key


class Asked(NamedTuple):
    """What one search was asked for: `lab.sweep`, and lab.seed for the sampler."""

    options: DictConfig
    seed: int

    @property
    def seeds(self) -> list[int | None]:
        """Of each trial's jobs; None: as the config has it."""
        return list(self.options.seeds or [None])


def distribution(override: Override) -> "BaseDistribution":
    """What Optuna draws from for a word with several values. Raises Mistake for an empty or impossible one."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    def kind(*bounds: float) -> Any:
        whole = all(isinstance(bound, int) for bound in bounds)
        return IntDistribution if whole else FloatDistribution

    value: Any = override.value()  # a Sweep
    word = override.input_line
    log = "log" in value.tags
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        if not low < high:
            raise Mistake(f"{word}: the first number must be below the second.")
        if log and low <= 0:
            raise Mistake(f"{word}: with tag(log, ...) the first number must be above 0.")
        return kind(low, high)(low, high, log=log)
    if isinstance(value, RangeSweep) and not log:
        numbers = list(value.range())
        if not numbers:
            raise Mistake(f"{word} holds no value: range(from,below,step).")
        low, high, step = min(numbers), max(numbers), abs(value.step)
        return kind(low, high)(low, high, step=step)
    if log:
        raise Mistake(f"{word}: tag(log, ...) is of an interval.")
    choices = list(dict.fromkeys(override.sweep_string_iterator()))
    if not choices:
        raise Mistake(f"{word} holds no value.")
    return CategoricalDistribution(choices)


def space_of(overrides: dict[str, Override], params: dict[str, Any]) -> Space:
    """What is searched: key → distribution. Raises Mistake for a space that can't be searched.

    Args:
        overrides: all words, by key.
        params: hydra.sweeper.params.
    """
    swept = {key: one for key, one in overrides.items() if one.is_sweep_override()}
    for key in params:
        if key not in swept and overrides[key].input_line == f"{key}={params[key]}":
            raise Mistake(f"{key}={params[key]} in hydra.sweeper.params is one value: there is nothing to search in it."
                          " Set it outside of the space.")  # fmt: skip
    if not swept:
        raise Mistake("a search needs a space: KEY=interval(low,high), KEY=choice(a,b), on the command line or in a"
                      " YAML file under hydra.sweeper.params, as conf/sweep/search.yaml has it.")  # fmt: skip
    if sweep.SEED in swept:
        raise Mistake(f"{sweep.SEED} is no part of a search, which would choose a lucky one: {sweep.SEEDS}=[0,1] tries"
                      " each setting with these seeds.")  # fmt: skip
    for key in swept:
        if f"{key}.".startswith(LEFT_ALONE):
            raise Mistake(
                f"{key} can't be searched: it is of the sweep itself, or says where a run goes."
            )
    return {key: distribution(one) for key, one in swept.items()}


def points(space: Space) -> Iterator[dict[str, Any]]:
    """Settings that hold each bound and each choice once, for the checks before the first job."""
    sides = {key: list(getattr(one, "choices", ())) or [one.low, one.high]  # type: ignore[attr-defined]
             for key, one in space.items()}  # fmt: skip
    for number in range(max(map(len, sides.values()))):
        yield {key: values[min(number, len(values) - 1)] for key, values in sides.items()}


def finite(space: Space) -> list[tuple] | None:
    """All settings of a space that has few of them; None of one with more, or with an interval."""
    sides: list[list] = []
    for one in space.values():
        choices, step = getattr(one, "choices", None), getattr(one, "step", None)
        if choices is None and not step:
            return None
        if choices is None:
            count = round((one.high - one.low) / step) + 1  # type: ignore[attr-defined]
            choices = [one.low + number * step for number in range(count)]  # type: ignore[attr-defined]
        sides.append(list(choices))
    return list(itertools.product(*sides)) if math.prod(map(len, sides)) <= MOST else None


def rounded(value: Any, one: "BaseDistribution") -> Any:
    """A number of an interval with few digits, inside of it."""
    if not isinstance(value, float) or getattr(one, "step", None):
        return value
    return min(max(float(f"{value:.{DIGITS}g}"), one.low), one.high)  # type: ignore[attr-defined]


def opened(folder: Path) -> "Study":
    """The study of a search, a new one where there is none. More is better: a loss stands there as less than 0."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(folder / STUDY)))
    return optuna.create_study(
        storage=storage, study_name=NAME, direction="maximize", load_if_exists=True
    )


def places(study: "Study") -> "list[FrozenTrial]":
    """The trials in their places; of one that was tried again the last."""
    return list({trial.user_attrs[PLACE]: trial for trial in study.trials}.values())


def proposal(study: "Study", space: Space, seed: int, place: int) -> dict[str, Any] | None:
    """A setting that was not tried yet; None where all were. It depends on the past trials, the seed and the place."""
    import numpy as np
    import optuna

    rng = np.random.default_rng([seed, place])
    sampler = optuna.samplers.TPESampler(seed=int(rng.integers(2**32)))
    copy = optuna.create_study(direction="maximize", sampler=sampler)
    past = [trial for trial in study.trials if trial.state.is_finished()]
    copy.add_trials(past)
    drawn = copy.ask(space).params
    setting = {key: rounded(drawn[key], one) for key, one in space.items()}
    tried = [tuple(trial.user_attrs[SETTING][key] for key in space) for trial in past]
    everything = finite(space)
    if everything is None or tuple(setting.values()) not in tried:
        return setting
    left = [one for one in everything if one not in tried]
    return dict(zip(space, left[rng.integers(len(left))], strict=True)) if left else None


class Search(Sweeper):
    """Hydra's way to it: makes one job after another, by its launcher, until there are enough trials.

    Args:
        params: hydra.sweeper.params: key → what is searched, as text.
    """

    __module__ = SEARCH.rpartition(".")[0]

    def __init__(self, params: dict[str, Any] | None = None):
        self.params = dict(params or {})
        self.common: list[str] = []  # words that all jobs have
        self.asked: Asked
        self.study: Study
        self.folder = Path()

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """What Hydra gives it before `sweep`."""
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Search. Raises Mistake before the first job for a space or settings that can't go well."""
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        of_params = [f"{key}={value}" for key, value in self.params.items()]
        words = parser.parse_overrides([*of_params, *arguments])
        overrides = {word.get_key_element(): word for word in words}
        space = space_of(overrides, self.params)
        self.common = [
            f"{key}={word.get_value_element_as_str()}" if not word.is_delete() else word.input_line
            for key, word in overrides.items() if key not in space
        ]  # fmt: skip
        self.asked = self.check(space)
        self.folder = Path(self.config.hydra.sweep.dir).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        sweep.take(self.folder)
        OmegaConf.save(self.config, self.folder / sweep.WORDS)
        self.study = opened(self.folder)
        said = {key: overrides[key].input_line for key in space}
        if self.study.user_attrs.get(SPACE, said) != said:
            there = near(self.folder)
            raise Mistake(
                f"the space is not the one that {there} was begun with: begin a second search."
            )
        self.study.set_user_attr(SPACE, said)
        self.go(space)

    def check(self, space: Space) -> Asked:
        """What the search was asked for, after its space's bounds and choices were looked at as single values."""
        from preflight.checks.sweep import check_sweep
        from preflight.checks.values import check_values

        for point in points(space):
            config = self.composed(self.words(point, None))
            if wrong := check_sweep(config) or check_values(config):
                raise Mistake(wrong)
            if not cluster.begins_here(config):
                raise Mistake("a search chooses each setting by what those before it have brought, and with cluster="
                              f"{cluster.engine(config)} this start doesn't wait for that. Search where the runs begin"
                              " (cluster=none, also in a job of your own), or hand over a plain sweep.")  # fmt: skip
        return Asked(config.lab.sweep.copy(), config.lab.seed)

    def composed(self, words: list[str]) -> DictConfig:
        """The config of a job, as its launcher will compose it."""
        config = self.hydra_context.config_loader.load_sweep_config(self.config, words)
        with open_dict(config):
            config.hydra.runtime.output_dir = str(self.folder)
        HydraConfig.instance().set_config(config)
        with open_dict(config):
            del config["hydra"]
        return config

    def words(self, setting: dict[str, Any], seed: int | None) -> list[str]:
        """The overrides of a job."""
        of_seed = [] if seed is None else [f"{sweep.SEED}={seed}"]
        kept = [word for word in self.common if not (of_seed and word.startswith(f"{sweep.SEED}="))]
        return [*kept, *(f"{key}={value}" for key, value in setting.items()), *of_seed]

    def go(self, space: Space) -> None:
        """Make the trials that are missing: first those that were cut or have failed, then new ones."""
        from optuna.trial import TrialState

        for trial in places(self.study):
            if trial.state == TrialState.RUNNING:
                self.study.tell(trial.number, state=TrialState.FAIL)
            if trial.state in (TrialState.RUNNING, TrialState.FAIL):
                self.propose(trial.user_attrs[SETTING], trial.user_attrs[PLACE])
        while any(trial.state == TrialState.WAITING for trial in self.study.trials):
            if not self.make(self.study.ask(space)):
                return
        while (place := len(places(self.study))) < self.asked.options.trials:
            if sweep.is_spent(self.folder, self.asked.options, f"trial {place + 1}"):
                return
            setting = proposal(self.study, space, self.asked.seed, place)
            if setting is None:
                print(f"all {place} settings of this space have been tried", flush=True)
                return
            self.propose(setting, place)
            if not self.make(self.study.ask(space)):
                return

    def propose(self, setting: dict[str, Any], place: int) -> None:
        """The next trial: Optuna gets it as one that a person asks for, with all that is needed to make it again."""
        self.study.enqueue_trial(setting, user_attrs={PLACE: place, SETTING: setting})

    def make(self, trial: "Trial") -> bool:
        """Run the jobs of a trial, and tell the study; false if the budget ends before: then it stays as it is."""
        from optuna.trial import TrialState

        place, seeds = trial.user_attrs[PLACE], self.asked.seeds
        heading = f"trial {place + 1} of {self.asked.options.trials}"
        print(f"\n{heading}{self.best_so_far()}", flush=True)
        values = []
        for number, seed in enumerate(seeds):
            job = place * len(seeds) + number
            has_ended = sweep.exit_of(self.folder / str(job)) == 0
            if not has_ended and sweep.is_spent(self.folder, self.asked.options, heading):
                return False
            run_dir, code = self.run(self.words(trial.user_attrs[SETTING], seed), job)
            if early := results.stopped_early(run_dir) if code == 0 else None:
                sign = -1 if is_loss(early["metric"]) else 1
                if early["value"] is not None:
                    trial.report(sign * early["value"], early["validation"])
                self.study.tell(trial, state=TrialState.PRUNED)
                return True
            value = self.value(run_dir) if code == 0 else None
            if value is None:
                why = f"exit status {code}" if code else "no figure to judge it by"
                print(f"{heading} has failed ({why}); the search goes on", flush=True)
                self.study.tell(trial, state=TrialState.FAIL)
                return True
            values.append(value)
        self.study.tell(trial, fmean(values))
        return True

    def run(self, words: list[str], job: int) -> tuple[Path, int]:
        """One job to its end; its folder and exit status. A config that can't be composed is a failed job."""
        try:
            made = self.launcher.launch([words], initial_job_idx=job)[0]
            return Path(made.hydra_cfg.hydra.runtime.output_dir), made.return_value
        except (HydraException, OmegaConfBaseException) as error:
            print(f"error: {names.explain(error, words)}", file=sys.stderr, flush=True)
            return self.folder / str(job), 2

    def value(self, run_dir: Path) -> float | None:
        """What a job has brought, more is better; all by the metric of the first one."""
        metric, value = judged.last(run_dir, self.study.user_attrs.get(METRIC))
        if value is None:
            return None
        self.study.set_user_attr(METRIC, metric)
        return -value if is_loss(metric) else value

    def best_so_far(self) -> str:
        """For the line over a trial."""
        from optuna.trial import TrialState

        done = [trial for trial in places(self.study) if trial.state == TrialState.COMPLETE]
        if not done:
            return ""
        best, metric = max(done, key=lambda trial: trial.value), self.study.user_attrs[METRIC]
        value = -best.value if is_loss(metric) else best.value
        return f"; best so far: {value:.4g} ({metric}), trial {best.user_attrs[PLACE] + 1}"


def register() -> None:
    """Make it known to Hydra, which looks a sweeper up by its name in the package hydra_plugins."""
    package, name = Search.__module__.split(".")
    try:
        importlib.import_module(package)  # other plugins are installed
    except ModuleNotFoundError:
        sys.modules[package] = ModuleType(package)
        sys.modules[package].__path__ = []
    here = sys.modules[__name__]
    sys.modules[Search.__module__] = here
    setattr(sys.modules[package], name, here)
    Plugins.instance().register(Search)
