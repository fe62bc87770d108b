"""A search: its space, what it proposes, how it goes on, what it says. Its jobs are made by a launcher of the tests."""

import math
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import launch_without_verl
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import OmegaConf
from sweeps import METRIC, make_job

from launcher import search, sweep
from launcher.results import EndedJob
from preflight import hydra_words, names, resolvers
from preflight.facts import STAGE
from preflight.mistakes import Mistake
from tools import sweep as table

pytestmark = pytest.mark.usefixtures("own_hydra")
RATE = "lab.model.rl_lr"
SPACE = f"{RATE}=tag(log,interval(1e-5,1e-3))"


class Jobs:
    """A launcher whose jobs end at once; each has the figure that `brings` says, or the exit status that it raises."""

    def __init__(self, folder: Path, brings: Callable[[dict[str, str], int], float], metric: str):
        self.folder, self.brings, self.metric = folder, brings, metric
        self.made: list[tuple[int, dict[str, str]]] = []

    def launch(self, job_overrides, initial_job_idx):
        (words,) = job_overrides
        values, run_dir = sweep.values(words), self.folder / str(initial_job_idx)
        self.made.append((initial_job_idx, values))
        if sweep.exit_of(run_dir) != 0:
            self.run(words, values, run_dir)
        hydra = SimpleNamespace(runtime=SimpleNamespace(output_dir=str(run_dir)))
        code = sweep.exit_of(run_dir)
        return [SimpleNamespace(hydra_cfg=SimpleNamespace(hydra=hydra), return_value=code)]

    def run(self, words, values, run_dir):
        try:
            value = self.brings(values, int(values.get("lab.seed", 0)))
        except SystemExit as stop:
            value, code = None, stop.code
        else:
            code = 0
        if run_dir.exists():  # it goes on
            run_dir.rename(run_dir.with_name(f"before-{run_dir.name}"))
        figures = {10: None if value is None else np.array([value])}
        make_job(run_dir, words, figures, code, self.metric, rows=False)


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """A search as `python launch.py -m hydra/sweeper=search WORDS` begins it; returns its jobs."""
    monkeypatch.setattr(sweep, "taken", [])
    resolvers.register()
    search.register()
    folder = tmp_path / "s"

    def go(*words: str, brings=lambda values, seed: 0.5, metric: str = METRIC) -> Jobs:
        words = ["hydra/sweeper=search", "algo=grpo", *words, f"hydra.sweep.dir={folder}"]
        with initialize_config_dir(str(names.CONF), version_base="1.3"):
            hydra = GlobalHydra.instance().hydra
            config = hydra.compose_config("config", words, RunMode.MULTIRUN, False)
            one = search.Search(OmegaConf.to_container(config.hydra.sweeper.params))
            context = HydraContext(config_loader=hydra.config_loader, callbacks=None)
            one.setup(hydra_context=context, task_function=None, config=config)
            one.launcher = jobs = Jobs(folder, brings, metric)
            one.sweep(list(config.hydra.overrides.task))
        HydraConfig.instance().cfg = None
        return jobs

    monkeypatch.setattr(sweep, "take", lambda folder: None)
    return go


def rate(values) -> float:
    return float(values[RATE])


def near_1e_4(values, seed) -> float:
    """The best rate is 1e-4; each seed brings a bit of its own."""
    return 1 - 0.2 * abs(math.log10(rate(values)) + 4) + 0.001 * seed


def parsed(word: str):
    return OverridesParser.create().parse_override(word)


# --- the space


@pytest.mark.parametrize(
    ("value", "kind", "low", "high"),
    [("interval(1,5)", float, 1, 5), ("int(interval(1,5))", int, 1, 5), ("range(1,10,3)", int, 1, 7),
     ("range(0,1,0.25)", float, 0, 0.75), ("tag(log,interval(1e-5,1e-3))", float, 1e-5, 1e-3),
     ("tag(log,int(interval(1,64)))", int, 1, 64)],
)  # fmt: skip
def test_what_is_drawn_from(value, kind, low, high):
    """Hydra's own words: a range ends below its second number, an interval of whole numbers holds both."""
    found = search.distribution(parsed(f"x={value}"))
    assert (found.low, found.high, found.log) == (low, high, "log" in value)
    assert type(found.low) is kind


