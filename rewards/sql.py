"""`reward=sql`: run the response's SQL and the reference SQL on a database, compare the results.

Modes (how results are compared; arXiv ids in `_sql/compare`):
  spider  bags of rows under some order of the columns; rows in order only if the reference answer says
          `order by`; DISTINCT counts (better for training), or is
          stripped from both with keep_distinct=false, as the public evaluator does
  bird    sets of rows, columns in order
  strict  bags of rows, columns in order, rows in order if the reference answer's last step is ORDER BY,
          floats within 1e-6 (relative), DISTINCT kept
Common: 1 == 1.0, NULL equals NULL, text is no number, empty equals empty (`empty_gold`).
Several reference answers: any may match. Several databases (`extra_info["db"]`, `["extra_dbs"]`): one must match
on every one. The SQL is the last closed ```sql fence after the thinking (see `_sql/text`);
it is not rewritten, but for what Spider's evaluator itself repairs.
A database is a SQLite file, or a URL: postgresql:// mysql:// duckdb:// (see `_sql/url`).

Scores: `shaping` (see `_sql/shaping`), [0, 1]; `skyrl` [-1, 1], `sql_r1` [-1, 6].
Faults of the data (`gold_error`, `db_missing`) are no matter of the answer: score and acc are NaN
and masked is 1, for the trainer to leave the sample out of the update.
Hostile SQL is expected: see `_sql/guard` and `_sql/engines` for what is stopped, and how.
Degenerate: a constant that happens to match, matches (`no_table_read`; the cure is more databases).
With `arctic`, any query that runs earns 0.1, `SELECT 1` too.
Not covered: results that differ by chance or by the time of day; what changes on a server meanwhile.
"""

from typing import Annotated, Literal

from pydantic import Field

from rewards import _options
from rewards._sql import faults
from rewards._sql.shaping import SHAPINGS, report
from rewards._sql.task import key_of, known_task, new_task, pool_for, strings
from rewards._sql.text import extract

LIMITS_ITSELF = True
Seconds = Annotated[float, Field(ge=1e-3)]
Count = Annotated[int, Field(ge=1)]


class Options(_options.Options):
    mode: Literal["spider", "bird", "strict"] = "spider"
    keep_distinct: bool = True
    shaping: Literal[tuple(SHAPINGS)] = "arctic"  # type: ignore[valid-type] # pydantic reads it as it runs
    timeout_s: Seconds = 2.0  # a query on one database; it is interrupted,
    grace_s: float = Field(1.0, ge=0)  # and its process killed so much later if it cannot be
    reference_timeout_s: Seconds = 30.0
    max_rows: Count = 10_000  # or twice the reference answer's; so for bytes
    max_bytes: Count = 8_000_000
    memory_mib: int = Field(1024, ge=128)  # of a worker process
    workers: Count = 2  # processes per calling process
    bare_select: bool = False  # accept SQL outside of fences and tags
    allow_superuser: bool = False  # of a server: its rights are not the query's only bounds
    strict_format: bool = False  # at most one </think> and one fence after it, or it is `format`


async def compute_score(
    data_source, solution_str, ground_truth, extra_info=None, **options
) -> dict:
    """Score one response. extra_info: {"db": path or paths (or URLs), "extra_dbs": paths}.

    ValueError for a bad option or a missing driver, RuntimeError if no worker process starts;
    nothing else, whatever the response says.
    """
    o = Options.of(options)
    key = key_of(ground_truth, extra_info, o)
    pool = pool_for(key)
    task = known_task(pool, key) or await new_task(pool, key)
    if not task.usable:
        return report(o.shaping, task.faults[0][0])
    response = solution_str if isinstance(solution_str, str) else ""
    sql, well_formed = extract(response, o.bare_select)
    if sql is None:
        return report(o.shaping, "no_sql", task.empty_gold)
    if o.strict_format and not well_formed:
        return report(o.shaping, "format", task.empty_gold)
    if len(sql) > task.sql_bytes:  # the worker would say the same, but need not see it
        return report(o.shaping, "limit", task.empty_gold)
    answer, known = await task.run(pool, sql)
    if isinstance(answer, str):
        return report(o.shaping, answer, task.empty_gold, cache_hit=known)
    outcome, rows, exec_ms, table_read, soft_f1 = answer
    return report(o.shaping, outcome, task.empty_gold, rows, exec_ms, table_read, soft_f1, known)


def row_faults(rows, **options) -> list[dict]:
    """Faults of the data, for use before a training: {"index", "outcome", "message"} in row order.

    rows: mappings in verl's schema (`reward_model.ground_truth`, `extra_info.db`) or flat. options:
    those of compute_score. Every reference answer runs once on each of its databases, with reference_timeout_s.
    """
    return faults.find(rows, Options.of(options))


def bars(**options) -> dict:
    """What a reference answer scores at least, an empty one at most. ValueError for a bad option."""
    scores = SHAPINGS[Options.of(options).shaping]
    return {
        "range": (min(scores), max(scores)),
        "reference": scores.match,
        "empty": scores.bad_format,
    }


def reference_answer(ground_truth, extra_info=None) -> str | None:
    """The first reference SQL, fenced."""
    references = [reference for reference in strings(ground_truth) if reference.strip()]
    return f"```sql\n{references[0]}\n```" if references else None
