"""Weighted GRPO: group advantages that count more for the better answers of a group.

Source: Zhang et al., Reward-SQL, arXiv:2505.04671 (weighted outcome advantage), on GRPO,
arXiv:2402.03300. With the score s of an answer (the sum of its token rewards), inside its group:

    A = (s − mean) / (std + 1e-6) · [w + (1 − w) · (s − min) / (max − min)]

on every token of the mask. std has ddof = 1; w is `algorithm.grpo_weighted.weight`.
Range: |A| < sqrt(group size). Rewards that are shifted or scaled by a positive number give the same
advantages, as long as the spread is large against 1e-6.
Degenerate cases: all scores of a group equal: the bracket is 1 and A is 0; a group of one: A is 0.
Not covered: several trajectories a sample; where in an answer a reward stands.
"""

import torch

from algos._groups import BLOCK, float_type, groups, z_score


def compute_advantage(
    token_level_rewards, response_mask, index, config=None, *, weight=0.5, **_
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages of a batch of B answers of at most T tokens.

    Args:
        token_level_rewards: (B, T) rewards.
        response_mask: (B, T), 1 on the tokens that the model wrote, else 0.
        index: (B,) group of each answer, any hashable values.
        config: verl's `algorithm` node, not used.
        weight: of the worst answer of a group, against 1 of the best.

    Returns:
        advantages and returns, the same (B, T) tensor, 0 where the mask is 0.
    """
    parts = token_level_rewards.split(BLOCK)
    score_B = torch.cat([part.sum(-1, dtype=torch.float64) for part in parts])
    advantage_B = torch.zeros_like(score_B)
    for rows_GN in groups(index, score_B.device):
        score_GN = score_B[rows_GN]
        low_G1, high_G1 = score_GN.aminmax(dim=1, keepdim=True)
        place_GN = torch.where(low_G1 < high_G1, (score_GN - low_G1) / (high_G1 - low_G1), 1.0)
        advantage_B[rows_GN] = z_score(score_GN) * (weight + (1 - weight) * place_GN)
    # in place on a copy of the mask: a second (B, T) tensor would take as long as all the rest
    advantages = response_mask.to(float_type(token_level_rewards), copy=True)
    advantages *= advantage_B.unsqueeze(-1).to(advantages.dtype)
    return advantages, advantages
