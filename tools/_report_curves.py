"""What a run's metrics say over its steps: first, last and best of each, and the plot."""

from pathlib import Path
from typing import NamedTuple

from launcher.metrics import read_metrics
from launcher.progress import VALIDATION, pick
from preflight import tables

REWARD = "critic/(score|rewards)/mean"
PALE, STRONG = "#9db7d5", "#c0392b"


class Curve(NamedTuple):
    """A metric over the steps."""

    name: str
    pattern: str  # the metrics that can fill it, as launcher.progress takes them
    best: str | None  # max or min; None: more is neither better nor worse


CURVES = [
    Curve("reward", REWARD, "max"),
    Curve("loss", "train/loss", "min"),
    Curve("validation loss", "val/loss", "min"),
    Curve("accuracy", "train/accuracy", "max"),
    Curve("validation accuracy", "val/accuracy", "max"),
    Curve("margin", "train/margin", "max"),
    Curve("validation margin", "val/margin", "max"),
    Curve("KL", "actor/kl_loss|actor/reward_kl_penalty|actor/ppo_kl", None),
    Curve("entropy", "actor/entropy", None),
    Curve("length of an answer", "response_length/mean", None),
]
# Panels of the plot: a pale line of each step, a strong one of each validation. Those with a value are drawn.
PANELS: list[tuple[str, tuple[str, str], tuple[str, str]]] = [
    ("", ("reward of sampled answers", REWARD), ("validation", VALIDATION.replace("|val/loss", ""))),
    ("loss", ("training", "train/loss"), ("validation", "val/loss")),
    ("accuracy", ("training", "train/accuracy"), ("validation", "val/accuracy")),
    ("margin", ("training", "train/margin"), ("validation", "val/margin")),
]  # fmt: skip


def values(steps: dict[int, dict], pattern: str) -> list[tuple[int, float]]:
    """A metric where there is one: step and value, first to last."""
    return [(s, v) for s, m in sorted(steps.items()) if (v := pick(m, pattern)) is not None]


def table(run: Path) -> str:
    """First, last and best value of each metric that there is; empty if there is none."""
    steps, rows = read_metrics(run / "metrics.jsonl"), []
    for curve in CURVES:
        if not (found := values(steps, curve.pattern)):
            continue
        cells = [f"{found[0][1]:.3f}", f"{found[-1][1]:.3f}", "-", "-"]
        if curve.best:
            choose = max if curve.best == "max" else min
            step, value = choose(found, key=lambda pair: pair[1])
            cells[2:] = [f"{value:.3f}", str(step)]
        rows.append([curve.name, *cells])
    return tables.text(["", "first", "last", "best", "at step"], rows) if rows else ""


def summary(run: Path) -> str:
    """How long the run was."""
    steps = read_metrics(run / "metrics.jsonl")
    checked = len(values(steps, VALIDATION))
    return f"{max(steps, default=0)} steps, {checked} validation{'s'[: checked != 1]}"


def plot(run: Path, file: Path) -> bool:
    """Draw what was learned over the steps; False where no metric is there to be drawn."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    steps = read_metrics(run / "metrics.jsonl")
    panels = []
    for title, (each_name, each), (checked_name, checked) in PANELS:
        pale, strong = values(steps, each), values(steps, checked)
        if pale or strong:
            panels.append((title, each_name, pale, checked_name, strong))
    if not panels:
        return False
    figure, axes = plt.subplots(
        1, len(panels), figsize=(7 if len(panels) == 1 else 4.6 * len(panels), 4),
        layout="constrained", squeeze=False,
    )  # fmt: skip
    for axis, (title, each_name, pale, checked_name, strong) in zip(axes[0], panels, strict=True):
        if pale:
            axis.plot(*zip(*pale, strict=True), color=PALE, linewidth=1.2, label=each_name)
        if strong:
            points = list(zip(*strong, strict=True))
            axis.plot(*points, "o-", color=STRONG, markersize=4, label=checked_name)
        axis.set(xlabel="step", title=title or run.resolve().name)
        if title in ("", "accuracy") and all(0 <= v <= 1 for _, v in pale + strong):
            axis.set_ylim(0, 1)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, loc="best" if title else "upper left")
    if len(panels) > 1 or panels[0][0]:
        figure.suptitle(run.resolve().name)
    figure.savefig(file, dpi=150)
    plt.close(figure)
    return True
