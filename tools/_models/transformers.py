"""Answers by transformers: prompts of like length in one batch, on a GPU or a CPU."""

import threading
from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from queue import SimpleQueue

import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.generation import BaseStreamer
from transformers.utils import logging

from preflight.mistakes import Mistake
from tools._models.engine import (
    TOO_LONG,
    Answer,
    Asked,
    LocalEngine,
    Sampling,
    Settings,
    reason,
    until,
)
from tools._models.naming import Model

WINDOW = 512  # prompts that are sorted by length together


class Noise(LogitsProcessor):
    """Gumbel noise from a generator for each row: the highest logit is then a draw from the softmax."""

    def __init__(self, seeds: list[int]):
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        width = scores.shape[-1]
        drawn = [torch.empty(width).exponential_(generator=one) for one in self.generators]
        return scores.float() - torch.stack(drawn).log().to(scores.device)


class Tokens(BaseStreamer):
    """The tokens of one answer, from the thread that makes them; None after the last."""

    def __init__(self):
        self.queue: SimpleQueue[int | None] = SimpleQueue()
        self.prompt_came = False

    def put(self, value: torch.Tensor) -> None:
        if self.prompt_came:
            for token in value.flatten().tolist():
                self.queue.put(token)
        self.prompt_came = True

    def end(self) -> None:
        self.queue.put(None)


def text_of(tokenizer, tokens: Iterable[int]) -> Iterator[str]:
    """The text of tokens as they come. One character may be several tokens: it waits for its last.

    A token is decoded together with those before it: in many vocabularies its text depends on them.
    """
    ids: list[int] = []
    known, read = 0, 0  # ids[known:read] is the piece before, ids[read:] the next one

    def decode(some: list[int]) -> str:
        return tokenizer.decode(some, skip_special_tokens=True)

    for token in tokens:
        ids.append(token)
        before, now = decode(ids[known:read]), decode(ids[known:])
        if len(now) > len(before) and not now.endswith("\ufffd"):
            yield now[len(before) :]
            known, read = read, len(ids)
    if rest := decode(ids[known:])[len(decode(ids[known:read])) :]:
        yield rest


