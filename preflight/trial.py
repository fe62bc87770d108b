"""A reward tried on rows of the data: reference answers earn what it promises, empty ones no more than that."""

import asyncio
import math
from typing import Any, NamedTuple

from omegaconf import DictConfig

from preflight.mistakes import Mistake
from preflight.sample import sample
from preflight.subject import Subject
from rewards._limits.calls import RewardError

SHOWN = 300  # characters of an error
ASK_A_SERVER = {"judge", "model", "prm"}


def asks_a_server(config: DictConfig) -> bool:
    """Whether each answer costs a request."""
    function = config.reward.custom_reward_function
    name = function.path.rpartition("rewards.")[2]
    parts = (function.get("reward_kwargs") or {}).get("parts") or {}
    return config.reward.reward_model.enable or not ASK_A_SERVER.isdisjoint([name, *parts])


async def score_all(subject: Subject, answers: list[tuple[dict, str]]) -> list:
    """What the reward says of each, or the exception that it raised."""
    calls = [subject.score(row, answer) for row, answer in answers]
    return await asyncio.gather(*calls, return_exceptions=True)


def fault(result, bar: float | None, reference: bool) -> str | None:
    """What is wrong with what a reward says of a reference answer, or of an empty one."""
    what = "the reference answer" if reference else "an empty answer"
    if isinstance(result, RewardError):
        where = f" ({result.where})" if result.where else ""
        return f"the reward raised on {what}: {' '.join(result.cause.split())[:SHOWN]}{where}"
    if isinstance(result, Exception):
        return f"{what} can't be scored: {type(result).__name__}: {result}"
    if result["stopped"] != "no":
        return f"the reward was stopped on {what} ({result['stopped']}, see lab.reward_limits)"
    score = result["score"]
    if math.isnan(score):
        why = result.get("outcome") or result.get("error")
        return f"{what} can't be graded{f' ({why})' if why else ''}"
    if bar is not None and (score < bar - 1e-9 if reference else score > bar + 1e-9):
        return f"{what} scores {score:.4g}, and the reward promises {'at least' if reference else 'at most'} {bar:.4g}"
    return None


def alike(found: list["Tried"]) -> str | None:
    """Rows in which a reference answer scores no more than an empty one: nothing there says which is better."""
    earned = {(one.file, one.number, one.is_reference): one.result["score"] for one in found}
    rows: dict[str, list[int]] = {}
    of_all = 0
    for one in found:
        if one.is_reference and one.answer.strip():
            of_all += 1
            if earned[one.file, one.number, True] <= earned[one.file, one.number, False]:
                rows.setdefault(one.file, []).append(one.number)
    if not rows:
        return None
    where = "; ".join(
        f"{file}, rows {', '.join(map(str, numbers))}" for file, numbers in rows.items()
    )
    count = sum(map(len, rows.values()))
    file, (number, *_) = next(iter(rows.items()))
    both = f"{earned[file, number, True]:.4g} and {earned[file, number, False]:.4g}"
    return (
        f"in {count} of {of_all} rows the reference answer scores no more than an empty one ({both} in row"
        f" {number}, counted from 0): {where}. If a good answer is not the ground truth as it stands (a box, a fence"
        " around it), say what it is: reference_answer(ground_truth, extra_info) in the reward's file."
    )


class Tried(NamedTuple):
    """An answer that a reward was asked about: of which row, whether it is the reference answer, what came."""

    file: str
    number: int
    row: dict
    answer: str
    is_reference: bool
    result: Any = None  # a dict, or the exception that was raised


def tried(subject: Subject, files: list[str], size: int) -> list[Tried]:
    """The reference answers of some rows of each file, and empty ones, with what the reward says of them.

    Raises Mistake where a reference answer can't be made.
    """
    asked = []
    for file, number, row in (drawn for each in files for drawn in sample(each, size)):
        try:
            reference = subject.reference(row)
        except Exception as error:
            kind = "" if isinstance(error, Mistake) else f"{type(error).__name__}: "
            raise Mistake(
                f"{file}, row {number} (from 0): no reference answer: {kind}{error}"
            ) from None
        asked += [] if reference is None else [Tried(file, number, row, reference, True)]
        asked.append(Tried(file, number, row, "", False))
    results = asyncio.run(score_all(subject, [(one.row, one.answer) for one in asked]))
    return [one._replace(result=result) for one, result in zip(asked, results, strict=True)]
