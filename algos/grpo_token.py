"""Token-wise GRPO: each token against the tokens at the same position of the group's other answers.

Source: Zhang et al., Reward-SQL, arXiv:2505.04671 (token-wise advantage from process rewards), on GRPO,
arXiv:2402.03300. With the rewards r of the group's answers that have a token at a position:

    A = (r − mean) / (std + 1e-6)

std has ddof = 1. Range: |A| < sqrt(group size). Rewards that are shifted on the tokens of the mask, or
scaled by a positive number, give the same advantages, as long as the spread is large against 1e-6.
Degenerate cases: fewer than two answers have a token there, or all rewards there are equal: A is 0.
It needs rewards on tokens (`steps` of a reward function): of one that scores whole answers only the
last tokens would learn. Not covered: discounting, rewards of later tokens, KL in the reward.
"""

import torch

from algos._groups import BLOCK, EPSILON, float_type, groups

STEP_REWARDS = True


def compute_advantage(
    token_level_rewards, response_mask, index, config=None, **_
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages of a batch of B answers of at most T tokens.

    Args:
        token_level_rewards: (B, T) rewards.
        response_mask: (B, T), 1 on the tokens that the model wrote, else 0.
        index: (B,) group of each answer, any hashable values.
        config: verl's `algorithm` node, not used.

    Returns:
        advantages and returns, the same (B, T) tensor, 0 where the mask is 0.
    """
    dtype = float_type(token_level_rewards)
    advantages = response_mask.to(dtype, copy=True)  # until a group's turn comes, its mask
    for rows_GN in groups(index, advantages.device, at_most=BLOCK, least=1):
        rows = rows_GN.flatten()
        mask_GNT = advantages.index_select(0, rows).unflatten(0, rows_GN.shape)
        count_GT = mask_GNT.sum(1, keepdim=True)
        reward_GNT = token_level_rewards.index_select(0, rows).to(dtype).unflatten(0, rows_GN.shape)
        reward_GNT *= mask_GNT
        for _twice in range(
            2
        ):  # the second mean is the rounding of the first: equal rewards give 0
            mean_GT = reward_GNT.sum(1, keepdim=True) / count_GT.clamp(min=1)
            reward_GNT.addcmul_(mask_GNT, mean_GT, value=-1)
        variance_GT = reward_GNT.square().sum(1, keepdim=True) / (count_GT - 1).clamp(min=1)
        reward_GNT /= variance_GT.sqrt() + EPSILON
        advantages.index_copy_(0, rows, reward_GNT.flatten(0, 1))
    return advantages, advantages
