"""The tables of a sweep: on the terminal, and on the page."""

from launcher.sweep import command, is_one
from preflight.mistakes import near
from preflight.tables import Titled as Table
from tools._compare.statistics import Estimate
from tools._compare.text import NOTHING, between
from tools._sweep.figures import Found, Setting, questions, short
from tools._sweep.reading import OK, Job

MARK = "*"
LONGEST = 16  # characters of a setting's name in a head
MOST_LINES = 8  # jobs that ended alike


def value(one: Estimate | None, sign: str = "") -> str:
    """A mean."""
    return f"{one.value:{sign}.3f}" if one else NOTHING


def interval(one: Estimate | None, sign: str = "") -> str:
    """Its interval."""
    return between(one, sign) if one else NOTHING


def settings(found: Found) -> Table:
    """A line for each setting: what was varied, and nothing else; a column for what they don't all have alike."""
    sweep, all_of_them = found.sweep, found.settings
    keys, several = short(sweep.varied), len(all_of_them) > 1
    first = all_of_them[found.first].name if found.first is not None else ""
    first = first if len(first) <= LONGEST else "the first"
    columns: dict[str, list[str]] = {
        "": [MARK if i == found.best else "" for i in range(len(all_of_them))]
    }
    for key in sweep.varied:
        columns[keys[key]] = [one.words[key] for one in all_of_them]
    if any(len(one.jobs) > 1 or not one.whole for one in all_of_them):
        columns["seeds" if sweep.seeds_varied else "jobs"] = list(map(count, all_of_them))
    if len({steps_of(one) for one in all_of_them if one.counted}) > 1:
        columns["steps"] = list(map(steps_of, all_of_them))
    if before := any(one.before for one in all_of_them):
        columns["before"] = [value(one.before) for one in all_of_them]
    columns["after"] = [value(one.after) for one in all_of_them]
    columns["95 % interval"] = [interval(one.after) for one in all_of_them]
    differences = [pair.difference if pair else None for pair in found.against]
    if several and not sweep.searches:
        columns[f"less {first}"] = [value(d, "+") for d in differences]
        columns["interval"] = [interval(d, "+") for d in differences]
    elif before and not sweep.searches:
        columns["change"] = [value(one.change, "+") for one in all_of_them]
        columns["interval"] = [interval(one.change, "+") for one in all_of_them]
    asked = [len(questions(job.rows[1])) for job in sweep.jobs if job.rows[1]]
    rows_of = f" on {max(asked)} held-out questions" if asked else ""
    over = ", mean over seeds" if sweep.seeds_varied else ""
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    return Table(f"{found.metric or 'no metric'}{rows_of}{over}", list(columns), rows)


def count(one: Setting) -> str:
    """How many of its jobs count."""
    return str(len(one.jobs)) if one.whole else f"{len(one.counted)} of {len(one.jobs)}"


def steps_of(one: Setting) -> str:
    """How many steps its jobs have made."""
    steps = sorted({job.steps for job in one.counted})
    return (
        NOTHING if not steps else f"{steps[0]} to {steps[-1]}" if len(steps) > 1 else str(steps[0])
    )


def jobs(found: Found) -> Table:
    """A line for each job."""
    keys = short(found.sweep.varied)
    seeds = found.sweep.seeds_varied
    rows = [
        [str(job.number), *job.setting.values(), *([job.seed] if seeds else []), str(job.steps),
         *(f"{v:.3f}" if v is not None else NOTHING for v in (job.before, job.after)), job.state]
        for job in found.sweep.jobs
    ]  # fmt: skip
    heads = ["job", *(keys[key] for key in found.sweep.varied), *(["seed"] if seeds else [])]
    return Table("All jobs", [*heads, "steps", "before", "after", "end"], rows)


def label(job: Job) -> str:
    """A job in a sentence: its number, what it has of its own."""
    keys = short(list(job.setting))
    said = [f"{keys[key]}={value}" for key, value in job.setting.items()]
    said += [f"seed={job.seed}"] if job.seed else []
    return f"job {job.number} ({', '.join(said)})"


def unfinished(found: Found) -> list[str]:
    """A line for each job that has no figure because of how it ended; one for many that ended alike."""
    states: dict[str, list[Job]] = {}
    for job in found.sweep.jobs:
        if not job.counts:
            states.setdefault("no figure" if job.state == OK else job.state, []).append(job)
    lines = []
    for state, jobs in states.items():
        if len(jobs) > MOST_LINES:
            lines.append(
                f"{state}: {len(jobs)} jobs ({', '.join(str(job.number) for job in jobs)})"
            )
            continue
        for job in jobs:
            where = f": {near(job.folder / 'log.txt')}" if job.folder and job.state != OK else ""
            lines.append(f"{state}: {label(job)}{where}")
    if any(job.state != OK and not job.was_stopped for job in found.sweep.jobs):
        lines += [f"go on: {command(folder)}" for folder in found.sweep.folders if is_one(folder)]
    return lines


def whole(found: Found) -> str:
    """All that the terminal shows."""
    any_counts = any(one.counted for one in found.settings)
    parts = [
        str(settings(found) if any_counts else jobs(found)).rstrip(),
        "\n".join(unfinished(found)) if any_counts else "",
        "\n".join(f"{note}." for note in found.notes),
        "\n".join(found.verdicts),
    ]
    return "\n\n".join(filter(None, parts))
