"""`reward=model`: the score of a trained reward model (`algo=rm`), which verl serves beside the policy.

Source: reward models of preference pairs, Ouyang et al., arXiv:2203.02155, section 3.5. The score is
the head's raw logit at the answer's end-of-sequence token, for prompt and answer as the trainer saw
them (see `_served`); it has no scale of its own, only differences mean something.
The model: a folder with a `...ForTokenClassification` (what `algo=rm` saves) or
`...ForSequenceClassification`, one label. It may have another tokenizer than the policy.
Score: any real number, and no `acc`. Degenerate: an answer that was cut at its longest gets its end
token here, as if it had ended there; an empty answer is scored as any other.
No score (server gone, text too long for it): NaN, so that the sample is masked; `rm_failed` is 1.
Not covered: generative reward models (README), heads of several labels, images.
"""

import math

from rewards import _served

LIMITS_ITSELF = True
Options = _served.Options


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
    """Score one answer. extra_info: {"messages": the prompt}, from plugins.rollout.reward_manager.

    ValueError where no model is served, or for a bad option.
    """
    if reward_router_address is None:
        raise ValueError("reward=model scores inside of a run, where verl serves the model")
    o, tokenizer = Options.of(options), reward_model_tokenizer
    prompt, answer, _ = _served.encode(
        tokenizer, extra_info["messages"], solution_str, o.chat_template_kwargs
    )
    ids = [*prompt, *answer, tokenizer.eos_token_id]
    try:
        scores = await _served.token_scores(reward_router_address, ids, o)
    except _served.NotScored:
        return {"score": math.nan, "rm_failed": 1.0}
    return {"score": scores[-1], "rm_failed": 0.0}
