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

from functools import cached_property

from pydantic import Field, model_validator

from rewards import sql
from rewards._sql.shaping import SHAPINGS
from rewards._sql.steps import UNDERSTOOD, Step, locate, split, worth
from rewards._sql.task import key_of, known_task, new_task, pool_for
from rewards._sql.text import extract

LIMITS_ITSELF = True
STEPS_MOST = 20


class Options(sql.Options):
    step_cap: float = Field(0.2, ge=0)  # of the full reward: what all steps can earn together
    empty_step: float = Field(0.5, ge=0, le=1)  # what a step without rows is worth of one with rows

    @model_validator(mode="after")
    def _a_right_answer_wins(self):
        match, *others = SHAPINGS[self.shaping]
        gap = 1 - max(others) / match
        if self.step_cap >= gap:
            raise ValueError(
                f"step_cap must be a number from 0 to below {gap:g} (shaping={self.shaping}: a right"
                f" answer must win), not {self.step_cap!r}"
            )
        return self

    @cached_property
    def of_sql(self) -> dict:
        """Those of rewards.sql."""
        return {name: getattr(self, name) for name in sql.Options.model_fields}


async def compute_score(
    data_source, solution_str, ground_truth, extra_info=None, **options
) -> dict:
    """What rewards.sql says, `steps`, and numbers of them for logging.

    Errors are those of rewards.sql: ValueError for a bad option, RuntimeError if no worker starts.
    """
    o = Options.of(options)
    result = await sql.compute_score(
        data_source, solution_str, ground_truth, extra_info, **o.of_sql
    )
    steps: tuple[Step, ...] = ()
    values, at = [], 0
    if result["outcome"] in UNDERSTOOD:
        text, _ = extract(solution_str, o.bare_select)
        steps = split(text)
    if 0 < len(steps) <= STEPS_MOST:
        at = locate(solution_str, text)
        key = key_of(ground_truth, extra_info, sql.Options.of(o.of_sql))
        pool = pool_for(key)
        task = known_task(pool, key) or await new_task(pool, key)
        if task.usable:  # still: the file may have changed meanwhile
            values = await worth(text, steps, pool, task, o.empty_step)
    share = o.step_cap * SHAPINGS[o.shaping].match / max(1, len(steps))
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
    return sql.row_faults(rows, **Options.of(options).of_sql)


def bars(**options) -> dict:
    """Those of rewards.sql; the steps are not in the score."""
    return sql.bars(shaping=Options.of(options).shaping)


reference_answer = sql.reference_answer
