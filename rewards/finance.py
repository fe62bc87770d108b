"""`reward=finance`: an investment analysis in Chinese (either script) or English.

After a published reward for financial GRPO (accuracy 40 %, risk 30 %, recommendation 20 %, language
10 %, negative words, bonuses for a warning and for diversification) that counts keywords. Here a
word counts where a sentence uses it (see `_finance_text`), and more of the same pays no more.

accuracy        six tenths financial ideas (5 are enough), four tenths relevance; times the fit of
                the length: 1 up to `longest`, 0 from twice that
risk            six tenths ideas of risk (3), four tenths an explicit warning
recommendation  four tenths what to do, three why, three how (3 ideas: a stop-loss, in tranches)
language        whole sentences, financial ideas (3), connectives (2): a third each
Each absolute ("certainly") halves risk and recommendation. All four are in [0, 1] and, as the
bonuses, times `trust`: of relevance (off topic leaves 0.3), length up to `shortest`, repetition,
and text that is no prose or copies the prompt. They are reported so.

score: the weighted parts + bonuses, at most max_reward, - `negative_penalty` for every promise or
tip ("保證獲利", "guaranteed", "內線") that is not taken back ("不保證"); at least min_reward.
band: excellent from 0.7, good from 0.4, fair from 0.1, else poor.
Only what follows a </think> is read. Lengths: a Chinese character is 1, a word of another script 2.
Degenerate: an empty answer is 0. Without a question (extra_info["query"], or the last user message
in ["messages"]) and without a reference, relevance is 1.
Not covered: whether any of it is true; double negation beyond idioms; a good text learnt by heart
with the question's company put in. For those, see reward=judge.
"""

from rewards import _finance_text as text
from rewards._options import check_number, options_of, refuse_unknown

BANDS = {"excellent": 0.7, "good": 0.4, "fair": 0.1}


def compute_score(
    data_source,
    solution_str,
    ground_truth,
    extra_info=None,
    *,
    accuracy_weight=0.4,
    risk_assessment_weight=0.3,
    recommendation_weight=0.2,
    language_quality_weight=0.1,
    negative_penalty=0.2,  # each
    warning_bonus=0.05,
    diversification_bonus=0.05,
    max_reward=1.0,
    min_reward=-1.0,
    shortest=100,
    longest=1200,
    **unknown,
) -> dict:
    """Score one answer. extra_info: {"query": text, "context": text} or {"messages": the prompt}.

    ValueError for a bad option; nothing else, whatever the answer says.
    """
    weights = {
        "accuracy_weight": accuracy_weight,
        "risk_assessment_weight": risk_assessment_weight,
        "recommendation_weight": recommendation_weight,
        "language_quality_weight": language_quality_weight,
    }
    bonuses = {"warning_bonus": warning_bonus, "diversification_bonus": diversification_bonus}
    refuse_unknown(unknown, compute_score)
    for name, number in {**weights, **bonuses, "negative_penalty": negative_penalty}.items():
        check_number(name, number, 0)
    check_number("max_reward", max_reward)
    check_number("min_reward", min_reward, most=max_reward)
    check_number("shortest", shortest, 1)
    check_number("longest", longest, shortest)

    found = text.read(solution_str, extra_info)
    relevance = text.relevance_of(found, text.asked(extra_info), ground_truth)
    trust = text.trust_of(found, relevance, shortest)
    parts = text.parts_of(found, relevance, longest)
    parts = {name: trust * part for name, part in parts.items()}
    extras = {name: float(name in found.said) for name in ("warning", "diversification")}
    score = sum(weight * parts[name.split("_")[0]] for name, weight in weights.items())
    score += trust * sum(bonus * extras[name.split("_")[0]] for name, bonus in bonuses.items())
    score = max(min_reward, min(max_reward, score) - negative_penalty * found.promises)
    return {
        "score": float(score),
        "band": next((band for band, least in BANDS.items() if score >= least), "poor"),
        **parts,
        **extras,
        "promises": float(found.promises),
        "relevance": relevance,
        "repetition": found.repeated / max(1, found.length),
        "trust": trust,
    }


def bars(**options) -> dict:
    """The range, what a reference scores at least, and what an empty or random answer at most."""
    given = options_of(compute_score) | options
    low, high = given["min_reward"], given["max_reward"]
    weight = sum(given[name] for name in given if name.endswith("_weight"))
    reference = round(BANDS["excellent"] * min(1.0, weight), 6)
    return {
        "range": (low, high),
        "reference": min(reference, high),
        "empty": max(low, min(high, BANDS["fair"])),
    }


def reference_answer(ground_truth, extra_info) -> str | None:
    """The reference, where the row has one."""
    return ground_truth if isinstance(ground_truth, str) and ground_truth.strip() else None
