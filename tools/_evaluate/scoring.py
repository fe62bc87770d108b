"""Answers scored beside the engine's work: in a thread of its own, with the limits of a run."""

import asyncio
import math
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from preflight.mistakes import Mistake
from rewards._limits.calls import RewardError, call
from tools._evaluate.rows import Row
from tools._evaluate.settings import Reward
from tools._evaluate.store import FIXED
from tools._models.engine import TOO_LONG, Answer

WAITING = 1024  # questions that are being scored


class Scorer:
    """Scores answers, and hands them on in the order in which they came.

    Args:
        rewards: none: answers are handed on as they are.
        write: gets the lines of a question, and which columns are the question's own.
    """

    def __init__(self, rewards: list[Reward], write: Callable[[list[dict], list[str]], None]):
        self.rewards, self.write = rewards, write
        self.waiting: deque[tuple[Row, str, list[Answer], Future]] = deque()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def add(self, model: str, row: Row, answers: list[Answer]) -> None:
        """Score the answers to a question; meanwhile write what is scored by now. Raises Mistake."""
        scores = asyncio.run_coroutine_threadsafe(self.score(row, answers), self.loop)
        self.waiting.append((row, model, answers, scores))
        while self.waiting and (len(self.waiting) > WAITING or self.waiting[0][3].done()):
            self.write_first()

    def finish(self) -> None:
        """Write what is left."""
        while self.waiting:
            self.write_first()

    def close(self) -> None:
        """End the thread, and what is still being scored."""

        async def end() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            self.loop.stop()

        self.loop.call_soon_threadsafe(self.loop.create_task, end())
        self.thread.join()

    def write_first(self) -> None:
        row, model, answers, scores = self.waiting.popleft()
        try:
            parts = scores.result()
        except RewardError as error:
            raise Mistake(f"the reward is at fault, no score was given:\n{error}") from None
        pairs = zip(answers, parts, strict=True)
        lines = [self.line(model, row, i, *pair) for i, pair in enumerate(pairs)]
        self.write(lines, list(row.columns))

    async def score(self, row: Row, answers: list[Answer]) -> list[dict]:
        """The parts of all rewards for each answer."""
        return list(await asyncio.gather(*(self.parts(row, answer) for answer in answers)))

    async def parts(self, row: Row, answer: Answer) -> dict:
        if answer.finish == TOO_LONG:
            return {}  # nothing was asked
        found: dict = {}
        for name, subject in self.rewards:
            given = (row.source, answer.text, row.truth, row.info | {"messages": row.messages})
            result = await call(subject.path, subject.name, given, subject.options, subject.limits)
            result.pop("steps", None)  # places in the text: for training
            alone = len(self.rewards) == 1
            for part, value in result.items():
                taken = part in FIXED or part in row.columns
                found[part if alone and not taken else f"{name}/{part}"] = tidy(value)
        return found

    @staticmethod
    def line(model: str, row: Row, sample: int, answer: Answer, parts: dict) -> dict:
        """An answer as it is stored."""
        asked = (
            row.messages[0]["content"]
            if [m["role"] for m in row.messages] == ["user"]
            else row.messages
        )
        return {
            "model": model, "row": row.number, "sample": sample, "prompt": asked, "answer": answer.text,
            "ground_truth": tidy(row.truth), "finish": answer.finish, "tokens": answer.tokens,
            **{k: v for k, v in row.columns.items() if k not in FIXED}, **parts,
        }  # fmt: skip


def tidy(value: object) -> object:
    """A part as JSON has it, and every reader of it: no NaN, no number beyond a float."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return value if math.isfinite(value) else None
        except OverflowError:
            return None
    if isinstance(value, dict):
        return {key: tidy(one) for key, one in value.items()}
    return [tidy(one) for one in value] if isinstance(value, list) else value
