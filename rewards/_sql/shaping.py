"""From an outcome to a score. In every shaping a non-match scores below every match.

| shaping | match | ran, wrong | did not run | no SQL, bad format | source |
|---|---|---|---|---|---|
| `arctic` | 1 | 0.1 | 0 | 0 | Arctic-Text2SQL-R1, arXiv 2505.20315 |
| `binary` | 1 | 0 | 0 | 0 | |
| `skyrl` | 1 | 0 | 0 | -1 | SkyRL-SQL |
| `sql_r1` | 6 | 0 | -1 | -1 | SQL-R1, arXiv 2504.08600 |
| `soft_f1` | 1 | min(0.5, F1) | 0 | 0 | BIRD mini-dev, arXiv 2305.03111 |

`sql_r1` adds the paper's parts: format 1 or -1; execution 2 or -2, 0 without the format; result 3
or -3, 0 if nothing ran. Its fourth part, a bonus for length, is left out: it pays for words.
"""

from collections import namedtuple

Scores = namedtuple("Scores", "match wrong failed bad_format")

SHAPINGS = {
    "arctic": Scores(1.0, 0.1, 0.0, 0.0),
    "binary": Scores(1.0, 0.0, 0.0, 0.0),
    "skyrl": Scores(1.0, 0.0, 0.0, -1.0),
    "sql_r1": Scores(1.0 + 2.0 + 3.0, 1.0 + 2.0 - 3.0, 1.0 - 2.0, -1.0),
    "soft_f1": Scores(1.0, 0.5, 0.0, 0.0),
}
OUTCOMES = (
    "match", "mismatch", "no_sql", "format", "syntax_error", "schema_error", "runtime_error",
    "forbidden", "not_select", "multiple_statements", "limit", "result_too_large", "memory",
    "timeout", "killed", "worker_crash", "gold_error", "db_missing",
)  # fmt: skip
DATA_FAULTS = ("gold_error", "db_missing")


def score_of(shaping: str, outcome: str, soft_f1: float = 0.0) -> float:
    """The score of an outcome; NaN for a fault of the data, which says nothing of the answer."""
    scores = SHAPINGS[shaping]
    if outcome == "match":
        return scores.match
    if outcome == "mismatch":
        return min(scores.wrong, soft_f1) if shaping == "soft_f1" else scores.wrong
    if outcome in DATA_FAULTS:
        return float("nan")
    return scores.bad_format if outcome in ("no_sql", "format") else scores.failed


def report(
    shaping,
    outcome,
    empty_gold=False,
    rows=0,
    exec_ms=0.0,
    table_read=False,
    soft_f1=0.0,
    cache_hit=False,
) -> dict:
    """What the reward returns for an outcome."""
    masked = outcome in DATA_FAULTS
    executed = outcome in ("match", "mismatch")
    return {
        "score": score_of(shaping, outcome, soft_f1),
        "acc": float("nan") if masked else float(outcome == "match"),
        "outcome": outcome,
        "executed": float(executed),
        "masked": float(masked),
        "empty_gold": float(empty_gold),
        "no_table_read": float(executed and not table_read),
        "rows": float(rows),
        "exec_ms": float(exec_ms),
        "cache_hit": float(cache_hit),
    }
