"""The reward on a few rows: reference answers earn what it promises, empty ones no more than that."""

import asyncio
import math

from omegaconf import DictConfig

from preflight.checks import Note, applies_to
from preflight.facts import data_files, is_rl
from preflight.mistakes import Mistake
from preflight.reward_function import file_fault, options_fault
from preflight.sample import sample
from preflight.subject import Subject
from rewards._limits.calls import RewardError

ROWS = 8  # of a file
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


def alike(tried: list[tuple], results: list[dict]) -> str | None:
    """Rows in which a reference answer scores no more than an empty one: nothing there says which is better."""
    earned = {(*place, is_reference): result["score"]
              for (*place, _, _, is_reference), result in zip(tried, results, strict=True)}  # fmt: skip
    rows: dict[str, list[int]] = {}
    of_all = 0
    for file, number, _, answer, is_reference in tried:
        if is_reference and answer.strip():
            of_all += 1
            if earned[file, number, True] <= earned[file, number, False]:
                rows.setdefault(file, []).append(number)
    if not rows:
        return None
    where = "; ".join(
        f"{file}, rows {', '.join(map(str, numbers))}" for file, numbers in rows.items()
    )
    count = sum(map(len, rows.values()))
    file, (number, *_) = next(iter(rows.items()))
    both = f"{earned[file, number, True]:.4g} and {earned[file, number, False]:.4g}"
    return (
        f"in {count} of {of_all} rows the reference answer scores no more than an empty one ({both} in row {number}):"
        f" {where}. If a good answer is not the ground truth as it stands (a box, a fence around it), say what it is:"
        " reference_answer(ground_truth, extra_info) in the reward's file."
    )


@applies_to(is_rl)
def check_reward(config: DictConfig) -> str | None:
    """Called as a run calls it, with its limits; not where an answer costs a request."""
    if file_fault(config) or options_fault(config):
        return None  # other checks say so
    if not config.reward.custom_reward_function.path or asks_a_server(config):
        return Note("not tried: the reward is verl's own, or asks a server.")
    try:
        subject = Subject(config)
    except Mistake as mistake:  # it can't be imported; the other checks have their say all the same
        return str(mistake)
    subject.limits = subject.limits._replace(
        loop_timeout_s=subject.limits.loop_timeout_s or subject.limits.timeout_s
    )
    rows = [row for file in data_files(config) for row in sample(file, ROWS)]
    tried = []  # file, number, row, answer, whether it is the reference answer
    for file, number, row in rows:
        try:
            reference = subject.reference(row)
        except Exception as error:
            kind = "" if isinstance(error, Mistake) else f"{type(error).__name__}: "
            return f"{file}, row {number}: no reference answer: {kind}{error}"
        tried += [] if reference is None else [(file, number, row, reference, True)]
        tried.append((file, number, row, "", False))
    results = asyncio.run(score_all(subject, [(row, answer) for _, _, row, answer, _ in tried]))
    for (file, number, _, _, is_reference), result in zip(tried, results, strict=True):
        bar = subject.bars["reference" if is_reference else "empty"]
        if wrong := fault(result, bar, is_reference):
            return f"{file}, row {number}: {' '.join(wrong.split())}."
    if wrong := alike(tried, results):
        return wrong
    references = [result["score"] for row, result in zip(tried, results, strict=True) if row[-1]]
    empty = [result["score"] for row, result in zip(tried, results, strict=True) if not row[-1]]
    if not rows:
        return None
    earned = (
        f"{len(references)} reference answers score {min(references):.4g} to {max(references):.4g}"
        if references
        else "no reference answers"
    )
    return Note(f"{earned}, empty ones up to {max(empty):.4g}.")
