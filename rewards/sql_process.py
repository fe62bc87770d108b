"""`reward=sql_process`: the outcome of `reward=sql`, and a score for each CTE of a chain.

A response that reasons as a chain, `WITH a AS (...), b AS (...) SELECT ...`, shows its work: each
CTE is a step, and its prefix (`WITH a AS (...) SELECT * FROM a LIMIT 50`) runs once, guarded as the
answer is. The chain is that of Reward-SQL (arXiv 2505.04671), which trains a model to score steps.

A step of n, in units of the full reward (a match's: 1, with `sql_r1` 6):
  step_cap / n  it runs, reads a table, returns rows, and the final SELECT reads it, itself or
                through other steps
  empty_step    times that: the same without rows
  0             else
So the steps earn at most `step_cap` together, however many there are, and one that nothing reads,
or that reads nothing, makes the others worth less. A cap is refused under which a wrong answer with
perfect steps could reach a right one with none.
`score` is the outcome's alone; `steps` are [(start, end, score), ...] in characters of the
response. Shapings, ranges and faults of the data (NaN, no steps) are those of `reward=sql`.

Degenerate: no steps for what is no chain, nor for a query that SQLite or sqlglot does not parse,
for two CTEs of one name, for more than 20. The steps together get the time of one query; when it is
used up, those that are left score 0.
Not covered: whether a step is of use. `SELECT * FROM t` that the final SELECT reads is a step.
"""

import difflib
import inspect

from rewards import sql
from rewards._sql.shaping import SHAPINGS
from rewards._sql.steps import UNDERSTOOD, locate, split, worth
from rewards._sql.task import key_of, known_task, new_task, pool_for, settings_of
from rewards._sql.text import extract

LIMITS_ITSELF = True
OWN = ("step_cap", "empty_step")
SQL_DEFAULTS = sql.compute_score.__kwdefaults__
STEPS_MOST = 20


async def compute_score(
    data_source,
    solution_str,
    ground_truth,
    extra_info=None,
    *,
    step_cap=0.2,  # of the full reward: what all steps can earn together
    empty_step=0.5,  # what a step without rows is worth of one with rows
    **options,  # those of rewards.sql
) -> dict:
    """What rewards.sql says, `steps`, and numbers of them for logging.

    Errors are those of rewards.sql: ValueError for a bad option, RuntimeError if no worker starts.
    """
    options = SQL_DEFAULTS | options
    settings = settings_of(*(options[name] for name in SQL_DEFAULTS))
    _check(settings.shaping, step_cap, empty_step, options.keys() - SQL_DEFAULTS.keys())
    result = await sql.compute_score(data_source, solution_str, ground_truth, extra_info, **options)
    steps, values, at = (), [], 0
    if result["outcome"] in UNDERSTOOD:
        text, _ = extract(solution_str, settings.bare_select)
        steps = split(text)
    if 0 < len(steps) <= STEPS_MOST:
        at = locate(solution_str, text)
        key = key_of(ground_truth, extra_info, settings)
        pool = pool_for(key)
        task = known_task(pool, key) or await new_task(pool, key)
        if task.usable:  # still: the file may have changed meanwhile
            values = await worth(text, steps, pool, task, empty_step)
    share = step_cap * SHAPINGS[settings.shaping].match / max(1, len(steps))
    scored = [
        (at + step.start, at + step.end, share * value)
        for step, value in zip(steps, values, strict=False)
    ]
    return result | {
        "steps": scored,
        "steps_total": float(sum(score for *_, score in scored)),
        "n_steps": float(len(steps)),
        "steps_reached": float(sum(step.reached for step in steps)),
        "steps_good": float(sum(value > 0 for value in values)),
    }


def row_faults(rows, **options) -> list[dict]:
    """Faults of the data, as rewards.sql finds them."""
    return sql.row_faults(rows, **{k: v for k, v in options.items() if k not in OWN})


def bars(**options) -> dict:
    """Those of rewards.sql; the steps are not in the score."""
    others = {k: v for k, v in options.items() if k not in OWN}
    settings = settings_of(*(others.get(name, SQL_DEFAULTS[name]) for name in SQL_DEFAULTS))
    defaults = compute_score.__kwdefaults__
    own = (options.get(name, defaults[name]) for name in OWN)
    _check(settings.shaping, *own, others.keys() - SQL_DEFAULTS.keys())
    return sql.bars(**others)


reference_answer = sql.reference_answer


def _check(shaping: str, step_cap, empty_step, unknown) -> None:
    match, *others = SHAPINGS[shaping]
    gap = 1 - max(others) / match
    if type(step_cap) not in (int, float) or not 0 <= step_cap < gap:
        wanted = f"from 0 to below {gap:g} (shaping={shaping}: a right answer must win)"
        raise ValueError(f"step_cap must be a number {wanted}, not {step_cap!r}")
    if type(empty_step) not in (int, float) or not 0 <= empty_step <= 1:
        raise ValueError(f"empty_step must be a number from 0 to 1, not {empty_step!r}")
    for name in unknown:
        if close := difflib.get_close_matches(name, OWN, 1, 0.75):
            raise ValueError(f"unknown option {name!r}: did you mean {close[0]!r}?")


def _signature() -> inspect.Signature:
    """With the options of rewards.sql by name, for `python -m rewards`."""
    *own, rest = inspect.signature(compute_score).parameters.values()
    theirs = inspect.signature(sql.compute_score).parameters
    return inspect.Signature([*own, *(theirs[name] for name in SQL_DEFAULTS), rest])


compute_score.__signature__ = _signature()
