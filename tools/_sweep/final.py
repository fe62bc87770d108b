"""What follows a search: how much each part of its space mattered, and the sweep that tells if its choice is better.

A search picks the best of many figures, so its own are too good (Eimer et al., arXiv:2306.01324). The sweep that
follows has two settings, `base` (the search's command without what was searched) and `best`, and seeds that chose
nothing. They are options of a group of their own, in SWEEP/settings.
"""

import shlex
from pathlib import Path

from omegaconf import OmegaConf

from launcher import search, sweep
from preflight import hydra_words, names
from preflight.mistakes import near
from tools._sweep import figures
from tools._sweep.figures import Found, Setting

FOLDER, GROUP = "settings", "setting"
SEEDS = 5
ENOUGH = 10  # trials: with fewer the best tenth of them is not even one
STILL = (
    "sweep",
    "hydra/sweeper",
    sweep.SEED,
)  # of the search's words: what is no part of a setting


def choice(found: Found) -> Setting | None:
    """The setting with the best mean of those whose jobs have all ended well; None without one, or no search."""
    whole = [i for i, one in enumerate(found.settings) if one.counted and one.whole]
    if not found.sweep.searches or len(found.sweep.folders) > 1 or not whole:
        return None
    return found.settings[figures.leading(found, whole)]


def follows(found: Found, to: Path) -> str:
    """The command that compares a search's choice with the base, and what it needs is written; "" for another sweep."""
    best = choice(found)
    if best is None:
        return ""
    folder = to / FOLDER
    (folder / GROUP).mkdir(parents=True, exist_ok=True)
    (folder / GROUP / "base.yaml").write_text(
        "# @package _global_\n# As the search began, without what it searched.\n"
    )
    (folder / GROUP / "best.yaml").write_text(option(best.words))
    return (f"{mattered(found.sweep.folders[0])}Is the choice better than the base, the same without it? On seeds that"
            f" chose nothing:\n    {command(found, best, folder)}")  # fmt: skip


def option(words: dict[str, str]) -> str:
    """A file of a group that sets these."""
    groups = names.groups()
    chosen = [{f"override /{key}": value} for key, value in words.items() if key in groups]
    content = OmegaConf.create({"defaults": chosen} if chosen else {})
    for key, value in words.items():
        if key not in groups:
            parsed = hydra_words.parsed(f"{key}={value}")
            OmegaConf.update(content, key, getattr(parsed, "text", parsed), force_add=True)
    return f"# @package _global_\n# What the search has chosen.\n{OmegaConf.to_yaml(content)}"


def command(found: Found, best: Setting, folder: Path) -> str:
    """The two settings on other seeds."""
    words = sweep.words_of(found.sweep.folders[0])
    kept = [
        word for word in words
        if (key := hydra_words.key_of(word)) not in {*best.words, *STILL} and not key.startswith(sweep.BUDGET)
    ]  # fmt: skip
    preset = [word for word in words if hydra_words.key_of(word) == "sweep"]
    if preset:  # its settings are kept, and neither its space nor its sweeper
        preset += ["hydra/sweeper=basic", "hydra.sweeper.params=null", "lab.sweep.halving=null"]
    used = [int(job.seed) for job in found.sweep.jobs if job.seed.isdigit()]
    first = 10 * (max(used, default=0) // 10 + 1)
    return shlex.join([
        "python", "launch.py", "-m", *preset, *kept, f"hydra.searchpath=[{names.quoted(near(folder))}]",
        f"+{GROUP}=base,best", f"{sweep.SEED}=range({first},{first + SEEDS})",
    ])  # fmt: skip


def mattered(folder: Path) -> str:
    """How much of the difference between good and other trials each key explains, in a line; "" with few trials.

    PED-ANOVA, Watanabe et al., arXiv:2304.10255, as Optuna has it.
    """
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
    from optuna.trial import TrialState

    study = search.opened(folder)
    done = study.get_trials(states=[TrialState.COMPLETE])
    if len(done) < ENOUGH or len({trial.value for trial in done}) < 2:
        return ""
    shares = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    keys = figures.short(list(shares))
    said = ", ".join(f"{keys[key]} {share:.0%}" for key, share in shares.items())
    return f"How much each mattered for being among the best (PED-ANOVA, {len(done)} trials): {said}\n\n"
