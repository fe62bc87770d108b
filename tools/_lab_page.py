"""Tables and the page of the reward laboratory: one HTML file, with its plots in it."""

import html
import io
from statistics import fmean, pstdev
from typing import NamedTuple

from rich.table import Table as Shown

from tools._lab_attacks import ATTACKS

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 } caption { text-align: left; font-weight: 600; padding: .4rem 0 }
th, td { padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #ddd; text-align: right; vertical-align: top }
th:first-child, td:first-child, .text { text-align: left }
.no { color: #b3261e; font-weight: 600 } .yes { color: #1b7f3b } svg { max-width: 100%; height: auto }
pre { white-space: pre-wrap; background: #f5f5f5; padding: .5rem; overflow: auto; max-height: 12rem }
"""
SHOWN_CHARACTERS = 600


class Table(NamedTuple):
    """A table with a title; its first column is text."""

    title: str
    columns: list[str]
    rows: list[list[str]]

    def __rich__(self) -> Shown:
        table = Shown(
            title=self.title,
            title_justify="left",
            title_style="bold",
            box=None,
            padding=(0, 2, 0, 0),
        )
        for i, column in enumerate(self.columns):
            table.add_column(
                column, justify="left" if i == 0 or column == "what" else "right", overflow="fold"
            )
        for row in self.rows:
            table.add_row(*row)
        return table

    def html(self) -> str:
        def cells(row: list[str], tag: str) -> str:
            kinds = [' class="text"' if c == "what" else "" for c in self.columns]
            kinds = [
                f' class="{c}"' if c in ("yes", "no") else k
                for c, k in zip(row, kinds, strict=True)
            ]
            parts = zip(row, kinds, strict=True)
            return (
                "<tr>" + "".join(f"<{tag}{k}>{html.escape(c)}</{tag}>" for c, k in parts) + "</tr>"
            )

        body = "".join(cells(row, "td") for row in self.rows)
        return f"<table><caption>{html.escape(self.title)}</caption>{cells(self.columns, 'th')}{body}</table>"


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
            [[b.name, "yes" if b.holds else "no", b.told] for b in bars],
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
        color = "#b3261e" if name in ATTACKS else "#1b7f3b" if name == "reference" else "#456"
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
    title: str, shown: list[Table], measured: dict, spreads: dict, examples: dict[str, str]
) -> str:
    """The whole page; `examples`: an answer of each kind."""
    parts = [table.html() for table in shown]
    texts = "".join(
        f"<h3>{html.escape(kind.replace('_', ' '))}</h3><pre>{html.escape(text[:SHOWN_CHARACTERS])}"
        f"{' …' if len(text) > SHOWN_CHARACTERS else ''}</pre>"
        for kind, text in examples.items()
    )
    head = f"<meta charset=utf-8><title>{html.escape(title)}</title><style>{STYLE}</style>"
    return (
        f"<!doctype html>{head}<h1>{html.escape(title)}</h1>{parts[0]}{plots(measured, spreads)}"
        f"{''.join(parts[1:])}<h2>One answer of each kind</h2>{texts}\n"
    )
