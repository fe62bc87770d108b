"""`reward=econ`: a household's decision as strict JSON, {"work": 0..1, "consumption": 0..1}; [-1, 1].

Work and consumption as propensities: EconAgent, arXiv:2310.10436. The annual part asks for an economy
that obeys Okun's law (1962) and the Phillips curve (Economica, 1958).

State, as a JSON object in ground_truth, or field by field in extra_info (ground_truth wins):
  employed             true or false, 1 or 0
  wealth, dpi          money: savings, and disposable income (after taxes and transfers) in a year
  buffer_ratio         (wealth + dpi) / dpi within 0 to 10; worked out from these two if it isn't given,
                       with dpi <= 0 as 10 if there is any money, else 0
  unemployment_rate    a share, 0.05 for 5 %
  gdp_growth, wage_inflation, price_inflation   percent a year, 2.0 for 2 %
  r_okun, r_phillips   correlations over the last years: of the change of unemployment with growth, and
                       of unemployment with wage inflation
  u12                  mean unemployment in the last year, a share
Macro values may be absent (null or NaN too): those that are there share the weights. With neither of the
correlations there is no annual part, and the weights alone_* hold; without any macro value no guard.

score: annual_weight * annual + guard_weight * guard + micro_weight * micro + reg_weight * reg, clipped.
reg is -extreme_penalty for a consumption below 0.05 or above 0.95. No decision: -1.
outcome: ok, no_json (also: a name given twice, NaN), missing, not_a_number, out_of_range, and in mode
strict prose: anything but white space before or after the object. Text up to </think> doesn't count.
bad_state: a row without employed or buffer, or with an impossible value; NaN, masked.
Parts: micro, guard, annual, reg, valid_json (0 for no_json and prose); work and consumption are NaN,
and so left out of their mean and deviation, where there is no decision.
guard and annual depend on the row alone, so they are the same for all answers to a prompt, and group
baselines (GRPO, RLOO) cancel them. What teaches is micro, reg and the -1: watch these.
Degenerate: the constant {"work": 0.7, "consumption": 0.6} has a mean micro of 0.58 on the simulated
households (the best: 1). Just outside of work's band counts 0, more than its edge, -1 (as published).
Not covered: a decision behind another {...}, or inside of one.
"""

import json
import math

from rewards._econ_decision import decision_of
from rewards._econ_parts import annual_of, best, guard_of, micro_of
from rewards._econ_state import state_of
from rewards._options import check_choice, check_number, options_of, refuse_unknown
from rewards._rows import RowError, ground_truth_of, info_of

NAN_PARTS = ("score", "work", "consumption", "micro", "guard", "annual", "reg", "valid_json")


def compute_score(
    data_source,
    solution_str,
    ground_truth,
    extra_info=None,
    *,
    mode="strict",  # or lenient: the first {...} counts, whatever is around it
    annual_weight=0.45,
    guard_weight=0.30,
    micro_weight=0.20,
    alone_guard_weight=0.65,
    alone_micro_weight=0.30,
    reg_weight=0.05,
    work_share=0.3,  # of micro, for the employed; the rest is of consumption
    extreme_penalty=0.5,
    okun_target=-0.894,
    phillips_target=-0.676,
    **unknown,
) -> dict:
    """Score one answer. ValueError for a bad option; nothing else, whatever the answer says."""
    refuse_unknown(unknown, compute_score)
    check_choice("mode", mode, ("strict", "lenient"))
    weights = {"annual": annual_weight, "guard": guard_weight, "micro": micro_weight}
    alone = {"annual": 0.0, "guard": alone_guard_weight, "micro": alone_micro_weight}
    for weight in (*weights.values(), *alone.values(), reg_weight, work_share, extreme_penalty):
        check_number("a weight, share or penalty", weight, 0, 1)
    for target in (okun_target, phillips_target):
        check_number("a target", target, -1, 1)

    state, fault = state_of(ground_truth, extra_info)
    report = {**dict.fromkeys(NAN_PARTS, math.nan), "masked": float(bool(fault))}
    if fault:
        return report | {"outcome": "bad_state"}
    annual = annual_of(state, okun_target, phillips_target)
    report |= {"annual": annual, "guard": guard_of(state)}
    outcome, work, consumption = decision_of(solution_str, mode)
    report |= {"valid_json": float(outcome not in ("no_json", "prose")), "outcome": outcome}
    if outcome != "ok":
        return report | {"score": -1.0}
    report |= {"work": work, "consumption": consumption}
    report["micro"] = micro_of(state, work, consumption, work_share)
    report["reg"] = -extreme_penalty if consumption < 0.05 or consumption > 0.95 else 0.0
    weights = {**(alone if math.isnan(annual) else weights), "reg": reg_weight}
    score = sum(weights[part] * report[part] for part in weights if not math.isnan(report[part]))
    return report | {"score": max(-1.0, min(1.0, score))}


def row_faults(rows, **options) -> list[dict]:
    """Rows that can't be graded: {"index", "outcome", "message"} in row order."""
    refuse_unknown(options, compute_score)
    faults = []
    for index, row in enumerate(rows):
        try:
            reference = ground_truth_of(row)
        except RowError:  # the state may be in extra_info
            reference = None
        if fault := state_of(reference, info_of(row))[1]:
            faults.append({"index": index, "outcome": "bad_state", "message": fault})
    return faults


def bars(**options) -> dict:
    """reference: what the best decision earns in the worst economy."""
    compute_score("", "", None, **options)  # refuses bad ones
    o = options_of(compute_score) | options
    worst = o["micro_weight"] - o["guard_weight"] - o["annual_weight"]
    worst = max(-1.0, min(worst, o["alone_micro_weight"] - o["alone_guard_weight"]))
    return {"range": (-1.0, 1.0), "reference": worst, "empty": -1.0}


def reference_answer(ground_truth, extra_info=None) -> str | None:
    """The decision with the highest score; None for a row that can't be graded."""
    state, fault = state_of(ground_truth, extra_info)
    return None if fault else json.dumps({"work": best(state)[0], "consumption": best(state)[1]})
