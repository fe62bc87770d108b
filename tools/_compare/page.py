"""The page of a comparison: one HTML file with everything in it; answers are text, whatever tags they hold."""

import difflib
import json
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from tools._compare import text
from tools._compare.figures import Comparison, Example, title
from tools._compare.parts import Number
from tools._compare.plots import colour

TEMPLATE = "page.html.jinja"
SHOWN_CHARACTERS = 4000  # of an answer; a longer one is cut, with a line that says so
MARKED_CHARACTERS = 2000  # of answers whose differing words are marked: difflib is quadratic
WIDE, HIGH = 220, 64  # of a histogram, in its own units
WORDS = re.compile(r"\s+|\w+|[^\w\s]")


def page(comparison: Comparison, svg: str, most: int) -> str:
    """The whole page; `most`: questions won, and lost, that are shown."""
    pair = comparison.compared[0]
    return template(Path(__file__).with_name(TEMPLATE)).render(
        c=comparison,
        heading=" · ".join(comparison.names),
        metric=title(comparison.metric),
        verdicts=list(zip(comparison.verdicts, tones(comparison), strict=True)),
        tables=text.made(comparison),
        figure=Markup(svg),
        histograms=[(part, bars(part)) for part in comparison.parts.numbers],
        sources=list(zip(comparison.names, comparison.sides, strict=True)),
        colours=[colour(i) for i in range(len(comparison.names))],
        examples=[
            (
                f"Won by {comparison.names[1]}",
                pair.won,
                [shown(e, comparison) for e in comparison.won[:most]],
            ),
            (
                f"Lost by {comparison.names[1]}",
                pair.lost,
                [shown(e, comparison) for e in comparison.lost[:most]],
            ),
        ],
    )


def template(file: Path) -> Template:
    """A page's template, which may include those that lie here."""
    # autoescape: answers are a model's, and full of tags
    return Environment(
        loader=FileSystemLoader([file.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(file.name)


def tones(comparison: Comparison) -> list[str]:
    """Of each verdict: how it is coloured."""
    pairs = comparison.seeds or comparison.compared
    return ["none" if not p.apart else "up" if p.difference.value > 0 else "down" for p in pairs]


def bars(part: Number) -> list[tuple[str, str]]:
    """A histogram as SVG paths, a (colour, outline) for each side, over the same bins and to the same scale."""
    highest = max(max(side.bars) for side in part.sides if side)
    made = []
    for i, side in enumerate(part.sides):
        if side:
            step = WIDE / len(side.bars)
            points = "".join(
                f"V{HIGH - HIGH * share / highest:.1f}H{(at + 1) * step:.1f}"
                for at, share in enumerate(side.bars)
            )
            made.append((colour(i), f"M0 {HIGH}{points}V{HIGH}Z"))
    return made


def shown(example: Example, comparison: Comparison) -> dict:
    """A question of the page, with the words marked in which an answer differs from the first side's."""
    first = example.answers[0].text
    return {
        "question": example.answers[0].question or example.prompt,
        "prompt": example.prompt,
        "truth": cut(example.truth),
        "answers": [
            {
                "name": name,
                "mark": text.mark(value, comparison.metric),
                "good": value >= max(example.values),
                "text": marked(first, answer.text) if at else cut(answer.text),
                "parts": parts_line(answer.parts),
            }
            for at, (name, value, answer) in enumerate(
                zip(comparison.names, example.values, example.answers, strict=True)
            )
        ],
    }


def parts_line(parts: dict) -> str:
    """The parts of an answer's reward, on a line."""
    return " · ".join(
        f"{name} {text.figure(value) if isinstance(value, float) else value}"
        for name, value in parts.items()
        if value is not None
    )


def cut(answer: str) -> str:
    """An answer of bounded length."""
    more = len(answer) - SHOWN_CHARACTERS
    return answer if more <= 0 else f"{answer[:SHOWN_CHARACTERS]} … ({more} more characters)"


def marked(before: str, after: str) -> Markup | str:
    """An answer with the words marked that the other has not."""
    if len(before) > MARKED_CHARACTERS or len(after) > MARKED_CHARACTERS:
        return cut(after)
    old, new = WORDS.findall(before), WORDS.findall(after)
    made = Markup()
    for kind, _, _, start, end in difflib.SequenceMatcher(
        None, old, new, autojunk=False
    ).get_opcodes():
        words = escape("".join(new[start:end]))
        made += (
            words
            if kind == "equal" or not words.strip()
            else Markup("<mark>") + words + Markup("</mark>")
        )
    return made


def as_json(comparison: Comparison) -> str:
    """All figures for a program: what the tables have, without rounding."""
    c = comparison
    pairs = [
        {"first": c.names[p.first], "second": c.names[p.second], "mcnemar": p.mcnemar, "won": p.won, "lost": p.lost,
         "same": p.same, "corrected_p": p.p, "apart": p.apart, "verdict": p.verdict, **p.difference._asdict()}
        for p in [*c.compared, *c.seeds]
    ]  # fmt: skip
    found = {
        "metric": c.metric,
        "questions": len(c.pairs.keys),
        "sides": [{"name": n, "source": str(s.source), "seeds": s.seeds, **m._asdict()}
                  for n, s, m in zip(c.names, c.sides, c.means, strict=True)],
        "pairs": pairs[: len(c.compared)],
        "seed_pairs": pairs[len(c.compared) :],
        "categories": [{"name": k.name, "questions": k.questions, "means": [m.value for m in k.means],
                        **k.difference._asdict()} for k in c.categories],
        "parts": {
            part.name: {n: s and {k: v for k, v in s._asdict().items() if k != "bars"}
                        for n, s in zip(c.names, part.sides, strict=True)}
            for part in c.parts.numbers
        },
        "answers": {name: o._asdict() for name, o in zip(c.names, c.parts.overall, strict=True)},
        "warnings": c.parts.warnings,
        "notes": c.notes,
    }  # fmt: skip
    return json.dumps(finite(found), indent=1, ensure_ascii=False)


def finite(found):
    """NaN is no JSON: null."""
    if isinstance(found, dict):
        return {name: finite(value) for name, value in found.items()}
    if isinstance(found, list | tuple):
        return [finite(value) for value in found]
    return None if isinstance(found, float) and found != found else found
