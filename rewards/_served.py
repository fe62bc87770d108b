"""A model that verl serves beside the policy: the score that its head gives to each token.

verl starts the server (`reward.reward_model`, vLLM) and hands its address and tokenizer to the
reward function. The text is what the trainers of algos/ show to a reward model: the prompt by the
model's own chat template, then the answer, tokenised apart from it. The scores are logits.
"""

import asyncio
import logging

import aiohttp
from pydantic import Field

from data_prep._chat import render, token_ids
from rewards import _backoff, _options

logger = logging.getLogger(__name__)


class Options(_options.Options):
    chat_template_kwargs: dict = Field({})
    timeout_s: float = Field(600.0, gt=0)  # of one attempt; a whole batch comes at once
    attempts: int = Field(4, ge=1)
    max_tokens: int | None = Field(None, ge=1)  # a longer text isn't sent: it would be refused


class NotScored(Exception):
    """The server gave no score: not reached, too slow, or the text is too long for it."""


def encode(
    tokenizer, messages, answer: str, template_kwargs=None
) -> tuple[list[int], list[int], list[int]]:
    """Tokens of a prompt and of its answer, and where each token of the answer begins (characters).

    What only spells a special token is none: an answer cannot end its turn and praise itself.
    """
    prompt_ids = token_ids(tokenizer, render(tokenizer, messages, template_kwargs))
    encoded = tokenizer(
        answer, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
    )
    starts = [start for start, _ in encoded["offset_mapping"]]
    return prompt_ids, encoded["input_ids"], starts


async def token_scores(address: str, ids: list[int], options: Options) -> list[float]:
    """The head's logit at each token; at the last one only, if the model is a sequence classifier.

    Args:
        address: host:port of verl's router.
        ids: the tokens, (T,).
        options: of the reward; on errors of the network and of the server it is asked again.

    Raises NotScored.
    """
    most = options.max_tokens
    if most and len(ids) > most:
        raise NotScored(f"{len(ids)} tokens, more than max_tokens={most}")
    payload = {"input": ids, "use_activation": False}  # no sigmoid, no softmax
    timeout = aiohttp.ClientTimeout(total=options.timeout_s)
    for attempt in range(1, options.attempts + 1):
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(f"http://{address}/pooling", json=payload) as answer,
            ):
                answer.raise_for_status()
                data = (await answer.json())["data"][0]["data"]
            return [row[0] if isinstance(row, list) else row for row in data]
        except (
            aiohttp.ClientError,
            asyncio.TimeoutError,
            ValueError,
            LookupError,
            TypeError,
        ) as error:
            reason = f"{type(error).__name__}: {error}"
        if attempt < options.attempts:
            await _backoff.pause(attempt, 1.0)
    logger.warning("no score of the reward model for %d tokens: %s", len(ids), reason)
    raise NotScored(reason)
