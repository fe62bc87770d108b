"""verl's reward manager, which also gives the prompt to the reward function.

Selected with `reward.reward_manager`. A reward model has to see the prompt, and verl's manager passes
the answer alone: here `extra_info["messages"]` is the prompt. It also works where the reward model
shares the policy's GPUs: verl then scores after the rollouts, and passes on no more than prompt and
answer.
"""

import math

import numpy as np
from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager


def column(value) -> np.ndarray:
    """A column of one row, as DataProto has them."""
    array = np.empty(1, dtype=object)
    array[0] = value
    return array


class RewardManager(NaiveRewardManager):
    """One sample at a time."""

    async def run_single(self, data) -> dict:
        data = data[-1:]  # of a trajectory of several outputs, verl scores the last
        fields = data.non_tensor_batch
        extra_info = fields["extra_info"][0] if "extra_info" in fields else {}
        messages = [dict(message) for message in fields["raw_prompt"][0]]
        fields["extra_info"] = column({**extra_info, "messages": messages})
        fields.setdefault("data_source", column(None))
        fields.setdefault("reward_model", column({"ground_truth": None}))
        result = await super().run_single(data)
        pool = self.config.reward.reward_model.enable_resource_pool
        if (
            math.isnan(result["reward_score"])
            and self.config.reward.reward_model.enable
            and not pool
        ):
            raise RuntimeError(
                "a sample got no score, and samples can't be masked where the reward model shares the"
                " policy's GPUs: see the warnings above, or set lab.reward_model.gpus=1"
            )
        return result
