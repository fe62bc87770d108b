"""The tables of a comparison: on the terminal, and on the page."""

import math

from preflight.tables import Titled as Table
from tools._compare.figures import Comparison, Example, title
from tools._compare.statistics import Estimate

LINE = 160  # characters of an answer on the terminal
SMALLEST_P = 0.001
NOTHING = "-"


def between(one: Estimate, sign: str = "") -> str:
    """An interval in words."""
    return NOTHING if math.isnan(one.low) else f"{one.low:{sign}.3f} to {one.high:{sign}.3f}"


def p_text(p: float | None) -> str:
    """A p value; those that are very small need no digits."""
    if p is None:
        return NOTHING
    return f"<{SMALLEST_P}" if p < SMALLEST_P else f"{p:.3f}"


def figure(value: float | None) -> str:
    """A number of a part: three digits that say something, whatever its size."""
    if value is None or math.isnan(value):
        return NOTHING
    if value == 0 or 0.001 <= abs(value) < 1000:
        return f"{value:.3f}"
    return f"{value:.3g}" if abs(value) < 1 else f"{value:.0f}"


def percent(share: float | None) -> str:
    """A share."""
    return NOTHING if share is None else f"{share:.1%}"


def made(comparison: Comparison) -> dict[str, Table]:
    """All tables that have something to say."""
    found = {"means": means(comparison), "pairs": pairs(comparison)}
    if comparison.seeds:
        found = seeds(comparison) | found
    if comparison.categories:
        found["categories"] = categories(comparison)
    found["answers"] = answers(comparison)
    found["parts"] = numbers(comparison)
    if comparison.parts.classes:
        found["classes"] = classes(comparison)
    return {name: table for name, table in found.items() if table.rows}


def means(c: Comparison) -> Table:
    """Each side."""
    rows = [
        [name, f"{m.value:.3f}", between(m), f"{m.error:.3f}"]
        for name, m in zip(c.names, c.means, strict=True)
    ]
    return Table(
        f"{title(c.metric)}, mean over questions", ["", "mean", "95 % interval", "std error"], rows
    )


def pairs(c: Comparison) -> Table:
    """Each pair."""
    rows, several = [], len(c.compared) > 1
    exact = any(p.mcnemar is not None for p in c.compared)
    for pair in c.compared:
        d = pair.difference
        rows.append([
            f"{c.names[pair.second]} − {c.names[pair.first]}",
            f"{d.value:+.3f}", between(d, "+"), f"{d.error:.3f}", p_text(d.p),
            *([p_text(pair.mcnemar)] if exact else []),
            *([p_text(pair.p)] if several else []),
            str(pair.won), str(pair.lost), str(pair.same), figure(d.smallest),
        ])  # fmt: skip
    heads = ["", "difference", "95 % interval", "std error", "p", *(["McNemar p"] if exact else []),
             *(["p by Holm"] if several else []), "won", "lost", "same", "smallest visible"]  # fmt: skip
    return Table("Paired differences", heads, rows)


def seeds(c: Comparison) -> dict[str, Table]:
    """Groups of seeds."""
    rows = [
        [name, str(len(side.seeds)), f"{m.value:.3f}", between(m)]
        for name, side, m in zip(c.names, c.sides, c.seed_means, strict=True)
    ]
    several = len(c.seeds) > 1
    differ = [
        [f"{c.names[p.second]} − {c.names[p.first]}", f"{p.difference.value:+.3f}", between(p.difference, "+"),
         p_text(p.difference.p), *([p_text(p.p)] if several else []), figure(p.difference.smallest)]
        for p in c.seeds
    ]  # fmt: skip
    heads = [
        "",
        "difference",
        "95 % interval",
        "p",
        *(["p by Holm"] if several else []),
        "smallest visible",
    ]
    return {
        "seeds": Table(
            f"{title(c.metric)}, over seeds", ["", "seeds", "IQM", "95 % interval"], rows
        ),
        "seed_pairs": Table("Differences between settings, over seeds", heads, differ),
    }


def categories(c: Comparison) -> Table:
    """By category."""
    rows = [
        [one.name, str(one.questions), *(f"{m.value:.3f}" for m in one.means), f"{one.difference.value:+.3f}",
         between(one.difference, "+")]
        for one in c.categories
    ]  # fmt: skip
    of = f"{c.names[1]} − {c.names[0]}"
    return Table(
        f"By {c.options.by}", [c.options.by, "questions", *c.names, of, "95 % interval"], rows
    )


def answers(c: Comparison) -> Table:
    """What holds of all answers."""
    found = c.parts.overall
    lines = {
        "answers": [str(o.answers) for o in found],
        "could not be graded": [percent(o.ungraded) for o in found],
        "reward was stopped": [percent(o.stopped) for o in found],
        "cut at the longest length": [percent(o.cut_off) for o in found],
        "distinct answers": [percent(o.distinct) for o in found],
        "the commonest answer": [percent(o.commonest) for o in found],
        "distinct within a question": [percent(o.within) for o in found],
    }
    rows = [[name, *cells] for name, cells in lines.items() if set(cells) != {NOTHING}]
    return Table("Answers", ["", *c.names], rows)


def numbers(c: Comparison) -> Table:
    """The spread of each part, a line for each side."""
    rows = []
    for part in c.parts.numbers:
        label = part.name  # on its first line alone
        for name, s in zip(c.names, part.sides, strict=True):
            if s:
                cells = [
                    *map(figure, (s.mean, s.std, s.low, s.high)),
                    f"{s.common:.4g} in {s.share:.0%}",
                    percent(s.missing),
                ]
                rows.append([label, name, *cells])
                label = ""
    return Table(
        "Parts of the reward",
        ["", "of", "mean", "std", "lowest", "highest", "commonest", "missing"],
        rows,
    )


def classes(c: Comparison) -> Table:
    """The share of each class."""
    rows = [
        [f"{part.name}: {label}", *(percent(side.get(label, 0)) for side in part.sides)]
        for part in c.parts.classes
        for label in part.labels
    ]
    return Table("Classes", ["", *c.names], rows)


def example(names: list[str], one: Example, metric: str) -> str:
    """A question with the answers of all sides, a line each."""
    width = max(map(len, [*names, "reference"]))
    lines = [
        line(one.answers[0].question.splitlines()[-1] if one.answers[0].question else one.prompt)
    ]
    for name, v, answer in zip(names, one.values, one.answers, strict=True):
        lines.append(f"  {name:<{width}}  {mark(v, metric):<5}  {line(answer.text)}")
    lines.append(f"  {'reference':<{width}}         {line(one.truth)}")
    return "\n".join(lines)


def mark(value: float, metric: str) -> str:
    """Right, wrong, or a number."""
    if metric.rpartition("/")[2] == "acc" and value in (0, 1):
        return "✓" if value else "✗"
    return f"{value:.2f}"


def line(text: str) -> str:
    """A text on one line, without its fence, of bounded length."""
    flat = " ".join(word for word in text.split() if not word.startswith("```"))
    return flat if len(flat) <= LINE else f"{flat[: LINE - 1]}…"
