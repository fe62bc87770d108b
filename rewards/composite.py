"""`reward=composite`: the weighted sum of other rewards, by their names in this folder.

    reward=composite 'lab.reward.parts={sql: 0.9, length: 0.1}'
    'lab.reward.options={length: {max_length: 400}}'

score = sum of weight · score, in the range that follows from the parts' own (`bars`); weights are
numbers up to a million, of either sign, and aren't normalised. A weight of 0: the part is only logged.
Whatever a part returns is logged under its name, NAME/PART (metrics reward/sql/acc, reward/length/score).
`acc` is that of the part called `main`, by default of the first that has one. `steps` of the parts
(sql_process) are put together, times their weights.
A part that could not grade (NaN; faulty data, or stopped at a limit) makes the sum NaN, so that the
sample is masked; `stopped` is the first part's that was. Each part has the limits that it has alone.
Degenerate: weights decide nothing where the scales differ: sql_r1 goes from -1 to 6, length from -1 to 0.
Not covered: `model` and `prm`, which need a served model; products, thresholds; one reward twice.
"""

import asyncio
from typing import Any

from pydantic import Field, model_validator

from preflight.mistakes import unknown
from rewards import _options
from rewards._limits.calls import call
from rewards._names import load, names

LIMITS_ITSELF = True
MOST = 1e6  # of a weight; the sum is a number, whatever the parts say


class Options(_options.Options):
    parts: dict | None = None  # weights by name, at least one
    options: dict = Field({})  # options by name
    main: str | None = None  # whose acc is the sum's; None: the first part's that has one

    @model_validator(mode="after")
    def _fit_together(self):
        weights, others = self.parts or {}, [name for name in names() if name != "composite"]
        if not any(weights.values()):
            raise ValueError(
                f"reward=composite needs parts, such as {{sql: 0.9, length: 0.1}}, not {self.parts}"
            )
        for name, weight in weights.items():
            if name not in others:
                raise ValueError(unknown("name in parts", name, others))
            if type(weight) not in (int, float) or not abs(weight) <= MOST:
                raise ValueError(
                    f"in parts the weight of {name} must be a number from -{MOST:g} to {MOST:g}, not {weight!r:.20}"
                )
        for name in self.options:
            if name not in weights:
                raise ValueError(unknown("name in options", name, weights))
        if self.main is not None and self.main not in weights:
            raise ValueError(unknown("main", self.main, weights))
        for name in weights:
            if _options.is_served(load(name)):
                raise ValueError(f"{name} can't be in parts: it needs a model that verl serves")
            try:
                _options.check(load(name), self.of_part(name))
            except ValueError as error:
                raise ValueError(f"{error} (its options stand in options.{name}, on a command line"
                                 f" lab.reward.options.{name}.OPTION=VALUE)") from None  # fmt: skip
        return self

    def of_part(self, name: str) -> dict:
        return self.options.get(name) or {}

    def heaviest(self) -> str:
        """The main part, by default the one with the highest weight."""
        return self.main or max(self.parts, key=self.parts.get)


async def compute_score(
    data_source, solution_str, ground_truth, extra_info=None, **options
) -> dict:
    """Score one response. ValueError for a bad option, RewardError where a part raises."""
    o = Options.of(options)
    row = (data_source, solution_str, ground_truth, extra_info)
    results = await asyncio.gather(
        *(call(f"pkg://rewards.{name}", "compute_score", row, o.of_part(name)) for name in o.parts)
    )
    by_name = dict(zip(o.parts, results, strict=True))
    steps = [
        (start, end, o.parts[name] * score)
        for name, result in by_name.items()
        for start, end, score in result.pop("steps", ())
    ]
    total = sum(weight * by_name[name]["score"] for name, weight in o.parts.items() if weight)
    report: dict[str, Any] = {"score": float(total)} | ({"steps": steps} if steps else {})
    accs = [r["acc"] for name, r in by_name.items() if "acc" in r and name == (o.main or name)]
    report |= {"acc": accs[0]} if accs else {}
    report["stopped"] = next((r["stopped"] for r in results if r["stopped"] != "no"), "no")
    logged = {f"{name}/{part}": v for name, r in by_name.items() for part, v in r.items()}
    return report | logged


def row_faults(rows, **options) -> list[dict]:
    """Faults of the data that the parts find, in row order; none without parts."""
    if not options.get("parts"):
        return []
    o, rows, faults = Options.of(options), list(rows), []
    for name in o.parts:
        if find := getattr(load(name), "row_faults", None):
            for fault in find(rows, **o.of_part(name)):
                faults.append({**fault, "message": f"{name}: {fault['message']}"})
    return sorted(faults, key=lambda fault: fault["index"])


def bars(**options) -> dict:
    """From the parts': the reference answer is the main part's, on which others may score their lowest."""
    o = Options.of(options)
    low, high, reference, empty = 0.0, 0.0, 0.0, 0.0
    for name, weight in o.parts.items():
        if not hasattr(load(name), "bars"):
            raise ValueError(f"reward {name} doesn't say its range")
        of = load(name).bars(**o.of_part(name))
        worst, best = sorted(weight * end for end in of["range"])
        low, high = low + worst, high + best
        earns = name == o.heaviest() and weight > 0
        reference += weight * of["reference"] if earns else worst
        empty += weight * of["empty"] if weight > 0 else best
    return {"range": (low, high), "reference": reference, "empty": empty}


def reference_answer(
    ground_truth, extra_info=None, *, parts=None, options=None, main=None
) -> str | None:
    """That of the main part, by default of the one with the highest weight."""
    if not parts:
        return None
    name = Options.of({"parts": parts, "options": options or {}, "main": main}).heaviest()
    answer = getattr(load(name), "reference_answer", None)
    return answer(ground_truth, extra_info) if answer else None
