"""The reward on a few rows: reference answers earn what it promises, empty ones no more than that."""

from omegaconf import DictConfig

from preflight.checks import Note, applies_to
from preflight.facts import data_files, is_rl
from preflight.mistakes import Mistake
from preflight.reward_function import file_fault, options_fault
from preflight.subject import Subject
from preflight.trial import alike, asks_a_server, fault, tried

ROWS = 8  # of a file


@applies_to(is_rl)
def check_reward(config: DictConfig) -> str | None:
    """Called as a run calls it, with its limits; not where an answer costs a request."""
    if file_fault(config) or options_fault(config):
        return None  # other checks say so
    if not config.reward.custom_reward_function.path or asks_a_server(config):
        return Note("not tried: the reward is verl's own, or asks a server.")
    try:
        subject = Subject(config)
        limits = subject.limits
        subject.limits = limits._replace(loop_timeout_s=limits.loop_timeout_s or limits.timeout_s)
        found = tried(subject, data_files(config), ROWS)
    except Mistake as mistake:  # it can't be imported; the other checks have their say all the same
        return str(mistake)
    for one in found:
        bar = subject.bars["reference" if one.is_reference else "empty"]
        if wrong := fault(one.result, bar, one.is_reference):
            return f"{one.file}, row {one.number} (from 0): {' '.join(wrong.split())}."
    if wrong := alike(found):
        return wrong
    references = [one.result["score"] for one in found if one.is_reference]
    empty = [one.result["score"] for one in found if not one.is_reference]
    if not found:
        return None
    earned = (
        f"{len(references)} reference answers score {min(references):.4g} to {max(references):.4g}"
        if references
        else "no reference answers"
    )
    return Note(f"{earned}, empty ones up to {max(empty):.4g}.")
