"""Sample rows of `finance`, made from code and `_finance_demo.yaml`: the answer follows from the figures."""

import random
from collections.abc import Iterator
from pathlib import Path

import yaml

WORDS = Path(__file__).with_suffix(".yaml")
FORMATS = (("query", "context", "reference"), ("instruction", "input", "output"))


def rows(seed: int) -> Iterator[dict[str, str]]:
    """Rows without end, in three languages and both formats; no two have the same prompt."""
    languages = yaml.safe_load(WORDS.read_text(encoding="utf-8"))
    rng, seen = random.Random(seed), set()
    while True:
        row = one(rng, rng.choice(languages))
        if row[:2] not in seen:
            seen.add(row[:2])
            yield dict(zip(rng.choice(FORMATS), row, strict=True))


def one(rng: random.Random, words: dict) -> tuple[str, str, str]:
    """(question, context, answer) in one language."""
    mean = rng.randint(9, 30)
    facts = rng.choice(words["companies"]) | {
        "mean": mean,
        "pe": max(5, mean + rng.choice((-1, 1)) * rng.randint(1, 8)),
        "growth": rng.randint(2, 35),
        "margin": rng.randint(12, 60),
        "debt": rng.randint(15, 70),
        "stop": rng.randrange(6, 16),
        "cap": rng.choice((5, 8, 10, 15, 20)),
    }
    price = "dear" if facts["pe"] > mean else "cheap"
    parts = (words["questions"], words["contexts"], words["views"],
             words["worries"][price], words["advice"][price])  # fmt: skip
    question, context, *answer = (rng.choice(texts).format(**facts) for texts in parts)
    return question, context, (" " if question.isascii() else "").join(answer)
