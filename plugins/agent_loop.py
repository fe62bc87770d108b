"""verl's agent loop, with samples that could not be graded masked out of the update.

Selected with `actor_rollout_ref.rollout.agent.agent_loop_manager_class`. A reward function says
"I could not grade this" (broken data, a broken grader) with a score of NaN. Such a sample is never
scored as 0 or 1: its response mask is 0, so that no token of it enters a loss, and it is taken out
of its group, so that it does not move the others' advantages. Metric: `reward/masked`.
"""

import math

import ray
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ


class AgentLoopWorker(AgentLoopWorkerTQ.__ray_metadata__.modified_class):
    """verl's worker, which also masks."""

    async def _compute_score(self, outputs, kwargs) -> None:
        """Score a trajectory; `kwargs` are the fields that verl will store with it."""
        await super()._compute_score(outputs, kwargs)
        final = outputs[-1]
        if final.reward_score is None:
            return  # a colocated reward model scores later
        info = dict(final.extra_fields.get("reward_extra_info", {}))
        masked = math.isnan(final.reward_score)
        if masked:
            final.reward_score = 0.0
            for output in outputs:
                output.response_mask = [0] * len(output.response_mask)
            # Estimators group by uid: alone in its group, it is in nobody's mean.
            kwargs["uid"] = f"{kwargs['uid']}-masked-{kwargs['session_id']}"
        # None, not NaN: verl leaves None out of its means.
        info = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in info.items()}
        final.extra_fields["reward_extra_info"] = info | {"masked": float(masked)}


class AgentLoopManager(AgentLoopManagerTQ):
    """verl's manager with our workers."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(AgentLoopWorker)
