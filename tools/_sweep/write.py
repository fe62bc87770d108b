"""What is written of a sweep: sweep.json and sweep.csv for programs, sweep.html for people."""

import csv
import io
import json
import shlex
from pathlib import Path

from markupsafe import Markup

from launcher import sweep as folders
from preflight.mistakes import Mistake, near
from tools._compare.page import finite, template
from tools._compare.statistics import Estimate
from tools._sweep import plots, text
from tools._sweep.figures import Found

FILES = ("sweep.html", "sweep.json", "sweep.csv")


def files(found: Found, folder: Path, follows: str = "") -> list[Path]:
    """Write all three; returns where they are. follows: what is to be done next."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = (page(found, follows), as_json(found), as_csv(found))
    for name, content in zip(FILES, contents, strict=True):
        (folder / name).write_text(content, encoding="utf-8")
    return [folder / name for name in FILES]


def page(found: Found, follows: str = "") -> str:
    """One HTML file with everything in it."""
    return template(Path(__file__).with_name("page.html.jinja")).render(
        heading=" and ".join(near(folder) for folder in found.sweep.folders),
        settings=text.settings(found),
        jobs=text.jobs(found),
        verdicts=[(said, tone(said, found)) for said in found.verdicts],
        unfinished=text.unfinished(found),
        notes=found.notes,
        follows=follows,
        figure=Markup(plots.draw(found)),
        command="\n".join(map(command, found.sweep.folders)),
    )


def tone(said: str, found: Found) -> str:
    """How a verdict is coloured."""
    if said.startswith("best:"):
        return "up"
    return "down" if " worse than " in said else "up" if " better than " in said else "none"


def command(folder: Path) -> str:
    """The command line that began a sweep."""
    try:
        words = folders.words_of(folder)
    except Mistake:
        return ""
    return shlex.join(["python", "launch.py", "-m", *words])


def numbers(one: Estimate | None) -> dict | None:
    """An estimate for a program."""
    return one and {"value": one.value, "low": one.low, "high": one.high, "error": one.error}


def as_json(found: Found) -> str:
    """All figures, without rounding."""
    sweep = found.sweep
    settings = []
    for i, one in enumerate(found.settings):
        pair = found.against[i]
        settings.append({
            "name": one.name, "words": one.words, "jobs": [job.number for job in one.jobs],
            "counted": [job.number for job in one.counted], "before": numbers(one.before),
            "after": numbers(one.after), "change": numbers(one.change),
            "against_first": pair and numbers(pair.difference) | {
                "level": found.level, "seeds": pair.seeds, "questions": pair.questions,
                "left_out": pair.left_out, "apart": pair.difference.apart, "smallest": pair.difference.smallest},
        })  # fmt: skip
    jobs = [
        {"number": job.number, "folder": str(job.folder) if job.folder else None, "words": job.setting,
         "seed": job.seed, "end": job.state, "steps": job.steps, "before": job.before, "after": job.after}
        for job in sweep.jobs
    ]  # fmt: skip
    made = {
        "folders": [str(folder) for folder in sweep.folders],
        "metric": sweep.metric,
        "less_is_better": sweep.less_is_better,
        "varied": sweep.varied,
        "seeds_varied": sweep.seeds_varied,
        "first": found.first,
        "best": found.best,
        "settings": settings,
        "jobs": jobs,
        "verdicts": found.verdicts,
        "notes": found.notes,
    }
    return json.dumps(finite(made), indent=1, ensure_ascii=False) + "\n"


def as_csv(found: Found) -> str:
    """A line for each job."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    varied = found.sweep.varied
    writer.writerow(["job", *varied, "seed", "steps", "before", "after", "end", "folder"])
    for job in found.sweep.jobs:
        values = ["" if value is None else value for value in (job.before, job.after)]
        own = [job.setting[key] for key in varied]
        writer.writerow(
            [job.number, *own, job.seed, job.steps, *values, job.state, job.folder or ""]
        )
    return out.getvalue()
