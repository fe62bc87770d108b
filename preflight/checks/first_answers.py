"""The reward on the first answers: it is imported and called once as a run calls it, if no answer costs a request."""

from omegaconf import DictConfig

from preflight.checks import applies_to
from preflight.facts import as_list, is_rl
from preflight.mistakes import Mistake
from preflight.reward_function import file_fault, options_fault
from preflight.subject import Subject
from preflight.trial import asks_a_server, fault, tried
from rewards._limits.calls import RewardError

TIMEOUT_S = 3  # what takes longer is left to the run
ALWAYS = ("reward", "score")  # that verl filters groups by whatever the reward returns


@applies_to(is_rl)
def check_first_answers(config: DictConfig) -> str | None:
    """A reward that can't be imported, that raises, or that lacks the part by which groups are filtered."""
    if file_fault(config) or options_fault(config):
        return None  # other checks say so
    if not config.reward.custom_reward_function.path or asks_a_server(config):
        return None
    try:
        subject = Subject(config)
        subject.limits = subject.limits._replace(timeout_s=TIMEOUT_S, loop_timeout_s=TIMEOUT_S)
        found = tried(subject, as_list(config.data.train_files)[:1], 1)
    except Mistake as mistake:
        return str(mistake)
    for one in found:
        if isinstance(one.result, RewardError):
            wrong = " ".join(fault(one.result, None, one.is_reference).split())
            return f"{one.file}, row {one.number} (from 0): {wrong}."
    scored = [
        one.result
        for one in found
        if isinstance(one.result, dict) and one.result.get("stopped") == "no"
    ]
    metric = config.algorithm.filter_groups.metric
    if config.algorithm.filter_groups.enable and scored and metric not in (*ALWAYS, *scored[0]):
        parts = ", ".join(sorted(part for part in scored[0] if part not in ("stopped", "error")))
        return f"algorithm.filter_groups.metric={metric}: the reward returns {parts}, and no {metric}. Set reward."
    return None
