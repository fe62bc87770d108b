"""A dataset's rows for a conversation: the prompt, the reference answer, and the rewards of an answer."""

import asyncio
import math
import random
from itertools import islice
from pathlib import Path

from preflight.mistakes import Mistake
from rewards._limits.calls import RewardError
from tools._evaluate.rows import Columns, Row, rows_of
from tools._evaluate.settings import Reward

LEFT_OUT = ("steps", "score")  # places in the text, for training; what is shown first


class Rows:
    """The validation rows of a dataset, and the rewards that score answers to them."""

    def __init__(self, files: list[Path], rewards: list[Reward]):
        self.files, self.rewards = files, rewards
        self.count: int | None = None
        self.random = random.Random()
        self.loop = asyncio.new_event_loop()

    def get(self, said: str) -> Row:
        """Row N, counted from 0, or a random one. Raises Mistake."""
        if said == "random":
            said = str(self.random.randrange(self.counted()))
        if not said.isdigit():
            raise Mistake(f"{said!r} is no row: a number from 0 to {self.counted() - 1}, or random")
        found = next(islice(rows_of(self.files, Columns()), int(said), None), None)
        if found is None:
            raise Mistake(f"there is no row {said}: {self.name} has rows 0 to {self.counted() - 1}")
        return found

    @property
    def name(self) -> str:
        """The files, as a person reads them."""
        return ", ".join(map(str, self.files))

    def counted(self) -> int:
        """How many there are."""
        if self.count is None:
            self.count = sum(1 for _ in rows_of(self.files, Columns()))
        return self.count

    def reference(self, row: Row) -> str | None:
        """The reference answer of a row; None if it has none."""
        for reward in self.rewards if row.truth is not None else ():
            found = reward.subject.reference(row.reward_row)
            if found is not None:
                return found
        return None if row.truth is None else str(row.truth)

    def score(self, row: Row, answer: str) -> dict[str, dict]:
        """What each reward says. Raises Mistake if one fails, or if the row lacks what it needs."""
        if self.rewards and row.truth is None:
            raise Mistake(
                f"row {row.number} (from 0) has no ground truth: there is nothing to score an answer with"
            )
        return {one.name: self.score_by(one, row, answer) for one in self.rewards}

    def score_by(self, reward: Reward, row: Row, answer: str) -> dict:
        task = self.loop.create_task(reward.subject.score(row.reward_row, answer))
        try:
            return self.loop.run_until_complete(task)
        except RewardError as error:
            raise Mistake(f"the reward {reward.name} failed: {last_line(error)}") from None
        finally:  # Ctrl-C: an endless reward is not waited for
            if not task.done():
                task.cancel()
                self.loop.run_until_complete(asyncio.wait([task]))


def last_line(error: Exception) -> str:
    """What went wrong, of an error with a traceback in its text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def figures(parts: dict) -> str:
    """What a reward says beside its score."""
    shown = [(k, v) for k, v in parts.items() if k not in LEFT_OUT and (k, v) != ("stopped", "no")]
    return "  ".join(f"{name} {number(value)}" for name, value in shown)


def number(value: object) -> str:
    """A part of a reward as text."""
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else "-"
    return str(value)
