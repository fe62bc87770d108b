"""Corrections for the difference between sampling and training (algorithm.rollout_correction).

verl reads these after the first rollouts (verl/trainer/ppo/rollout_corr_helper.py).
"""

import re

from omegaconf import DictConfig

from preflight.checks import applies_to
from preflight.engines import A
from preflight.facts import is_rl
from preflight.mistakes import unknown

KEY = "algorithm.rollout_correction"
WEIGHTS = ("token", "sequence")
REJECTIONS = ("token_k1", "token_k2", "token_k3", "seq_sum_k1", "seq_sum_k2", "seq_sum_k3", "seq_mean_k1",
              "seq_mean_k2", "seq_mean_k3", "seq_max_k2", "seq_max_k3")  # fmt: skip
BOUND = r"(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"


def bounds(given) -> list[float] | None:
    """Numbers of a threshold: `2.0`, or `0.5_2.0` from below and above; None if it is none."""
    if isinstance(given, bool) or not re.fullmatch(rf"{BOUND}(_{BOUND})?", str(given).strip()):
        return None
    found = [float(number) for number in str(given).split("_")]
    return found if found[0] > 0 and found == sorted(found) else None


@applies_to(is_rl)
def check_weights(config: DictConfig) -> str | None:
    """Importance weights."""
    correction = config.algorithm.rollout_correction
    if not correction or correction.rollout_is is None:
        return None
    if correction.rollout_is not in WEIGHTS:
        return unknown(f"{KEY}.rollout_is", str(correction.rollout_is), WEIGHTS)
    if bounds(correction.rollout_is_threshold) is None:
        return (f"{KEY}.rollout_is_threshold={correction.rollout_is_threshold} must be a number above 0, or two:"
                " 0.5_2.0.")  # fmt: skip
    return None


@applies_to(is_rl)
def check_rejections(config: DictConfig) -> str | None:
    """Samples that are rejected, each kind with its threshold."""
    correction = config.algorithm.rollout_correction
    if not correction or correction.rollout_rs is None:
        return None
    kinds = [kind.strip() for kind in str(correction.rollout_rs).split(",")]
    for kind in kinds:
        if kind not in REJECTIONS:
            return unknown(f"{KEY}.rollout_rs", kind, REJECTIONS)
    given = [part.strip() for part in str(correction.rollout_rs_threshold).split(",")]
    numbers = [bounds(part) for part in given]
    if None in numbers or len(given) not in (1, len(kinds)):
        return (f"{KEY}.rollout_rs_threshold={correction.rollout_rs_threshold} must be a number above 0, or one for"
                f" each of {', '.join(kinds)}.")  # fmt: skip
    for kind, number in zip(kinds, numbers * len(kinds), strict=False):
        if len(number) > 1 and not kind.endswith("k1"):
            return f"{KEY}.rollout_rs_threshold: {kind} takes one number, the upper bound, not two."
        if kind.endswith("k1") and len(number) == 1 and number[0] < 1:
            return (f"{KEY}.rollout_rs_threshold={number[0]}: a single bound of {kind} must be 1 or more; two are"
                    " written 0.5_2.0.")  # fmt: skip
    return None


@applies_to(is_rl)
def check_corrections_act(config: DictConfig) -> str | None:
    """All of it compares with vLLM's log-probabilities, and in bypass mode these stand for the actor's own."""
    correction = config.algorithm.rollout_correction
    if not correction:
        return None
    wanted = [name for name in ("rollout_is", "rollout_rs") if correction[name] is not None]
    loss = config[A].actor.policy_loss.loss_mode
    if (wanted or correction.bypass_mode) and not config[A].rollout.calculate_log_probs:
        name = wanted[0] if wanted else "bypass_mode"
        return f"{KEY}.{name} needs {A}.rollout.calculate_log_probs=true."
    if wanted and correction.bypass_mode:
        return (f"{KEY}.{wanted[0]} does nothing with bypass_mode=true: {A}.actor.policy_loss.loss_mode=bypass_mode has"
                f" its own, +{A}.actor.policy_loss.rollout_correction.{wanted[0]}=...")  # fmt: skip
    if loss == "bypass_mode" and not correction.bypass_mode:
        return f"loss_mode=bypass_mode takes vLLM's log-probabilities as the old ones: set {KEY}.bypass_mode=true."
    return None