@pytest.mark.parametrize("value", ["choice(a,b,a)", "a,b", "choice('a','b')"])
def test_choices(value):
    assert [c.strip("'") for c in search.distribution(parsed(f"x={value}")).choices] == ["a", "b"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([f"{RATE}=interval(5,1)"], r"interval\(5,1\): the first number must be below the second"),
        ([f"{RATE}=tag(log,interval(0,1))"], r"the first number must be above 0"),
        ([f"{RATE}=range(3,3)"], r"range\(3,3\) holds no value"),
        ([f"{RATE}=1e-4"], r"a search needs a space"),
        ([SPACE, "lab.seed=0,1"], r"lab\.seed is no part of a search.*lab\.sweep\.seeds=\[0,1\]"),
        ([SPACE, "lab.sweep.halving=2,3"], r"lab\.sweep\.halving can't be searched"),
        ([f"{RATE}=interval(1e-4,50)"], r"rl_lr=50(\.0)? must be from 0 to 1"),
        (["algo=choice(grpo,gpro)"], "gpro"),
        (["lab.model.no_such_key=interval(1,2)"], "no_such_key"),
        ([SPACE, "lab.sweep.trials=0"], r"lab\.sweep\.trials=0 must be a whole number"),
        ([SPACE, "lab.sweep.seeds=[1,1]"], r"must be a list of different whole numbers"),
        ([SPACE, "lab.sweep.budget_hours=long"], r"budget_hours=long must be a number"),
        ([SPACE, "lab.sweep.halving=1"], r"lab\.sweep\.halving=1 must be 2 or more"),
        ([SPACE, "lab.sweep.halving_min=1"], r"halving_min=1 must be 2 or more"),
        ([SPACE, "cluster=slurm"], r"cluster=slurm this start doesn't wait"),
    ],
)  # fmt: skip
def test_what_is_refused_before_the_first_job(begin, tmp_path, words, said):
    """In a line, and nothing is left."""
    with pytest.raises((Mistake, HydraException)) as caught:
        begin(*words)
    line = names.explain(caught.value, words).replace("\n", " ")
    assert re.search(said, line), line
    assert not (tmp_path / "s").exists()


def test_a_space_in_yaml_has_no_constants():
    words = {"a": parsed("a=1,2"), "b": parsed("b=3"), "c": parsed("c=9")}
    with pytest.raises(Mistake, match=r"b=3 in hydra\.sweeper\.params is one value"):
        search.space_of(words, {"a": "1,2", "b": 3})
    fixed = {"a": parsed("a=1,2"), "b": parsed("b=4")}  # the command line takes b out of it
    assert list(search.space_of(fixed, {"a": "1,2", "b": "choice(3,4)"})) == ["a"]


def test_words_of_a_search_in_another_sweep(tmp_path):
    """They would do nothing there; and an interval is no list of jobs. By the whole program, as a wrong space is."""
    place = f"hydra.sweep.dir={tmp_path / 's'}"
    done = launch_without_verl("-m", "lab.seed=0,1", "lab.sweep.trials=3", place)
    assert done.returncode == 2 and "lab.sweep.trials is of a search" in done.stderr, done.stderr
    done = launch_without_verl("-m", SPACE, place)
    assert done.returncode == 2 and "add hydra/sweeper=search" in done.stderr, done.stderr
    done = launch_without_verl(
        "-m", "hydra/sweeper=search", f"{RATE}=interval(5,1)", "no.key=1,2", place
    )
    assert done.returncode == 2 and "the first number must be below" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and "trial" not in done.stdout
    assert not (tmp_path / "s/study.journal").exists()


# --- trials


def test_each_setting_is_tried_with_each_seed_and_the_search_comes_closer(begin, tmp_path):
    jobs = begin(SPACE, "lab.sweep.trials=25", "lab.sweep.seeds=[3,5]", brings=near_1e_4)
    assert [number for number, _ in jobs.made] == list(range(50))
    assert [values["lab.seed"] for _, values in jobs.made] == ["3", "5"] * 25
    rates = [rate(values) for _, values in jobs.made]
    assert rates[::2] == rates[1::2] and len(set(rates)) == 25
    assert all(values["algo"] == "grpo" for _, values in jobs.made)
    away = np.abs(np.log10(rates[::2]) + 4)
    assert away[15:].mean() < 0.6 * away[:10].mean()  # the first ten are drawn blindly
    study = search.opened(tmp_path / "s")
    assert study.trials[7].value == pytest.approx(1 - 0.2 * away[7] + 0.004)


