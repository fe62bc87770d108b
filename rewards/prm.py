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
from collections.abc import Callable
from typing import Literal

from pydantic import Field, model_validator

from rewards import _options, _served
from rewards._limits.calls import call
from rewards._names import load
from rewards._steps import join_steps, split_steps, tokens_at

LIMITS_ITSELF = True

AGGREGATES: dict[str, Callable] = {
    "min": min,
    "mean": lambda p: sum(p) / len(p),
    "prod": math.prod,
}


class Options(_served.Options):
    outcome: str | None = None  # a reward by name; None: none
    outcome_kwargs: dict = Field({})  # and its options
    rm_coef: float = 1.0  # times each step's P(right)
    reward_coef: float = 1.0  # times the outcome
    # of the steps into the score: for advantage functions that don't use steps
    aggregate: Literal["min", "mean", "prod"] | None = None

    @model_validator(mode="after")
    def _outcome_is_there(self):
        if self.outcome:
            try:
                _options.check(load(self.outcome), self.outcome_kwargs)
            except ValueError as error:
                raise ValueError(f"outcome: {error}") from None
        return self


async def step_probabilities(address, tokenizer, messages, steps, options: Options):
    """P(step is right) of each step's text. Raises NotScored."""
    text, ends = join_steps(steps)
    prompt, answer, starts = _served.encode(tokenizer, messages, text, options.chat_template_kwargs)
    logits = await _served.token_scores(address, [*prompt, *answer], options)
    if len(logits) != len(prompt) + len(answer):
        raise ValueError("reward=prm needs a ...ForTokenClassification: a score of every token")
    at = tokens_at(starts, ends)
    return [1 / (1 + math.exp(-max(-700.0, logits[len(prompt) + i]))) for i in at]


async def compute_score(
    data_source,
    solution_str,
    ground_truth,
    extra_info=None,
    *,
    reward_router_address=None,  # from verl
    reward_model_tokenizer=None,
    **options,
) -> dict:
    """Score one answer. extra_info: {"messages": the prompt} and what the outcome's reward needs.

    ValueError where no model is served, or for a bad option.
    """
    if reward_router_address is None:
        raise ValueError("reward=prm scores inside of a run, where verl serves the model")
    o = Options.of(options)
    row = (data_source, solution_str, ground_truth, extra_info)
    if o.outcome:
        result = await call(f"pkg://rewards.{o.outcome}", "compute_score", row, o.outcome_kwargs)
    else:
        result = {"score": 0.0}
    spans = split_steps(solution_str)
    result["outcome_score"] = result["score"]
    result["score"] *= o.reward_coef
    result |= {"steps": [], "step_count": float(len(spans)), "rm_failed": 0.0}
    if not spans:
        return result
    try:
        p = await step_probabilities(
            reward_router_address, reward_model_tokenizer, extra_info["messages"],
            [solution_str[start:end] for start, end in spans], o,
        )  # fmt: skip
    except _served.NotScored:
        return result | {"score": math.nan, "rm_failed": 1.0}
    if o.aggregate:
        result["score"] += o.rm_coef * AGGREGATES[o.aggregate](p)
    starts = [start for start, _ in spans]
    reach = zip(starts, [*starts[1:], len(solution_str)], p, strict=True)
    result["steps"] = [(start, end, o.rm_coef * score) for start, end, score in reach]
    return result | {"step_mean": sum(p) / len(p), "step_min": min(p)}
