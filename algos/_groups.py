"""The groups of a batch: answers to the same prompt, which stand anywhere in it."""

from collections.abc import Iterator

import numpy as np
import torch

EPSILON = 1e-6
BLOCK = 256  # rows at a time where every token counts: they stay in the processor's cache


def groups(index, device=None, at_most: int | None = None, least=2) -> Iterator[torch.Tensor]:
    """Row numbers (G, N) of G groups of N answers: a table for each N that there is.

    So a reduction over groups is one over a dimension. There are far fewer sizes than groups: all
    groups have one size, but for answers that could not be graded.

    Args:
        index: (B,) group ids, any hashable values.
        device: of the result.
        at_most: rows in one table (but never less than a group): a larger one comes in parts.
        least: N from which groups count; one answer alone has nothing to be compared with.
    """
    ids = index.tolist() if hasattr(index, "tolist") else list(index)
    number = {group: i for i, group in enumerate(dict.fromkeys(ids))}
    group_B = np.fromiter(map(number.__getitem__, ids), np.int64, len(ids))
    size_G = np.bincount(group_B)
    order_B = np.argsort(size_G[group_B] * len(number) + group_B, kind="stable")
    rows_B = torch.from_numpy(order_B).to(device)
    sizes, counts = np.unique(size_G, return_counts=True)
    for size, rows in zip(sizes.tolist(), rows_B.split((sizes * counts).tolist()), strict=True):
        if size >= least:
            table = rows.view(-1, size)
            yield from table.split(max(1, at_most // size) if at_most else len(table))


def z_score(score_GN: torch.Tensor) -> torch.Tensor:
    """Distance from the group's mean in standard deviations (ddof = 1).

    Scores want float64: in float32 the mean of equal scores is not always the score.
    """
    centred_GN = score_GN - score_GN.mean(1, keepdim=True)
    return centred_GN / (score_GN.std(1, keepdim=True) + EPSILON)


def float_type(rewards: torch.Tensor) -> torch.dtype:
    """What advantages are computed in and returned as: float32, or float64 if the rewards are."""
    return torch.promote_types(rewards.dtype, torch.float32)