def test_a_loss_is_made_small(begin, tmp_path):
    begin(SPACE, "lab.sweep.trials=3", brings=lambda values, seed: rate(values), metric="val/loss")
    trials = search.opened(tmp_path / "s").trials
    assert [trial.value for trial in trials] == [-trial.params[RATE] for trial in trials]
    least = min(trial.params[RATE] for trial in trials)
    assert f"chosen: rl_lr={least}, val/loss" in table.shown([tmp_path / "s"], None)


def test_a_search_that_was_cut_is_the_one_that_was_not(begin, tmp_path, capsys):
    """Ctrl-C in a trial's second job: the first is not repeated, and what follows is what would have followed."""
    words = SPACE, "lab.sweep.trials=12", "lab.sweep.seeds=[0,1]"
    whole = begin(*words, brings=near_1e_4)
    (tmp_path / "s").rename(tmp_path / "whole")
    calls = []

    def cut(values, seed):
        calls.append(values)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return near_1e_4(values, seed)

    with pytest.raises(KeyboardInterrupt):
        begin(*words, brings=cut)
    rest = begin(*words, brings=near_1e_4)
    assert rest.made == whole.made[4:]  # the third trial again, whose first job has ended
    assert len(list((tmp_path / "s").glob("*/run.json"))) == 24
    studies = [search.opened(tmp_path / name) for name in ("whole", "s")]
    one, other = ([trial.value for trial in search.places(study)] for study in studies)
    assert one == other
    assert "trial 3 of 12; best so far: " in capsys.readouterr().out
    more = begin(*words[:1], "lab.sweep.trials=13", words[2], brings=near_1e_4)
    assert [number for number, _ in more.made] == [24, 25]
    with pytest.raises(Mistake, match="the space is not the one"):
        begin(f"{RATE}=interval(1e-5,1e-4)", *words[1:])


def test_a_failed_trial_and_one_without_a_figure(begin, tmp_path, capsys):
    """The search goes on; with resume they are tried again, in their own folders, and are no new trials."""

    def fails(values, seed):
        if rate(values) > 3e-4:
            raise SystemExit(1)
        return math.nan if rate(values) < 3e-5 else 0.5

    words = SPACE, "lab.sweep.trials=9", "lab.sweep.seeds=[0,1]"
    first = begin(*words, brings=fails)
    said = capsys.readouterr().out
    failed = [number for number, values in first.made if not 3e-5 <= rate(values) <= 3e-4]
    assert 2 <= len(failed) <= 7 and all(number % 2 == 0 for number in failed)  # no second seed
    told = re.findall(
        r"failed \((exit status 1|no figure to judge it by)\); the search goes on", said
    )
    assert len(told) == len(failed)
    again = begin(*words, brings=lambda values, seed: 0.4)
    exits = [number for number, values in first.made if rate(values) > 3e-4]
    assert [number for number, _ in again.made if number in failed] == failed
    assert {number for number, _ in again.made} >= {number + 1 for number in exits}
    assert len(search.places(search.opened(tmp_path / "s"))) == 9


def test_a_small_space_is_tried_once_and_no_more(begin, capsys):
    words = "algorithm.gamma=0.9,1", "lab.lora_rank=range(4,7)", "lab.sweep.trials=20"
    jobs = begin(*words)
    settings = {(v["algorithm.gamma"], v["lab.lora_rank"]) for _, v in jobs.made}
    assert len(settings) == len(jobs.made) == 6
    assert "all 6 settings of this space have been tried" in capsys.readouterr().out


def test_the_seed_of_the_search_is_labs(begin, tmp_path):
    rates = []
    for number, seed in enumerate((0, 0, 7)):
        jobs = begin(SPACE, "lab.sweep.trials=2", f"lab.seed={seed}")
        rates.append([rate(values) for _, values in jobs.made])
        (tmp_path / "s").rename(tmp_path / f"{number}")
    assert rates[0] == rates[1] != rates[2]


def test_a_budget_ends_a_search_and_more_of_it_goes_on(begin, tmp_path, capsys):
    words = SPACE, "lab.sweep.trials=4", "lab.sweep.seeds=[0,1]"
    first = begin(*words, "lab.sweep.budget_steps=30")  # each job makes ten
    assert [number for number, _ in first.made] == [0, 1, 2]
    assert "trial 2 of 4: not begun, lab.sweep.budget_steps=30 is spent" in capsys.readouterr().out
    rest = begin(*words)
    assert [number for number, _ in rest.made] == list(range(2, 8))


