"""Lengths of prompts and answers: in tokens with a tokenizer, else in characters."""

from collections import Counter
from collections.abc import Mapping, Sequence

from data_prep import _chat
from preflight.mistakes import Mistake
from rewards._steps import join_steps

SHARES = {"p50": 0.5, "p95": 0.95, "max": 1.0}


def load_tokenizer(path: str):
    """The tokenizer in a model folder, with its chat template. Raises Mistake."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except Exception as error:  # whatever a broken or missing folder makes transformers raise
        why = " ".join(str(error).split())[:100]
        raise Mistake(f"no model folder with a tokenizer at {path!r}: {why} ...") from None
    if not tokenizer.chat_template:
        raise Mistake(f"the tokenizer at {path!r} has no chat template")
    return tokenizer


def parts(kind: str, row: Mapping) -> tuple[list, str]:
    """(the messages of the prompt, the text of the answer) of a good row."""
    if kind == "rl":
        return row["prompt"], row["reward_model"]["ground_truth"]
    if kind == "sft":
        return row["messages"][:-1], row["messages"][-1]["content"]
    if kind == "preference":
        both = (row["chosen"][-1]["content"], row["rejected"][-1]["content"])
        return row["prompt"], max(both, key=len)
    return row["prompt"], join_steps(row["steps"])[0]


class Lengths:
    """Counts of lengths, for exact percentiles in memory that does not grow with the rows."""

    def __init__(self, kind: str, tokenizer=None):
        self.kind, self.tokenizer = kind, tokenizer
        self.prompt: Counter[int] = Counter()
        self.answer: Counter[int] = Counter()

    def add(self, rows: Sequence[Mapping]) -> None:
        """Count a batch of good rows."""
        if not rows:
            return
        prompts, answers = zip(*(parts(self.kind, row) for row in rows), strict=True)
        if self.tokenizer is None:
            self.prompt.update(sum(len(m["content"]) for m in p) for p in prompts)
            self.answer.update(map(len, answers))
            return
        texts = [_chat.render(self.tokenizer, p) for p in prompts]
        for counts, some in ((self.prompt, texts), (self.answer, list(answers))):
            counts.update(map(len, _chat.token_ids(self.tokenizer, some)))

    def summary(self) -> dict:
        """{"unit": "tokens" or "characters", "prompt": {p50, p95, max}, "answer": the same}."""
        unit = "characters" if self.tokenizer is None else "tokens"
        return {
            "unit": unit,
            "prompt": _percentiles(self.prompt),
            "answer": _percentiles(self.answer),
        }


def _percentiles(counts: Counter[int]) -> dict[str, int]:
    """p50, p95 and max (nearest rank); empty if nothing was counted."""
    total, found = sum(counts.values()), {}
    for name, share in SHARES.items() if total else ():
        below = 0
        for length in sorted(counts):
            below += counts[length]
            if below >= share * total:
                found[name] = length
                break
    return found
