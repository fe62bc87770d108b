"""`reward=judge`: a language model grades the answer, over an OpenAI-compatible HTTP API.

Source: Zheng et al., arXiv:2306.05685 (LLM as a judge, single-answer grading with a reference).
The texts it gets are in judge.yaml: `system` (how to grade, and how to reply) and `template` (the
row). Fields: {{prompt}} {{response}} {{reference}} (the ground truth), {{low}} {{high}} (the
scale), {{id}} and any name of extra_info; single braces are ordinary text.

score: [0, 1], the reply's {"score": S} on `scale`. An empty answer is 0, and nobody is asked.
What models make of that JSON (text for the number, other quotes, bad escapes, an object around it) is
read, and a reply without a verdict is asked for once more.
No score (error, timeout, no verdict, S outside of the scale, the cap reached): NaN, so that the
sample is masked; `judge_failed` is 1 and `outcome` says why: http_error, connection, timeout,
bad_json, spend_cap. A wrong key, model or address, or `give_up_after` failures in a row, raise.
Parts: cache_hit; calls (requests made for this sample); seconds (until the score was there);
spent (share of max_calls, 0 without one). A call is counted before it is made, and taken back if it
cost nothing (an error status, nobody there): the cap is never passed. Scores and the count lie in
`folder`, for all processes of the run, and for the run that resumes it. concurrency and
requests_per_minute are a process's: N reward workers send N times as much.

An answer that talks to its judge: it stands between marks with {{id}}, a hash that it can't hold, and
the verdict has to repeat it, so no score that the judge quotes counts. A template of your own without
{{id}} loses that: then the last object with a "score" counts.
Not covered: a judge that is talked round all the same, or likes length, style or its own kind;
answers that are too long for it (the server's error); images; comparing two answers.
"""

import math
import os
import time

from rewards._judge.client import Reply, judge_of
from rewards._judge.options import Options
from rewards._judge.text import fields_of

LIMITS_ITSELF = True


async def compute_score(
    data_source, solution_str, ground_truth, extra_info=None, **options
) -> dict:
    """Score one answer. extra_info: {"messages": the prompt} and what the template names.

    ValueError for a bad option, a field that the row lacks, a judge that serves nobody (see above).
    """
    start, o = time.monotonic(), Options.of(options)
    response = solution_str if isinstance(solution_str, str) else ""
    judge, reply = judge_of(o), Reply("empty", 0.0)
    if response.strip():
        row = (response, ground_truth, extra_info or {})
        reply = await judge.score(fields_of(o.names, *row, o.scale))
    return {
        "score": math.nan if reply.score is None else reply.score,
        "outcome": reply.outcome,
        "judge_failed": float(reply.score is None),
        "cache_hit": float(reply.hit),
        "calls": float(reply.calls),
        "seconds": time.monotonic() - start,
        "spent": await judge.spent(),
    }


def check_options(**options) -> None:
    """ValueError for what would end a run, before it starts: a bad option, no key. Nobody is asked."""
    for name in ("folder", "template_file"):
        if options.get(name) and not os.path.isabs(options[name]):
            full = os.path.abspath(options[name])
            raise ValueError(f"{name} is read in other working folders, name it in full: {full}")
    o = Options.of(options)
    o.url(), o.key()


def bars(**options) -> dict:
    """What a judge that is any good says: it has to be measured, nobody can promise it."""
    return {"range": (0.0, 1.0), "reference": 0.7, "empty": 0.3}


def reference_answer(ground_truth, extra_info) -> str | None:
    """The reference itself."""
    return ground_truth if isinstance(ground_truth, str) and ground_truth.strip() else None
