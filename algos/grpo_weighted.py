"""Weighted GRPO: group advantages that count more for the better answers of a group.

Source: Zhang et al., Reward-SQL, arXiv:2505.04671 (weighted outcome advantage), on GRPO,
arXiv:2402.03300. With the score s of an answer (the sum of its token rewards), inside its group:

    A = (s − mean) / (std + 1e-6) · [w + (1 − w) · (s − min) / (max − min)]

on every token of the mask. std has ddof = 1, w = 0.5 (`algorithm.grpo_weighted.weight`).
Degenerate cases: all scores of a group equal: the bracket is 1 and A is 0; a group of one: A is 0.
Range: |A| < sqrt(group size). Not covered: several trajectories a sample, step rewards.
"""

import numpy as np
import torch

EPSILON = 1e-6


def compute_advantage(token_level_rewards, response_mask, index, config=None, **_):
    """Advantages of a batch of B answers of at most T tokens.

    Args:
        token_level_rewards: (B, T) rewards.
        response_mask: (B, T), 1 on the tokens that the model wrote.
        index: (B,) group of each answer, any hashable values.
        config: verl's `algorithm` node.

    Returns:
        advantages and returns, the same (B, T) tensor, 0 where the mask is 0.
    """
    weight = ((config or {}).get("grpo_weighted") or {}).get("weight", 0.5)
    score_B = token_level_rewards.sum(-1).double()  # equal scores must have no spread at all
    groups, member = np.unique(np.asarray(index, dtype=str), return_inverse=True)
    group_B = torch.as_tensor(member, device=score_B.device)

    def per_group(values_B, how):
        zeros_G = values_B.new_zeros(len(groups))
        return zeros_G.scatter_reduce(0, group_B, values_B, how, include_self=False)

    size_G = per_group(torch.ones_like(score_B), "sum")
    centred_B = score_B - per_group(score_B, "mean")[group_B]
    std_G = (per_group(centred_B**2, "sum") / (size_G - 1).clamp(min=1)).sqrt()
    low_G, high_G = per_group(score_B, "amin"), per_group(score_B, "amax")
    span_B = (high_G - low_G)[group_B]
    place_B = torch.where(span_B > 0, (score_B - low_G[group_B]) / span_B.clamp(min=EPSILON), 1.0)
    advantage_B = centred_B / (std_G[group_B] + EPSILON) * (weight + (1 - weight) * place_B)
    advantages = advantage_B.to(token_level_rewards.dtype).unsqueeze(-1) * response_mask
    return advantages, advantages
