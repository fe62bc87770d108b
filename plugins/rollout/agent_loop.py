"""verl's agent loop with what this project's rewards may say beside a score.

Selected with `actor_rollout_ref.rollout.agent.agent_loop_manager_class`; batched_rollout.py builds on it.

* "I could not grade this" (broken data, a broken grader) is a score of NaN. Such a sample is never
  scored as 0 or 1: its response mask is 0, so that no token of it enters a loss, and it is taken out
  of its group, so that it does not move the others' advantages. Metric: `reward/masked`.
* `steps`, a list of (start, end, score) with character offsets into the response, are rewards of
  parts of it (see step_rewards.py). They are placed on tokens if the estimator uses them
  (`STEP_REWARDS = True` in its file in algos/), or as `lab.step_rewards` says (true, false).

It also gives each answer a seed of its own (`lab.hw.answer_seeds`): vLLM draws all answers of an engine
from one generator, in the order in which the requests come, and so two runs of one seed differ.
"""

import math

import ray
import torch
from omegaconf import OmegaConf
from verl.experimental.agent_loop import AgentLoopOutput
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ

from plugins import algos
from plugins.rollout import samples, step_rewards


class StepOutput(AgentLoopOutput):
    """A trajectory with a reward on more tokens than the last."""

    token_scores: list[float]

    def as_dict(self):
        output = super().as_dict()
        output["rm_scores"] = torch.tensor(output.pop("token_scores"), dtype=torch.float32)
        return output


class AgentLoopWorker(AgentLoopWorkerTQ.__ray_metadata__.modified_class):
    """verl's worker, which also masks and places step rewards."""

    def __init__(self, config, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        wanted = config.lab.step_rewards
        uses = algos.uses_steps(config.algorithm.adv_estimator)
        self.place_steps = uses if wanted == "auto" else wanted
        rollout = config.actor_rollout_ref.rollout
        wanted = OmegaConf.select(config, "lab.hw.answer_seeds", default=False)
        self.seed = rollout.seed if wanted and rollout.name == "vllm" else None

    def seeded(self, params: dict, uid: str, session: int, validate: bool) -> dict:
        """Sampling parameters with the answer's seed, if they have none yet; the most probable token needs none."""
        if self.seed is None or params["temperature"] == 0 or params.get("seed") is not None:
            return params
        return params | {"seed": samples.answer_seed(self.seed, uid, session, validate)}

    async def _run_agent_loop(self, sampling_params, trajectory, *, agent_name, **kwargs):
        """One answer, of any agent. The seed of each of its requests comes of this one (patches/order.py)."""
        at = kwargs["uid"], kwargs["session_id"], trajectory["validate"]
        params = self.seeded(sampling_params, *at)
        return await super()._run_agent_loop(params, trajectory, agent_name=agent_name, **kwargs)

    async def _compute_score(self, outputs, kwargs) -> None:
        """Score a trajectory; `kwargs` are the fields that verl will store with it."""
        await super()._compute_score(outputs, kwargs)
        final = outputs[-1]
        if final.reward_score is None:
            return  # a colocated reward model scores later
        info = dict(final.extra_fields.get("reward_extra_info", {}))
        steps = info.pop("steps", None)
        masked = math.isnan(final.reward_score)
        if masked:
            final.reward_score = 0.0
            for output in outputs:
                output.response_mask = [0] * len(output.response_mask)
            # Estimators group by uid: alone in its group, it is in nobody's mean.
            kwargs["uid"] = samples.masked_uid(kwargs["uid"], kwargs["session_id"])
        elif steps and self.place_steps:
            scores = step_rewards.place(
                self.tokenizer, final.response_ids, final.reward_score, steps
            )
            fields = {name: getattr(final, name) for name in final.model_fields_set}
            outputs[-1] = final = StepOutput(**fields, token_scores=scores)
        # None, not NaN: verl leaves None out of its means.
        info = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in info.items()}
        final.extra_fields["reward_extra_info"] = info | {"masked": float(masked)}


class AgentLoopManager(AgentLoopManagerTQ):
    """verl's manager with our workers."""

    worker = AgentLoopWorker

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(self.worker)
