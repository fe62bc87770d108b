"""The advantage functions of algos/ as plain loops, an answer and a token at a time, and batches for them."""

import random
from statistics import mean, stdev

import torch

EPSILON = 1e-6


def z_scores(values: list[float]) -> list[float]:
    """Distances from the mean in standard deviations; one value has none."""
    spread = stdev(values) if len(values) > 1 else 0.0
    return [(value - mean(values)) / (spread + EPSILON) for value in values]


def members(index) -> list[list[int]]:
    """The rows of each group."""
    rows = list(range(len(index)))
    return [[i for i in rows if index[i] == group] for group in set(index)]


def grpo_weighted(rewards, mask, index, weight=0.5) -> torch.Tensor:
    result = torch.zeros(rewards.shape, dtype=torch.float64)
    for group in members(index):
        scores = [sum(rewards[i].tolist()) for i in group]
        low, high = min(scores), max(scores)
        for i, score, z in zip(group, scores, z_scores(scores), strict=True):
            place = (score - low) / (high - low) if high > low else 1.0
            result[i] = z * (weight + (1 - weight) * place) * mask[i]
    return result


def grpo_process(rewards, mask, index, penalize_zero=False) -> torch.Tensor:
    result = torch.zeros(rewards.shape, dtype=torch.float64)
    for group in members(index):
        distinct = [set(rewards[i].tolist()) - {0.0} for i in group]
        levels = [mean(values) if values else 0.0 for values in distinct]
        for i, a in zip(group, z_scores(levels), strict=True):
            for t, r in enumerate(rewards[i].tolist()):
                if r != 0 and a > 0:
                    result[i, t] = (r - 1) * a if r > 1 else r * a
                elif r != 0:
                    result[i, t] = (1 - r) * a
                elif penalize_zero and not rewards[i].any():
                    result[i, t] = a
            result[i] *= mask[i]
    return result


def grpo_token(rewards, mask, index) -> torch.Tensor:
    result = torch.zeros(rewards.shape, dtype=torch.float64)
    for group in members(index):
        for t in range(rewards.shape[1]):
            there = [i for i in group if mask[i, t]]
            values = z_scores([rewards[i, t].item() for i in there]) if there else []
            for i, z in zip(there, values, strict=True):
                result[i, t] = z
    return result


def batch(seed: int, sizes=(1, 2, 3, 5, 8, 8, 8), tokens=24):
    """Rewards in steps of a tenth, a ragged mask with holes and an empty row, groups of `sizes` interleaved."""
    chance = random.Random(seed)
    index = [f"prompt-{group}" for group, size in enumerate(sizes) for _ in range(size)]
    chance.shuffle(index)
    rows = len(index)
    generator = torch.Generator().manual_seed(seed)
    length = torch.randint(1, tokens + 1, (rows, 1), generator=generator)
    mask = (torch.arange(tokens) < length) & (torch.rand(rows, tokens, generator=generator) < 0.9)
    mask[chance.randrange(rows)] = False
    values = torch.randint(-10, 20, (rows, tokens), generator=generator) / 10
    given = torch.rand(rows, tokens, generator=generator) < chance.choice([0.05, 0.3, 1.0])
    return values * given * mask, mask.long(), index
