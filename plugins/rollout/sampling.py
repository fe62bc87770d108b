"""A job that only samples: verl's validation, whose rows say how they are sampled and who they are.

Selected with `actor_rollout_ref.rollout.agent.agent_loop_manager_class` by the drivers that need
answers to prompts of theirs (algos/self_play.py), with `trainer.val_only=true`. Each row of the data
has a `row_id`:

* `train-...` is sampled as a training prompt is (`rollout.{temperature,top_p,top_k}`), any other as
  a validation prompt (`rollout.val_kwargs`);
* its answer has the seed that comes of it, and not of the row's place: a job that was cut, or one without
  a validation, gives the others the same answers;
* it stands in the dump beside the answer: two prompts may have the same text.

Several answers to a prompt are several rows: with `val_kwargs.n` above 1 verl would bootstrap
statistics of every group, 80 ms a prompt.
"""

from plugins.rollout.batched_rollout import BatchedAgentLoopManager, BatchedAgentLoopWorker


class SamplingWorker(BatchedAgentLoopWorker):
    """Our worker; the row says how it is sampled."""

    def __init__(self, config, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        self.batched = self.batched and config.lab.batched_rollout

    async def _run_prompt(self, prompt, sampling_params, trajectory, *args, **kwargs) -> None:
        if prompt["row_id"].startswith("train-"):
            rollout = self.config.actor_rollout_ref.rollout
            sampling_params = sampling_params | {
                name: rollout[name] for name in ("temperature", "top_p", "top_k")
            }
        sampling_params = self.seeded(sampling_params, prompt["row_id"], 0, trajectory["validate"])
        await super()._run_prompt(prompt, sampling_params, trajectory, *args, **kwargs)

    async def _compute_score(self, outputs, kwargs) -> None:
        await super()._compute_score(outputs, kwargs)
        info = outputs[-1].extra_fields.get("reward_extra_info", {})
        outputs[-1].extra_fields["reward_extra_info"] = info | {"row_id": kwargs["row_id"]}


class SamplingManager(BatchedAgentLoopManager):
    """Our manager with these workers."""

    worker = SamplingWorker
