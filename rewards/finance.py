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
tip; at least min_reward. A promise says that a gain is sure ("保證獲利", "bound to rise") or that there
is no risk ("零風險", "can't lose"), a tip is of insiders or hot stocks. It costs nothing where it is not
made: negated ("不保證"; "no doubt" is none), rejected, asked, conditional or said to be another's.
band: excellent from 0.7, good from 0.4, fair from 0.1, else poor.
Only what follows the thinking is read. Lengths: a Chinese character is 1, a word of another script 2.
Degenerate: an empty answer is 0. Without a question (extra_info["query"], or the last user message
in ["messages"]) and without a reference, relevance is 1.
Not covered: whether any of it is true or makes sense (a recipe in the words of finance), a promise in
words of its own, a good text learnt by heart with the name of the company put in. README.md has a
table, and the command that lets a language model judge as well:
    reward=composite 'lab.reward.parts={finance: 0.5, judge: 0.5}'
"""

from pydantic import Field, model_validator

from rewards import _finance_text as text
from rewards import _options

BANDS = {"excellent": 0.7, "good": 0.4, "fair": 0.1}


class Options(_options.Options):
    accuracy_weight: float = Field(0.4, ge=0)
    risk_assessment_weight: float = Field(0.3, ge=0)
    recommendation_weight: float = Field(0.2, ge=0)
    language_quality_weight: float = Field(0.1, ge=0)
    negative_penalty: float = Field(0.2, ge=0)  # each
    warning_bonus: float = Field(0.05, ge=0)
    diversification_bonus: float = Field(0.05, ge=0)
    max_reward: float = 1.0
    min_reward: float = -1.0
    shortest: float = Field(100, ge=1)
    longest: float = Field(1200, ge=1)

    @model_validator(mode="after")
    def _in_order(self):
        if self.min_reward > self.max_reward:
            raise ValueError(f"min_reward must be at most max_reward ({self.max_reward:g})")
        if self.longest < self.shortest:
            raise ValueError(f"longest must be at least shortest ({self.shortest:g})")
        return self

    def shares(self, kind: str) -> dict[str, float]:
        """The weights or the bonuses, by the first word of their names."""
        return {name.split("_")[0]: share for name, share in self if name.endswith(kind)}


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **options) -> dict:
    """Score one answer. extra_info: {"query": text, "context": text} or {"messages": the prompt}.

    ValueError for a bad option; nothing else, whatever the answer says.
    """
    o = Options.of(options)
    found = text.read(solution_str, extra_info)
    relevance = text.relevance_of(found, text.asked(extra_info), ground_truth)
    trust = text.trust_of(found, relevance, o.shortest)
    parts = text.parts_of(found, relevance, o.longest)
    parts = {name: trust * part for name, part in parts.items()}
    bonuses = o.shares("_bonus")
    extras = {name: float(name in found.said) for name in bonuses}
    score = sum(weight * parts[name] for name, weight in o.shares("_weight").items())
    score += trust * sum(bonus * extras[name] for name, bonus in bonuses.items())
    score = max(o.min_reward, min(o.max_reward, score) - o.negative_penalty * found.promises)
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
    o = Options.of(options)
    reference = round(BANDS["excellent"] * min(1.0, sum(o.shares("_weight").values())), 6)
    return {
        "range": (o.min_reward, o.max_reward),
        "reference": min(reference, o.max_reward),
        "empty": max(o.min_reward, min(o.max_reward, BANDS["fair"])),
    }


def reference_answer(ground_truth, extra_info) -> str | None:
    """The reference, where the row has one."""
    return ground_truth if isinstance(ground_truth, str) and ground_truth.strip() else None