class Transformers(LocalEngine):
    """A causal language model of transformers, and its adapter, if it has one."""

    name = "transformers"

    def __init__(self, model: Model, settings: Settings, longest_answer: int):
        super().__init__(model, settings, longest_answer)
        logging.disable_progress_bar()
        self.device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
        options = {"attn_implementation": settings.attention} if settings.attention else {}
        try:
            self.net, found = AutoModelForCausalLM.from_pretrained(
                model.base or model.path,
                dtype=settings.dtype,
                trust_remote_code=settings.trust_remote_code,
                output_loading_info=True,
                **options,
            )
            if missing := sorted(found["missing_keys"]):  # transformers would draw them at random
                raise ValueError(
                    f"its weights lack {len(missing)} tensors, {missing[0]} among them"
                )
            if model.base:
                from peft import PeftModel

                self.net = PeftModel.from_pretrained(self.net, model.path).merge_and_unload()
        except Exception as error:
            raise Mistake(f"{model.said} can't be loaded: {reason(error)}") from None
        self.net.to(self.device).eval()
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.tokenizer.padding_side = "left"

    def answers(
        self, asked: Iterable[Asked], sampling: Sampling
    ) -> Iterator[tuple[Asked, list[Answer]]]:
        waiting = iter(asked)
        while window := list(islice(waiting, WINDOW)):
            prompts = [(self.encode(one.messages), one) for one in window]
            for ids, one in prompts:
                if self.room(ids, sampling) < 1:
                    yield one, [Answer("", 0, TOO_LONG)] * len(one.seeds)
            good = [(ids, one) for ids, one in prompts if self.room(ids, sampling) >= 1]
            good.sort(key=lambda prompt: len(prompt[0]))
            left = {one.key: len(one.seeds) for _, one in good}
            found: dict[int, dict[int, Answer]] = {one.key: {} for _, one in good}
            single = [(ids, one, i) for ids, one in good for i in range(len(one.seeds))]
            for batch in self.batches(single, sampling):
                made = self.generate([(ids, one.seeds[i]) for ids, one, i in batch], sampling)
                for (_, one, i), answer in zip(batch, made, strict=True):
                    found[one.key][i] = answer
                    left[one.key] -= 1
                    if not left[one.key]:
                        several = found.pop(one.key)
                        yield one, [several[number] for number in range(len(several))]

    def batches(self, single: list[tuple], sampling: Sampling) -> Iterator[list[tuple]]:
        """Prompts, sorted by length, in batches of no more than `tokens_at_once` with their answers."""
        batch: list[tuple] = []
        for one in single:
            each = len(one[0]) + sampling.max_tokens
            # Near the end of the context a longer neighbour would cut an answer short.
            apart = batch and self.room(one[0], sampling) != self.room(batch[0][0], sampling)
            if apart or (batch and each * (len(batch) + 1) > self.settings.tokens_at_once):
                yield batch
                batch = []
            batch.append(one)
        if batch:
            yield batch

    def generate(self, prompts: list[tuple[list[int], int]], sampling: Sampling) -> list[Answer]:
        """The answer to each (tokens, seed); a batch that is too large for the memory is halved."""
        try:
            return self.generate_batch(prompts, sampling)
        except torch.OutOfMemoryError:
            if len(prompts) == 1:
                raise Mistake(f"{self.model.said}: one prompt of {len(prompts[0][0])} tokens is too much for this GPU's"
                              " memory") from None  # fmt: skip
        torch.cuda.empty_cache()
        half = len(prompts) // 2
        return self.generate(prompts[:half], sampling) + self.generate(prompts[half:], sampling)

    def generate_batch(
        self, prompts: list[tuple[list[int], int]], sampling: Sampling
    ) -> list[Answer]:
        padded = self.tokenizer.pad({"input_ids": [ids for ids, _ in prompts]}, return_tensors="pt")
        width = padded["input_ids"].shape[1]
        room = min(sampling.max_tokens, self.context - width)
        with torch.inference_mode():
            out = self.net.generate(
                **padded.to(self.device),
                **self.options(sampling, [seed for _, seed in prompts], room),
            )
        return [self.answer_of(row, room) for row in out[:, width:].tolist()]

    def answer_of(self, row: list[int], room: int) -> Answer:
        """The answer in generated tokens, which may have padding behind it."""
        ends = self.ends()
        end = next((i for i, token in enumerate(row) if token in ends), None)
        ids = row[:room] if end is None else row[: end + 1]
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        cut = end is None and len(ids) >= room
        for stop in self.stops:
            if stop in text:
                text, cut = text.partition(stop)[0], False
        while end is None and ids and ids[-1] == self.tokenizer.pad_token_id:
            ids = ids[:-1]
        return Answer(text, len(ids), "length" if cut else "stop")

    def ends(self) -> set[int]:
        """The tokens that end an answer."""
        named = self.net.generation_config.eos_token_id
        ids = named if isinstance(named, list) else [named]
        return {i for i in (*ids, self.tokenizer.eos_token_id, *self.stop_ids) if i is not None}

    def options(self, sampling: Sampling, seeds: list[int], room: int) -> dict:
        """Keyword arguments of transformers' generate."""
        processors = LogitsProcessorList()
        if sampling.temperature > 0:
            processors.append(TemperatureLogitsWarper(sampling.temperature))
            if sampling.top_k:
                processors.append(TopKLogitsWarper(sampling.top_k))
            if sampling.top_p < 1:
                processors.append(TopPLogitsWarper(sampling.top_p))
            processors.append(Noise(seeds))
        # The model's own generation config may ask for sampling, penalties and so on: nothing of it but the ends.
        config = GenerationConfig(
            do_sample=False,
            max_new_tokens=room,
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=sorted(self.ends()) or None,
            stop_strings=list(self.stops) or None,
        )
        return {
            "generation_config": config,
            "logits_processor": processors,
            **({"tokenizer": self.tokenizer} if self.stops else {}),
        }

    def stream(
        self, messages: list[dict], sampling: Sampling, seed: int = 0
    ) -> Generator[str, None, Answer]:
        ids = self.prompt_ids(messages, sampling)
        room = self.room(ids, sampling)
        tokens = Tokens()
        failed: list[BaseException] = []
        stopped = threading.Event()

        def enough(made: torch.Tensor, *_, **__) -> torch.Tensor:
            return torch.full((len(made),), stopped.is_set(), device=made.device)

        def work() -> None:
            try:
                with torch.inference_mode():
                    self.net.generate(
                        torch.tensor([ids], device=self.device),
                        streamer=tokens,
                        stopping_criteria=[enough],
                        **self.options(sampling, [seed], room),
                    )
            except BaseException as error:
                failed.append(error)
                tokens.end()

        made: list[int] = []

        def come() -> Iterator[int]:
            while (token := tokens.queue.get()) is not None:
                made.append(token)
                yield token

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield from until(text_of(self.tokenizer, come()), self.stops)
        finally:  # Ctrl-C in the middle of an answer, too
            stopped.set()
            thread.join()
        if failed:
            raise Mistake(f"{self.model.said}: {reason(failed[0])}")
        return self.answer_of(made, room)
