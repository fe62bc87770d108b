"""Answers by a server that speaks OpenAI's protocol (vLLM's, llama.cpp's, a hosted one), many requests at once."""

import asyncio
import os
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import httpx
import openai

from preflight.mistakes import Mistake
from tools._models.engine import TOO_LONG, Answer, Asked, Engine, Sampling, Settings, reason
from tools._models.naming import Model

KEY = "OPENAI_API_KEY"
TIMEOUT_S = 600.0
FAULTS = (openai.OpenAIError, httpx.HTTPError, ValueError)  # ValueError: no JSON
REASONING = ("reasoning", "reasoning_content")  # where servers put it


def whole(text: str | None) -> str:
    """A reply's text; half of a surrogate pair, which JSON can say and no file can hold, is a question mark."""
    return "" if text is None else str.encode(text, errors="replace").decode()


class Server(Engine):
    """One model on a server."""

    name = "server"

    def __init__(self, model: Model, settings: Settings):
        self.model, self.settings = model, settings
        # A server of one's own wants no key, and the library wants one all the same.
        self.options: dict[str, Any] = {
            "base_url": model.path,
            "api_key": os.environ.get(KEY) or "none",
            "max_retries": settings.retries,  # with growing pauses: 408, 409, 429, 5xx, no connection
            "timeout": TIMEOUT_S,
        }
        self.client = openai.OpenAI(**self.options)
        try:
            self.served = model.name or self.client.models.list().data[0].id
        except FAULTS as error:
            raise Mistake(self.told(error)) from None
        except (IndexError, AttributeError, TypeError):
            raise Mistake(f"{model.path} lists no models: name one, {model.path}#NAME") from None

    def told(self, error: Exception) -> str:
        """What a server's error means, as one line; no key is in it."""
        if isinstance(error, openai.AuthenticationError):
            return f"{self.model.path} does not accept the key: put it into ${KEY}"
        if isinstance(error, openai.APITimeoutError):
            return f"{self.model.path} gave no answer within {TIMEOUT_S:.0f} s"
        if isinstance(error, openai.NotFoundError):
            return (
                f"{self.model.path} answered 404: {reason(error)}. Does its address end with /v1?"
            )
        if isinstance(error, openai.APIConnectionError):
            return f"{self.model.path} can't be reached. Is the server up, and does its address end with /v1?"
        if isinstance(error, openai.APIStatusError):
            return f"{self.model.path} answered {error.status_code}: {reason(error)}"
        if isinstance(error, ValueError):
            return f"{self.model.path} replied with something that is no JSON: {reason(error)}"
        return f"{self.model.path}: {reason(error)}"

    def request(self, messages: list[dict], sampling: Sampling, seed: int) -> dict[str, Any]:
        """One request's fields."""
        more: dict = {"top_k": sampling.top_k} if sampling.top_k else {}
        if self.settings.template_kwargs:
            more["chat_template_kwargs"] = self.settings.template_kwargs
        return {
            "model": self.served,
            "messages": messages,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": seed,
            "extra_body": more or None,
        }

    def answers(
        self, asked: Iterable[Asked], sampling: Sampling
    ) -> Iterator[tuple[Asked, list[Answer]]]:
        loop = asyncio.new_event_loop()
        client = openai.AsyncOpenAI(**self.options)
        waiting = iter(asked)
        tasks: dict[asyncio.Task, Asked] = {}
        try:
            while True:
                while len(tasks) < self.settings.at_once and (one := next(waiting, None)):
                    tasks[loop.create_task(self.several(client, one, sampling))] = one
                if not tasks:
                    return
                first = asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                done, _ = loop.run_until_complete(first)
                for task in done:
                    one = tasks.pop(task)
                    try:
                        made = task.result()
                    except FAULTS as error:
                        raise Mistake(self.told(error)) from None
                    yield one, made
        finally:
            loop.run_until_complete(self.end(client, list(tasks)))
            loop.close()

    @staticmethod
    async def end(client: openai.AsyncOpenAI, tasks: list[asyncio.Task]) -> None:
        """Give up what is still asked. In the loop: outside of it gather() of nothing belongs to another one."""
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await client.close()

    async def several(self, client, one: Asked, sampling: Sampling) -> list[Answer]:
        """All answers to one prompt; not by `n`, which has one seed for all."""
        return list(
            await asyncio.gather(
                *(self.single(client, one.messages, sampling, seed) for seed in one.seeds)
            )
        )

    async def single(self, client, messages: list[dict], sampling: Sampling, seed: int) -> Answer:
        try:
            reply = await client.chat.completions.create(**self.request(messages, sampling, seed))
        except openai.BadRequestError as error:
            if "context length" in str(error) or "too long" in str(error):
                return Answer("", 0, TOO_LONG)
            raise
        try:
            choice = reply.choices[0]
            text = whole(choice.message.content)
        except (AttributeError, IndexError, TypeError):  # the library checks nothing of a reply
            raise Mistake(
                f"{self.model.path} replied without an answer: {str(reply)[:200]}"
            ) from None
        tokens = getattr(reply.usage, "completion_tokens", None) or 0
        return Answer(text, tokens, "length" if choice.finish_reason == "length" else "stop")

    def stream(
        self, messages: list[dict], sampling: Sampling, seed: int = 0
    ) -> Generator[str, None, Answer]:
        text, tokens, finish = "", 0, "stop"
        for piece, count, ended in self.pieces(messages, sampling, seed):
            text, tokens = text + piece, tokens + count
            finish = "length" if ended == "length" else finish
            if piece:
                yield piece
        return Answer(text, tokens, finish)

    def pieces(
        self, messages: list[dict], sampling: Sampling, seed: int
    ) -> Iterator[tuple[str, int, str | None]]:
        """(text, 1 for a piece, how it ended): a server may send several tokens at once, and most don't.

        What it sends as reasoning is put between <think> and </think>, as the model wrote it.
        """
        thinks = False
        try:
            with self.client.chat.completions.create(
                stream=True, **self.request(messages, sampling, seed)
            ) as events:
                for event in events:
                    if not event.choices:
                        continue
                    choice = event.choices[0]
                    thought = next(
                        (
                            value
                            for name in REASONING
                            if (value := getattr(choice.delta, name, None))
                        ),
                        "",
                    )
                    text = whole(choice.delta.content)
                    if thought and not thinks:
                        thought, thinks = f"<think>{thought}", True
                    elif text and thinks:
                        text, thinks = f"</think>\n\n{text}", False
                    yield thought + text, int(bool(thought or text)), choice.finish_reason
        except (*FAULTS, AttributeError, TypeError) as error:
            raise Mistake(self.told(error)) from None

    def close(self) -> None:
        self.client.close()
