"""A model that verl serves beside the policy: the score that its head gives to each token.

verl starts the server (`reward.reward_model`, vLLM) and hands its address and tokenizer to the
reward function. The text is what the trainers of algos/ show to a reward model: the prompt by the
model's own chat template, then the answer, tokenised apart from it. The scores are logits.
"""

import asyncio
import logging

import aiohttp

logger = logging.getLogger(__name__)


class NotScored(Exception):
    """The server gave no score: not reached, too slow, or the text is too long for it."""


def encode(
    tokenizer, messages, answer: str, template_kwargs=None
) -> tuple[list[int], list[int], list[int]]:
    """Tokens of a prompt and of its answer, and where each token of the answer begins (characters).

    What only spells a special token is none: an answer cannot end its turn and praise itself.
    """
    prompt = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=False, **(template_kwargs or {})
    )
    prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    encoded = tokenizer(
        answer, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
    )
    starts = [start for start, _ in encoded["offset_mapping"]]
    return prompt_ids, encoded["input_ids"], starts


async def token_scores(
    address: str, ids: list[int], timeout_s: float, attempts: int, max_tokens: int | None
) -> list[float]:
    """The head's logit at each token; at the last one only, if the model is a sequence classifier.

    Args:
        address: host:port of verl's router.
        ids: the tokens, (T,).
        timeout_s: of one attempt. A batch comes at once, so the last waits for all others.
        attempts: on errors of the network and of the server, with pauses of 1, 2, 4, ... seconds.
        max_tokens: a longer text isn't even sent; the server would refuse it.

    Raises NotScored.
    """
    if max_tokens and len(ids) > max_tokens:
        raise NotScored(f"{len(ids)} tokens, more than max_tokens={max_tokens}")
    payload = {"input": ids, "use_activation": False}  # no sigmoid, no softmax
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    for attempt in range(attempts):
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
        if attempt + 1 < attempts:
            await asyncio.sleep(2**attempt)
    logger.warning("no score of the reward model for %d tokens: %s", len(ids), reason)
    raise NotScored(reason)