def test_a_search_goes_on_as_it_began(begin, tmp_path, monkeypatch):
    begin(SPACE, "lab.sweep.trials=1", "lab.sweep.seeds=[0,1]")
    monkeypatch.setenv(STAGE, "1")  # as sweep.arguments does, for good
    for name in ("goes_on", "changed"):
        monkeypatch.setattr(sweep, name, [])
    folder = tmp_path / "s"
    for word in ("lab.sweep.seeds=[5]", f"{RATE}=1e-4", "trainer.total_training_steps=7"):
        with pytest.raises(
            Mistake, match=r"what a sweep varies stays|a search goes on as it began"
        ):
            sweep.arguments([f"resume={folder}", word])
    words = sweep.arguments([f"resume={folder}", "lab.sweep.trials=9"])
    assert SPACE in words and "lab.sweep.trials=9" in words and "lab.sweep.trials=1" not in words


# --- what it says


def test_on_noise_no_winner_is_claimed(begin, tmp_path):
    """Many settings, all alike: the best of them is chosen, and what it is worth is left to other seeds."""
    rng = np.random.default_rng(0)
    begin(
        SPACE,
        "lab.sweep.trials=15",
        "lab.sweep.seeds=[0,1,2]",
        brings=lambda values, seed: rng.random(),
    )
    folder = tmp_path / "s"
    said = table.shown([folder], folder)
    assert "chosen: rl_lr=" in said and "no winner before it is compared on other seeds" in said
    assert "best:" not in said and "better than" not in said.replace("better than the base", "")
    assert "*" not in said.split("chosen:")[0] and "less " not in said.splitlines()[2]
    assert re.search(r"How much each mattered .*PED-ANOVA, 15 trials\): rl_lr 100%", said)


@pytest.mark.parametrize("preset", [False, True])
def test_the_command_that_follows(begin, tmp_path, preset, sql_demo, tiny_model):
    """It begins: two settings, five seeds that chose nothing; each has the words of the search, and one the choice."""
    words = ["sweep=search"] if preset else [SPACE, "algo=choice(grpo,rloo)"]
    begin(
        *words,
        f"lab.dataset.dir={sql_demo}",
        f"lab.model.path={tiny_model}",
        "lab.sweep.trials=4",
        "lab.sweep.seeds=[0,11]",
        "trainer.test_freq=7",
        brings=near_1e_4,
    )
    folder = tmp_path / "s"
    said = table.shown([folder], folder)
    line = next(
        line.strip() for line in said.splitlines() if line.startswith("    python launch.py")
    )
    command = shlex.split(line)
    assert "lab.seed=range(20,25)" in command and "+setting=base,best" in command
    assert not [
        word for word in command if word.startswith(("lab.sweep.seeds", "lab.sweep.trials", RATE))
    ]
    assert "trainer.test_freq=7" in command
    end = tmp_path / "end"
    done = launch_without_verl(*command[2:-1], "lab.seed=24", f"hydra.sweep.dir={end}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "job 2 of 2: setting=best → " in done.stdout
    best = max(search.opened(folder).trials, key=lambda trial: trial.value)
    configs = [OmegaConf.load(end / f"{number}/resolved.yaml") for number in (0, 1)]
    assert [config.lab.seed for config in configs] == [24, 24]
    rates = [config.actor_rollout_ref.actor.optim.lr for config in configs]
    assert rates[0] == 1e-4 and rates[1] == best.params[RATE] != 1e-4
    if not preset:
        assert [c.algorithm.adv_estimator for c in configs] == ["grpo", best.params["algo"]]


def test_the_end_of_a_search_with_nothing_left_to_do(begin, tmp_path):
    begin(SPACE, "lab.sweep.trials=2", brings=near_1e_4)
    assert "chosen: rl_lr=" in table.of_ended([], [tmp_path / "s"])
    assert table.of_ended([]) == ""
    assert "chosen" in table.of_ended([EndedJob(tmp_path / "s/0", 0)])


def test_the_shipped_space_is_one(composer):
    """conf/sweep/search.yaml, and each group that it names."""
    params = OmegaConf.load(names.CONF / "sweep/search.yaml").hydra.sweeper.params
    words = {key: parsed(f"{key}={value}") for key, value in params.items()}
    assert list(search.space_of(words, dict(params))) == list(params)
    assert hydra_words.key_of("hydra/sweeper=search") == "hydra/sweeper"
