"""`reward=composite`: the weighted sum of other rewards, by their names in this folder.

    reward=composite 'reward.custom_reward_function.reward_kwargs.parts={sql: 0.9, length: 0.1}'
    'reward.custom_reward_function.reward_kwargs.options={length: {max_length: 400}}'

score = sum of weight · score, in the range that follows from the parts' own (`bars`); weights are any
numbers and aren't normalised. A weight of 0: the part is only logged.
Whatever a part returns is logged under its name, NAME/PART (metrics reward/sql/acc, reward/length/score).
`acc` is that of the part called `main`, by default of the first that has one. `steps` of the parts
(sql_process) are put together, times their weights.
A part that could not grade (NaN; faulty data, or stopped at a limit) makes the sum NaN, so that the
sample is masked; `stopped` is the first part's that was. Each part has the limits that it has alone.
Degenerate: weights decide nothing where the scales differ: sql_r1 goes from -1 to 6, length from -1 to 0.
Not covered: `model` and `prm`, which need a served model; products, thresholds; one reward twice.
"""

import asyncio

from rewards._composite_parts import checked, module
from rewards._limits.calls import call
from rewards._options import refuse_unknown

LIMITS_ITSELF = True


async def compute_score(
    data_source,
    solution_str,
    ground_truth,
    extra_info=None,
    *,
    parts=None,  # weights by name, at least one
    options=None,  # options by name
    main=None,  # whose acc is the sum's
    **unknown,
) -> dict:
    """Score one response. ValueError for a bad option, RewardError where a part raises."""
    refuse_unknown(unknown, compute_score)
    weights, options = checked(parts, options, main)
    row = (data_source, solution_str, ground_truth, extra_info)
    results = await asyncio.gather(
        *(call(f"pkg://rewards.{name}", "compute_score", row, options[name]) for name in weights)
    )
    by_name = dict(zip(weights, results, strict=True))
    steps = [
        (start, end, weights[name] * score)
        for name, result in by_name.items()
        for start, end, score in result.pop("steps", ())
    ]
    total = sum(weight * by_name[name]["score"] for name, weight in weights.items() if weight)
    report = {"score": float(total)} | ({"steps": steps} if steps else {})
    accs = [r["acc"] for name, r in by_name.items() if "acc" in r and name == (main or name)]
    report |= {"acc": accs[0]} if accs else {}
    report["stopped"] = next((r["stopped"] for r in results if r["stopped"] != "no"), "no")
    logged = {f"{name}/{part}": v for name, r in by_name.items() for part, v in r.items()}
    return report | logged


def check_options(**options) -> None:
    """ValueError for what compute_score would refuse, before a run."""
    refuse_unknown(options, compute_score)
    checked(**{"parts": None, **options})


def row_faults(rows, parts=None, options=None, main=None) -> list[dict]:
    """Faults of the data that the parts find, in row order; none without parts."""
    weights, options = checked(parts, options, main) if parts else ({}, {})
    rows, faults = list(rows), []
    for name in weights:
        if find := getattr(module(name), "row_faults", None):
            for fault in find(rows, **options[name]):
                faults.append({**fault, "message": f"{name}: {fault['message']}"})
    return sorted(faults, key=lambda fault: fault["index"])


def bars(parts=None, options=None, main=None) -> dict:
    """From the parts': the reference answer is the main part's, on which others may score their lowest."""
    weights, options = checked(parts, options, main)
    main = main or max(weights, key=weights.get)
    low, high, reference, empty = 0.0, 0.0, 0.0, 0.0
    for name, weight in weights.items():
        if not hasattr(module(name), "bars"):
            raise ValueError(f"reward {name} doesn't say its range")
        of = module(name).bars(**options[name])
        worst, best = sorted(weight * end for end in of["range"])
        low, high = low + worst, high + best
        reference += weight * of["reference"] if name == main and weight > 0 else worst
        empty += weight * of["empty"] if weight > 0 else best
    return {"range": (low, high), "reference": reference, "empty": empty}


def reference_answer(
    ground_truth, extra_info=None, *, parts=None, options=None, main=None
) -> str | None:
    """That of the main part, by default of the one with the highest weight."""
    if not parts:
        return None
    weights, _ = checked(parts, options, main)
    answer = getattr(module(main or max(weights, key=weights.get)), "reference_answer", None)
    return answer(ground_truth, extra_info) if answer else None
