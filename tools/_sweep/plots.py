"""The picture of a sweep: each setting with its seeds, the differences to the first, validations over the steps."""

import io
import math

import numpy as np

from launcher.judged import series
from tools._compare.plots import BETTER, INK, WORSE, colour, plain, settings
from tools._sweep.figures import Found, better
from tools._sweep.reading import Job

MOST_CURVES = 7  # settings: more would be a tangle


def draw(found: Found) -> str:
    """The SVG; "" where no job has a figure."""
    from matplotlib import rc_context  # without pyplot: half of the time, and no state
    from matplotlib.figure import Figure

    shown = [i for i, one in enumerate(found.settings) if one.counted]
    if not shown:
        return ""
    curved = curves(found, shown)
    with rc_context(settings()):
        heights = [0.75 + 0.34 * len(shown), *([2.9] if curved else [])]
        figure = Figure(figsize=(10, sum(heights) + 0.1), layout="constrained")
        grid = figure.add_gridspec(len(heights), 2, height_ratios=heights)
        means(figure.add_subplot(grid[0, 0]), found, shown)
        differences(figure.add_subplot(grid[0, 1]), found, shown)
        if curved:
            over_steps(figure.add_subplot(grid[1, :]), found, curved)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def means(axis, found: Found, shown: list[int]) -> None:
    """Each setting: its mean with the interval, a point for each seed, a ring for before."""
    for at, i in enumerate(shown):
        one, tone = found.settings[i], colour(i)
        if one.before:
            axis.plot(
                one.before.value, at, "o", markerfacecolor="none", color="#94a3b8", markersize=6
            )
        axis.plot([one.after.low, one.after.high], [at, at], color=tone, linewidth=5, alpha=0.35,
                  solid_capstyle="round")  # fmt: skip
        seeds = [job.after for job in one.counted]
        axis.plot(seeds, [at + 0.16] * len(seeds), "|", color=tone, markersize=7)
        axis.plot(one.after.value, at, "o", color=tone, markersize=7)
        axis.annotate(f"{one.after.value:.3f}", (one.after.value, at), (0, 7), textcoords="offset points",
                      ha="center", fontsize=8.5)  # fmt: skip
    plain(axis, [found.settings[i].name for i in shown])
    rings = "; ring: before" if any(found.settings[i].before for i in shown) else ""
    axis.set_title(f"{found.metric}: mean, 95 % interval; strokes: seeds{rings}")


def differences(axis, found: Found, shown: list[int]) -> None:
    """The difference of each setting to the first; grey where it may be chance."""
    pairs = [(i, found.against[i]) for i in shown if found.against[i]]
    if not pairs:
        axis.set_axis_off()
        return
    for at, (_, pair) in enumerate(pairs):
        d = pair.difference
        good = better(found.sweep, d)
        tone = (BETTER if good else WORSE) if d.apart else "#7f8c9b"
        axis.plot(
            [d.low, d.high], [at, at], color=tone, linewidth=5, alpha=0.35, solid_capstyle="round"
        )
        axis.plot(d.value, at, "D", color=tone, markersize=6)
        axis.annotate(f"{d.value:+.3f}", (d.value, at), (0, 7), textcoords="offset points", ha="center",
                      fontsize=8.5)  # fmt: skip
    axis.axvline(0, color=INK, linewidth=1)
    plain(axis, [found.settings[i].name for i, _ in pairs])
    together = " (hold all at once)" if len(pairs) > 1 else ""
    axis.set_title(f"less {found.settings[found.first].name}, with interval{together}")


def curve(job: Job, metric: str) -> list[tuple[int, float]]:
    """The validations of a job over its steps."""
    return [
        (step, value) for step, value in series(job.metrics).get(metric, []) if math.isfinite(value)
    ]


def curves(found: Found, shown: list[int]) -> dict[int, str]:
    """Of the settings that are drawn the metric of metrics.jsonl; none where no job was validated twice."""
    metric = found.sweep.logged
    if not metric:
        return {}
    return {i: metric for i in shown[:MOST_CURVES]
            if any(len(curve(job, metric)) > 1 for job in found.settings[i].counted)}  # fmt: skip


def over_steps(axis, found: Found, drawn: dict[int, str]) -> None:
    """The mean over the seeds at each step that all of them validated, and each seed pale."""
    for i, metric in drawn.items():
        one = found.settings[i]
        found_at: dict[int, list[float]] = {}
        for job in one.counted:
            points = curve(job, metric)
            axis.plot(*zip(*points, strict=True), color=colour(i), linewidth=0.8, alpha=0.35)
            for step, value in points:
                found_at.setdefault(step, []).append(value)
        mean = [(s, np.mean(v)) for s, v in sorted(found_at.items()) if len(v) == len(one.counted)]
        if mean:
            axis.plot(*zip(*mean, strict=True), "o-", color=colour(i), markersize=4, label=one.name)
    axis.set_title(f"{found.metric} over the steps: mean over seeds, each seed pale")
    axis.set_xlabel("step")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8.5)
