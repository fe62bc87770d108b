"""The reward manager of every run: verl's, with limits, the prompt, and DAPO's penalty.

* Each call of the reward function has the limits of `lab.reward_limits` (rewards/_limits/calls.py): one that
  is stopped is a sample without a score, which the agent loop masks and counts. So is one that raises: the error goes
  to the log, from where the launcher shows it, and its sample has `failed` = 1. Too many of them end the run
  (plugins/patches/reward_infos.py).
* `extra_info["messages"]` is the prompt: a reward model has to see it, and verl's manager passes the
  answer alone. It is also there where the reward model shares the policy's GPUs: verl then scores
  after the rollouts, and passes on no more than prompt and answer.
* `reward.reward_kwargs.overlong_buffer_cfg`: the soft penalty for long answers of DAPO, section 3.4
  (Yu et al., arXiv:2503.14476), which verl has in a manager of its own. In the last `len` tokens
  before `max_resp_len` it goes from 0 to -penalty_factor, and on beyond them.
* `algorithm.filter_groups.metric=acc_or_score` is `acc`, or the score of a reward that returns none.

* A sample that is scored is a sign of life: it sets the time of metrics.jsonl, which the launcher's watchdog looks at
  (launcher/progress.py), so that a long step is not taken for one that hangs.

Not limited: verl's own function with a sandbox (`reward.sandbox_fusion.url`), which limits itself.
"""

import contextlib
import logging
import math
import os
import time

import numpy as np
from omegaconf import OmegaConf
from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager

from rewards._limits.calls import Limits, RewardError, call

logger = logging.getLogger(__name__)
VERLS = ("pkg://verl.utils.reward_score", "default_compute_score")  # by data_source
EITHER = "acc_or_score"
BEAT_S = 1.0  # between two signs of life
FAILURES_TOLD = (
    20  # in the log of a process, with their tracebacks; all are counted by their metric
)


def column(value) -> np.ndarray:
    """A column of one row, as DataProto has them."""
    array = np.empty(1, dtype=object)
    array[0] = value
    return array


class RewardManager(NaiveRewardManager):
    """One sample at a time."""

    def __init__(self, config, tokenizer, compute_score, *served, **served_by_name):
        super().__init__(config, tokenizer, compute_score, *served, **served_by_name)
        function = config.reward.custom_reward_function
        if function.path or not OmegaConf.select(config, "reward.sandbox_fusion.url"):
            own = (function.path, function.name)
            self.function: tuple[str, str] = own if function.path else VERLS
            options = function.get("reward_kwargs")
            self.options = OmegaConf.to_container(options, resolve=True) if options else {}
            self.limits = Limits(**config.lab.reward_limits)
            self.compute_score, self.is_async_reward_score = self.limited, True
        self.beaten, self.failures = 0.0, 0
        self.either = OmegaConf.select(config, "algorithm.filter_groups.metric") == EITHER
        penalty = OmegaConf.select(config, "reward.reward_kwargs") or {}
        self.longest, self.buffer = penalty.get("max_resp_len"), penalty.get("overlong_buffer_cfg")
        if self.buffer and self.buffer.enable and not 0 < self.buffer.len <= (self.longest or 0):
            raise ValueError(
                f"reward.reward_kwargs.overlong_buffer_cfg.len={self.buffer.len} must be from 1 to"
                f" reward.reward_kwargs.max_resp_len={self.longest}"
            )

    async def limited(self, data_source, solution_str, ground_truth, extra_info, **served) -> dict:
        """The reward function, for verl's manager to call."""
        row = (data_source, solution_str, ground_truth, extra_info)
        try:
            result = await call(*self.function, row, served | self.options, self.limits)
        except RewardError as error:
            self.failures += 1
            if self.failures <= FAILURES_TOLD:
                logger.error(error.told)
            return {"score": math.nan, "acc": math.nan, "failed": 1.0}
        return {"failed": 0.0} | result

    async def run_single(self, data) -> dict:
        data = data[-1:]  # of a trajectory of several outputs, verl scores the last
        fields = data.non_tensor_batch
        extra_info = fields["extra_info"][0] if "extra_info" in fields else {}
        messages = [dict(message) for message in fields["raw_prompt"][0]]
        fields["extra_info"] = column({**extra_info, "messages": messages})
        fields.setdefault("data_source", column(None))
        fields.setdefault("reward_model", column({"ground_truth": None}))
        result = await super().run_single(data)
        self.beat()
        info, model = result["reward_extra_info"], self.config.reward.reward_model
        if self.either:
            info[EITHER] = info.get("acc", result["reward_score"])
        if math.isnan(result["reward_score"]):
            if model.enable and not model.enable_resource_pool:
                raise RuntimeError(
                    "a sample got no score, and samples can't be masked where the reward model shares"
                    " the policy's GPUs: see the warnings above, or set lab.reward_model.gpus=1"
                )
        elif self.buffer and self.buffer.enable:
            penalty = self.overlong(data)
            result["reward_score"] += penalty
            if self.buffer.log:
                info |= {"overlong_reward": penalty, "overlong": float(penalty < 0)}
        return result

    def beat(self) -> None:
        """Say that the run moves on. On a node without the run's folder nobody hears it."""
        file, now = os.getenv("VERL_FILE_LOGGER_PATH"), time.monotonic()
        if file and now - self.beaten > BEAT_S:
            self.beaten = now
            with contextlib.suppress(OSError):
                os.utime(file)

    def overlong(self, data) -> float:
        """What the answer's length costs, a number <= 0."""
        batch, length = data.batch, data.batch["responses"].shape[-1]
        tokens = batch["attention_mask"][0, -length:].sum().item()
        over = tokens - (self.longest - self.buffer.len)
        return min(-over / self.buffer.len * self.buffer.penalty_factor, 0.0)
