"""Tables and the page of the reward laboratory: one HTML file, with its plots in it."""

import io
from pathlib import Path
from statistics import fmean, pstdev

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from preflight.tables import Titled as Table
from tools._lab_attacks import ATTACKS, FREE

TEMPLATE = "_lab_page.html.jinja"
SHOWN_CHARACTERS = 600


def by_kind(measured: dict) -> dict[str, list[dict]]:
    """All results; those of sampled answers are a kind of their own."""
    return measured["results"] | {"sampled": [r for group in measured["sampled"] for r in group]}


def scores(results: list[dict]) -> list[float]:
    """The scores that are numbers."""
    return [result["score"] for result in results if result["score"] == result["score"]]


def tables(measured: dict, bars: list, spreads: dict) -> list[Table]:
    """Bars, scores by kind of answer, signal of each part, speed."""
    kinds = []
    for name, results in by_kind(measured).items():
        if found := scores(results):
            figures = (fmean(found), pstdev(found), min(found), max(found))
            kinds.append(
                [name.replace("_", " "), str(len(results)), *(f"{f:.3f}" for f in figures)]
            )
    made = [
        Table(
            "Bars",
            ["bar", "holds", "what"],
            [[b.name, "yes" if b.holds else "no", b.figures] for b in bars],
        ),
        Table(
            "Scores by kind of answer",
            ["answers", "number", "mean", "std", "lowest", "highest"],
            kinds,
        ),
    ]
    if spreads:
        rows = [[name, f"{std:.4f}", f"{share:.0%}", "" if share else "no signal"]
                for name, (std, share) in spreads.items()]  # fmt: skip
        head = ["part", "std in a group", "groups with any", ""]
        made.append(Table("Signal: what differs between answers to the same prompt", head, rows))
    speed = [[f"{measured['median']:.5f}", f"{measured['p99']:.5f}", f"{measured['rate']:.0f}"]]
    made.append(Table("Speed", ["median s", "p99 s", "rows/s, all at once"], speed))
    return made


def plots(measured: dict, spreads: dict) -> str:
    """Scores by kind, and the spread of each part, as SVG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    kinds = {name: scores(some) for name, some in by_kind(measured).items() if scores(some)}
    panels = 2 if spreads else 1
    figure, axes = plt.subplots(
        1,
        panels,
        figsize=(5.5 * panels, 0.9 + 0.32 * max(len(kinds), len(spreads))),
        layout="constrained",
        squeeze=False,
    )
    for at, (name, found) in enumerate(reversed(kinds.items())):
        barred = name in ATTACKS and name not in FREE
        color = "#b3261e" if barred else "#1b7f3b" if name == "reference" else "#456"
        heights = [
            at + 0.3 * ((i * 0.618) % 1 - 0.5) for i in range(len(found))
        ]  # apart, to be seen
        axes[0, 0].plot(found, heights, ".", color=color, alpha=0.35, markersize=5)
        axes[0, 0].plot([fmean(found)] * 2, [at - 0.35, at + 0.35], color=color, linewidth=2)
    axes[0, 0].set_yticks(range(len(kinds)), [name.replace("_", " ") for name in reversed(kinds)])
    axes[0, 0].set_title("scores; | is the mean", fontsize=10)
    if spreads:
        names = list(reversed(spreads))
        axes[0, 1].barh(names, [spreads[name][0] for name in names], color="#456")
        axes[0, 1].set_title("standard deviation within a group", fontsize=10)
    for axis in axes.flat:
        axis.grid(axis="x", alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    out = io.StringIO()
    figure.savefig(out, format="svg")
    plt.close(figure)
    return out.getvalue().partition("<svg")[1] + out.getvalue().partition("<svg")[2]


def page(
    title: str,
    shown: list[Table],
    measured: dict,
    spreads: dict,
    examples: dict[str, tuple[str, float]],
) -> str:
    """The whole page; `examples`: an answer of each kind, and its score."""
    here = FileSystemLoader(Path(__file__).parent)
    # autoescape: answers are a model's, and full of tags
    template = Environment(
        loader=here, autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return template.get_template(TEMPLATE).render(
        title=title,
        tables=shown,
        plots=Markup(plots(measured, spreads)),
        examples=examples,
        most=SHOWN_CHARACTERS,
    )
