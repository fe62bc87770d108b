"""The picture of a comparison: means, differences, categories; in the PNG the distributions as well."""

import io

import numpy as np

from tools._compare.figures import Comparison, title
from tools._compare.parts import Number, binary

# told apart by people who see few colours (Okabe and Ito); the first side is the grey ground
COLOURS = ("#7f8c9b", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
INK, BETTER, WORSE = "#334155", "#1b7f3b", "#b3261e"
MOST_CATEGORIES = 25
MOST_PARTS = 6
LONGEST = 28  # characters of a name


def colour(side: int) -> str:
    """Of a side, everywhere."""
    return COLOURS[side % len(COLOURS)] if side < len(COLOURS) else COLOURS[1 + side % 6]


def short(name: str, most: int = LONGEST) -> str:
    """A name that fits beside a plot: its end tells more than its beginning."""
    return name if len(name) <= most else f"…{name[-most + 1 :]}"


def settings() -> dict:
    """How every picture looks, for matplotlib."""
    return {
        "font.size": 9.5, "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
        "axes.edgecolor": "#94a3b8", "axes.titlesize": 10.5, "axes.titlelocation": "left",
        "svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": "verl-lab",
    }  # fmt: skip


def draw(comparison: Comparison) -> tuple[bytes, str]:
    """The PNG, and the SVG for the page (which has its own distributions)."""
    from matplotlib import rc_context  # without pyplot: half of the time, and no state

    with rc_context(settings()):
        figure = top(comparison, [])
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
        shown = [part for part in comparison.parts.numbers if not binary(part)][:MOST_PARTS]
        figure = top(comparison, shown)
        figure.suptitle(
            "\n".join(comparison.verdicts[:4]), x=0.01, ha="left", fontsize=12, fontweight="bold"
        )
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=140)
    svg = text.getvalue()
    return picture.getvalue(), svg[svg.index("<svg") :]


def top(comparison: Comparison, shown: list[Number]):
    """The figure; `shown`: the parts whose distribution stands below."""
    from matplotlib.figure import Figure

    categories = comparison.categories[:MOST_CATEGORIES]
    rows = max(len(comparison.names), len(comparison.compared))
    heights = [0.75 + 0.34 * rows]
    if categories:
        heights.append(0.75 + 0.24 * len(categories))
    below = -(-len(shown) // 3)
    heights += [1.9] * below
    figure = Figure(figsize=(10, sum(heights) + (0.4 if shown else 0.1)), layout="constrained")
    grid = figure.add_gridspec(len(heights), 6, height_ratios=heights)
    means(figure.add_subplot(grid[0, :3]), comparison)
    differences(figure.add_subplot(grid[0, 3:]), comparison)
    if categories:
        by_category(figure.add_subplot(grid[1, :]), comparison)
    for i, part in enumerate(shown):
        column = 2 * (i % 3)
        axis = figure.add_subplot(grid[len(heights) - below + i // 3, column : column + 2])
        distribution(axis, part, comparison.names)
    return figure


def plain(axis, names: list[str]) -> None:
    """A panel with a line for each name, from the top down."""
    axis.set_yticks(range(len(names)), [short(name) for name in names])
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.grid(axis="x", alpha=0.25)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(left=False)
    axis.margins(x=0.12)
    axis.xaxis.get_major_locator().set_params(nbins=6)


def means(axis, comparison: Comparison) -> None:
    """The mean of each side with its interval."""
    shown = comparison.seed_means or comparison.means
    for i, one in enumerate(shown):
        axis.plot(
            [one.low, one.high],
            [i, i],
            color=colour(i),
            linewidth=5,
            alpha=0.35,
            solid_capstyle="round",
        )
        axis.plot(one.value, i, "o", color=colour(i), markersize=7)
        axis.annotate(
            f"{one.value:.3f}",
            (one.value, i),
            (0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
        )
    plain(axis, comparison.names)
    what = "IQM over seeds" if comparison.seed_means else "mean"
    axis.set_title(f"{title(comparison.metric)}: {what} and 95 % interval")


def differences(axis, comparison: Comparison) -> None:
    """The difference of each pair with its interval; grey where the rows show none."""
    names = []
    shown = comparison.seeds or comparison.compared
    for i, pair in enumerate(shown):
        d = pair.difference
        tone = (BETTER if d.value > 0 else WORSE) if pair.apart else "#7f8c9b"
        axis.plot(
            [d.low, d.high], [i, i], color=tone, linewidth=5, alpha=0.35, solid_capstyle="round"
        )
        axis.plot(d.value, i, "D", color=tone, markersize=6)
        axis.annotate(
            f"{d.value:+.3f}",
            (d.value, i),
            (0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
        )
        a, b = comparison.names[pair.first], comparison.names[pair.second]
        names.append(f"{short(b, 14)} − {short(a, 14)}")
    axis.axvline(0, color=INK, linewidth=1)
    plain(axis, names)
    axis.set_title("difference and 95 % interval")


def by_category(axis, comparison: Comparison) -> None:
    """The difference of the second side to the first in each category."""
    largest = sorted(comparison.categories, key=lambda one: -one.questions)[:MOST_CATEGORIES]
    shown = sorted(largest, key=lambda one: -one.difference.value)
    for i, one in enumerate(shown):
        d = one.difference
        tone = BETTER if d.low > 0 else WORSE if d.high < 0 else "#7f8c9b"
        axis.plot(
            [d.low, d.high], [i, i], color=tone, linewidth=4, alpha=0.35, solid_capstyle="round"
        )
        axis.plot(d.value, i, "D", color=tone, markersize=4.5)
    axis.axvline(0, color=INK, linewidth=1)
    plain(axis, [f"{short(one.name)} ({one.questions})" for one in shown])
    more = len(comparison.categories) - len(shown)
    rest = f", the largest {len(shown)} of {len(shown) + more}" if more else ""
    axis.set_title(
        f"{comparison.names[1]} − {comparison.names[0]}, by {comparison.options.by} (questions){rest}"
    )


def distribution(axis, part: Number, names: list[str]) -> None:
    """The share of answers in each bin, sides over each other."""
    edges = np.array(part.edges)
    for i, side in enumerate(part.sides):
        if side:
            axis.stairs(side.bars, edges, color=colour(i), fill=True, alpha=0.25)
            axis.stairs(side.bars, edges, color=colour(i), linewidth=1.4, label=short(names[i], 20))
    axis.set_title(part.name)
    axis.yaxis.set_major_formatter(lambda y, _: f"{y:.0%}")
    axis.grid(axis="y", alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8)
