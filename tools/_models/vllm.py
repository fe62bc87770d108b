"""Answers by vLLM, in this process: new prompts go in as answers come out, so that the engine is always full."""

import os
import signal
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from preflight.mistakes import Mistake
from tools._models.engine import TOO_LONG, Answer, Asked, LocalEngine, Sampling, Settings, reason
from tools._models.naming import ADAPTER, Model

# Read when vLLM is imported. In this process: answers are handed over without another process in between.
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
QUEUED = 2  # prompts in the engine, as a multiple of those that it works on


@contextmanager
def ctrl_c_waits() -> Iterator[Callable[[], bool]]:
    """Meanwhile Ctrl-C is only noted: one in the middle of a step would leave the engine half-way."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def quiet() -> Iterator[None]:
    """Without what vLLM's C++ parts and workers write while they load; if loading fails, with all of it."""
    sys.stderr.flush()
    screen = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            yield
        except BaseException:
            written.seek(0)
            os.write(screen, written.read())
            raise
        finally:
            os.dup2(screen, 2)
            os.close(screen)


class Vllm(LocalEngine):
    """vLLM's engine on one model, and its adapter, if it has one."""

    name = "vllm"

    def __init__(self, model: Model, settings: Settings, longest_answer: int):
        super().__init__(model, settings, longest_answer)
        for name, value in (ENVIRONMENT | settings.env).items():
            os.environ.setdefault(name, value)
        from vllm.engine.arg_utils import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        self.adapter = None
        options: dict[str, Any] = dict(settings.vllm)
        if model.base:
            options |= self.lora(model)
        args = {
            "model": model.base or model.path,
            "tokenizer": model.tokenizer,
            "dtype": settings.dtype,
            "max_model_len": self.context,
            "trust_remote_code": settings.trust_remote_code,
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
            **options,
        }
        try:
            with quiet():
                self.engine = LLMEngine.from_engine_args(EngineArgs(**args))
        except Exception as error:
            raise Mistake(f"vLLM can't load {model.said}: {reason(error)}. --engine transformers takes less memory"
                          " and more time.") from None  # fmt: skip
        self.slots = self.engine.vllm_config.scheduler_config.max_num_seqs
        self.number = 0

    def lora(self, model: Model) -> dict:
        """vLLM's arguments for an adapter."""
        import json
        from pathlib import Path

        from vllm.lora.request import LoRARequest

        rank = json.loads((Path(model.path) / ADAPTER).read_text())["r"]
        self.adapter = LoRARequest("adapter", 1, model.path)
        return {"enable_lora": True, "max_lora_rank": max(8, 1 << (rank - 1).bit_length())}

    def add(self, ids: list[int], sampling: Sampling, seed: int, delta: bool = False) -> str:
        """Hand one request to the engine; its name."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        self.number += 1
        kind = RequestOutputKind.DELTA if delta else RequestOutputKind.FINAL_ONLY
        try:
            params = SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k or -1,
                max_tokens=self.room(ids, sampling),
                seed=seed if sampling.temperature > 0 else None,
                stop=list(self.stops) or None,
                stop_token_ids=sorted(self.stop_ids) or None,
                output_kind=kind,
            )
        except ValueError as error:  # a temperature of 3, for one
            raise Mistake(f"vLLM: {reason(error)}") from None
        name = str(self.number)
        self.engine.add_request(name, {"prompt_token_ids": ids}, params, lora_request=self.adapter)
        return name

    def answers(
        self, asked: Iterable[Asked], sampling: Sampling
    ) -> Iterator[tuple[Asked, list[Answer]]]:
        waiting, refused = iter(asked), deque[Asked]()
        owner: dict[str, tuple[Asked, int]] = {}
        found: dict[int, dict[int, Answer]] = {}

        def fill() -> None:
            most = QUEUED * self.slots
            while len(owner) + len(refused) < most and (one := next(waiting, None)):
                ids = self.encode(one.messages)
                if self.room(ids, sampling) < 1:
                    refused.append(one)
                    continue
                found[one.key] = {}
                for i, seed in enumerate(one.seeds):
                    owner[self.add(ids, sampling, seed)] = (one, i)

        fill()
        while owner or refused:
            while refused:
                one = refused.popleft()
                yield one, [Answer("", 0, TOO_LONG)] * len(one.seeds)
            for output in self.engine.step() if owner else ():
                if not output.finished:
                    continue
                one, i = owner.pop(output.request_id)
                made = output.outputs[0]
                finish = "length" if made.finish_reason == "length" else "stop"
                found[one.key][i] = Answer(made.text, len(made.token_ids), finish)
                if len(found[one.key]) == len(one.seeds):
                    several = found.pop(one.key)
                    yield one, [several[number] for number in range(len(several))]
            fill()

    def stream(
        self, messages: list[dict], sampling: Sampling, seed: int = 0
    ) -> Generator[str, None, Answer]:
        name = self.add(self.prompt_ids(messages, sampling), sampling, seed, delta=True)
        text, tokens, finish = "", 0, "stop"
        try:
            while self.engine.has_unfinished_requests():
                with ctrl_c_waits() as came:
                    outputs = self.engine.step()
                if came():
                    raise KeyboardInterrupt
                for made in (output.outputs[0] for output in outputs):
                    tokens += len(made.token_ids)
                    finish = "length" if made.finish_reason == "length" else "stop"
                    if made.text:
                        text += made.text
                        yield made.text
        finally:
            self.engine.abort_request([name])
        return Answer(text, tokens, finish)

    def close(self) -> None:
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        self.engine.engine_core.shutdown()
        del self.engine
        cleanup_dist_env_and_memory()  # the next model gets the GPU's memory
