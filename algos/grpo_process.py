"""Process GRPO over distinct scores ("avg unique"): the steps of an answer share its place in the group.

Source: Zhang et al., Reward-SQL, arXiv:2505.04671 (process advantage over the distinct scores of the
steps), on GRPO, arXiv:2402.03300. With the mean r̄ of the distinct non-zero rewards of an answer (0 if
it has none), inside its group, std with ddof = 1:

    a = (r̄ − mean) / (std + 1e-6)

and on each token with a reward r ≠ 0, other tokens 0:

    A = (r − 1) · a   if a > 0 and r > 1     (a step's reward and the outcome's 1 on one token)
    A = r · a         if a > 0 and r <= 1
    A = (1 − r) · a   if a <= 0

A known flaw of the formula: an answer whose rewards are all zero gets no penalty, as no token of it has
one. `algorithm.grpo_process.penalize_zero=true` gives it a on all its tokens.
Not invariant to shift or scale of the rewards: 0 and 1 have a meaning. Rewards are taken to be in [0, 2].
Degenerate cases: all r̄ of a group equal, or a group of one: A is 0.
It needs rewards on tokens (`steps` of a reward function): of one that scores whole answers only the
last tokens would learn. Not covered: KL in the reward, which would count as rewards of steps.
"""

import numpy as np
import torch

from algos._groups import BLOCK, float_type, groups, z_score

STEP_REWARDS = True


def mean_of_distinct(reward_RT: torch.Tensor) -> torch.Tensor:
    """Mean (R,) of each row's distinct values other than 0, as float64; 0 if there are none."""
    sorted_RT = torch.from_numpy(np.sort(reward_RT.cpu().numpy()))  # many times torch's speed
    new_RT = sorted_RT.diff(prepend=sorted_RT.new_zeros(len(sorted_RT), 1)).ne_(0)
    total_R = (sorted_RT * new_RT).sum(-1, dtype=torch.float64)
    count_R = new_RT.mul_(sorted_RT.ne_(0)).sum(-1)
    return (total_R / count_R.clamp(min=1)).to(reward_RT.device)


def compute_advantage(
    token_level_rewards, response_mask, index, config=None, *, penalize_zero=False, **_
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages of a batch of B answers of at most T tokens.

    Args:
        token_level_rewards: (B, T) rewards.
        response_mask: (B, T), 1 on the tokens that the model wrote, else 0.
        index: (B,) group of each answer, any hashable values.
        config: verl's `algorithm` node, not used.
        penalize_zero: whether an answer without any reward gets its a on all its tokens.

    Returns:
        advantages and returns, the same (B, T) tensor, 0 where the mask is 0.
    """
    dtype = float_type(token_level_rewards)
    parts = token_level_rewards.to(dtype).split(BLOCK)
    score_B = torch.cat([mean_of_distinct(part_RT) for part_RT in parts])
    a_B1 = torch.zeros_like(score_B).unsqueeze(-1)
    for rows_GN in groups(index, score_B.device):
        a_B1[rows_GN] = z_score(score_B[rows_GN]).unsqueeze(-1)
    a_B1 = a_B1.to(dtype)
    # the three cases in one: |a| · (r − 1), without the − 1 if a > 0 and r <= 1
    least_B1 = torch.where(a_B1 > 0, 1.0, -torch.inf).to(dtype)
    advantages = torch.empty_like(token_level_rewards, dtype=dtype)
    blocks = (x.split(BLOCK) for x in (advantages, response_mask, a_B1, least_B1))
    for r_RT, value_RT, mask_RT, a_R1, least_R1 in zip(parts, *blocks, strict=True):
        given_RT = r_RT.clone().ne_(0)
        torch.sub(r_RT, r_RT.clone().gt_(least_R1), out=value_RT)
        value_RT.mul_(a_R1.abs()).mul_(given_RT)
        if penalize_zero:
            value_RT += a_R1 * (given_RT.amax(-1, keepdim=True) == 0)
        value_RT *= mask_RT.to(dtype)
    return advantages, advantages
