"""`reward=prm`: each step of the answer scored by a trained process reward model (`algo=prm`).

Source: Reward-SQL, arXiv:2505.04671 (rm_coef · PRM(step) + reward_coef · outcome); process reward
models: Lightman et al., arXiv:2305.20050. Steps are separated by blank lines. The PRM reads the
prompt and the steps, stripped and joined by one blank line as its trainer saw them, in one pass (it
is causal: a step's score depends on nothing after it); P(step is right) = sigmoid of its logit at
the token that holds the step's last character.

score: reward_coef · the outcome, a reward by its name in this folder (any range), + rm_coef ·
       `aggregate` of the steps' probabilities (min, mean, prod), if set: for advantage functions
       that look at whole answers, which see nothing of `steps`.
steps: [(start, end, rm_coef · P)], characters of the answer; a step reaches to the next one's
       beginning. Placed on tokens by the agent loop.
Degenerate: an empty answer has no steps, and its aggregate is 0. Repeating good steps pays if step
scores are summed up.
No score of the server: NaN, so that the sample is masked; `rm_failed` is 1. NaN of the outcome stays.
Not covered: showing each step's execution result to the PRM (as the paper's does), step marks
other than blank lines, PRMs with a token for "+" and "-" or with two labels.
"""

import math
import re
from bisect import bisect_left
from itertools import accumulate, chain

from rewards import _served
from rewards._limits.calls import call

LIMITS_ITSELF = True

BLANK_LINE = re.compile(r"\n\s*\n")
AGGREGATES = {"min": min, "mean": lambda p: sum(p) / len(p), "prod": math.prod}


def split_steps(text: str) -> list[tuple[int, int]]:
    """(start, end) of each step in `text`, without the white space around it; none is empty."""
    blanks = [blank.span() for blank in BLANK_LINE.finditer(text)]
    edges = [0, *chain.from_iterable(blanks), len(text)]
    spans = []
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        step = text[start:end].strip()
        if step:
            start = text.index(step, start)
            spans.append((start, start + len(step)))
    return spans


async def step_probabilities(address, tokenizer, messages, steps, template_kwargs, *limits):
    """P(step is right) of each step's text. Raises NotScored."""
    text = "\n\n".join(steps)
    prompt, answer, starts = _served.encode(tokenizer, messages, text, template_kwargs)
    logits = await _served.token_scores(address, [*prompt, *answer], *limits)
    if len(logits) != len(prompt) + len(answer):
        raise ValueError("reward=prm needs a ...ForTokenClassification: a score of every token")
    ends = [end - 2 for end in accumulate(len(step) + 2 for step in steps)]
    at = [len(prompt) + bisect_left(starts, end) - 1 for end in ends]  # holds the last character
    return [1 / (1 + math.exp(-max(-700.0, logits[i]))) for i in at]


async def compute_score(
    data_source,
    solution_str,
    ground_truth,
    extra_info=None,
    *,
    reward_router_address=None,  # from verl
    reward_model_tokenizer=None,
    outcome=None,
    outcome_kwargs=None,
    rm_coef=1.0,
    reward_coef=1.0,
    aggregate=None,
    chat_template_kwargs=None,
    timeout_s=600.0,
    attempts=4,
    max_tokens=None,
) -> dict:
    """Score one answer. extra_info: {"messages": the prompt} and what the outcome's reward needs.

    ValueError where no model is served, or for an unknown aggregate.
    """
    if reward_router_address is None:
        raise ValueError("reward=prm scores inside of a run, where verl serves the model")
    if aggregate not in (None, *AGGREGATES):
        raise ValueError(f"unknown aggregate {aggregate!r}. There is: {', '.join(AGGREGATES)}")
    row = (data_source, solution_str, ground_truth, extra_info)
    if outcome:
        result = await call(f"pkg://rewards.{outcome}", "compute_score", row, outcome_kwargs or {})
    else:
        result = {"score": 0.0}
    spans = split_steps(solution_str)
    result["outcome_score"] = result["score"]
    result["score"] *= reward_coef
    result |= {"steps": [], "step_count": float(len(spans)), "rm_failed": 0.0}
    if not spans:
        return result
    try:
        p = await step_probabilities(
            reward_router_address, reward_model_tokenizer, extra_info["messages"],
            [solution_str[start:end] for start, end in spans],
            chat_template_kwargs, timeout_s, attempts, max_tokens,
        )  # fmt: skip
    except _served.NotScored:
        return result | {"score": math.nan, "rm_failed": 1.0}
    if aggregate:
        result["score"] += rm_coef * AGGREGATES[aggregate](p)
    starts = [start for start, _ in spans]
    reach = zip(starts, [*starts[1:], len(solution_str)], p, strict=True)
    result["steps"] = [(start, end, rm_coef * score) for start, end, score in reach]
    return result | {"step_mean": sum(p) / len(p), "step_min": min(p)}
