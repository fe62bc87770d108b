"""Single-turn rollouts, a batch at a time.

verl starts an agent for every sample: it renders the prompt, makes a Ray call to the rollout server
and one to a reward worker, and writes to the queue. Here all prompts that verl hands to a worker at
once are rendered once a group, go to each rollout server in one call (`generate_many`, see
patches/verl.py), are scored in this process by verl's own reward worker, and are written to the
queue at once. What is written is the same.

Everything else goes verl's way, a prompt at a time: other agents (several turns, tools), models with
a processor (images), clients that resume partial rollouts, distillation, tracing, engines other
than vLLM; and scores come from verl's reward workers where a reward model is
served, or where there are more of them than of these workers (`reward.num_workers`).
`lab.batched_rollout=false` switches all of it off.

A price: rewards of a batch start when its last answer is there. A reward that takes long (an HTTP
judge) may do better without.
"""

import asyncio
import logging
import time
from collections import defaultdict
from types import SimpleNamespace
from uuid import uuid4

import torch
import transfer_queue as tq
from verl.experimental.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.agent_loop import (
    AgentLoopMetrics,
    DictConfigWrap,
    _agent_loop_registry,
)
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.experimental.reward_loop.reward_loop import RewardLoopWorker
from verl.trainer.ppo.v1.agent_loop_tq import apply_greedy_sampling_params
from verl.utils.tensordict_utils import list_of_dict_to_tensordict
from verl.workers.rollout.llm_server import LLMServerClient

from plugins.rollout import samples
from plugins.rollout.agent_loop import AgentLoopManager, AgentLoopWorker

logger = logging.getLogger(__name__)
AGENT = "single_turn_agent"
OURS = f"{SingleTurnAgentLoop.__module__}.{SingleTurnAgentLoop.__qualname__}"


class Prompt:
    """A prompt on its way: what verl gave, and the trajectories that came of it."""

    def __init__(self, fields: dict, params: dict, validate: bool, default_n: int):
        self.fields, self.uid = fields, fields["uid"]
        self.n = int(fields.pop("__rollout_n__", default_n))
        self.params, self.validate = dict(params), validate
        if not fields.pop("__do_sample__", True) and not validate:
            apply_greedy_sampling_params(self.params)
        self.ids: list[int] = []
        self.done: list[tuple[str, dict, dict]] = []  # key, fields, tag of a trajectory
        self.failed = False

    def fail(self, error: BaseException) -> None:
        """Its group will not be complete, which verl calls a failure; the error goes to the log."""
        self.failed = True
        info = (type(error), error, error.__traceback__)
        logger.error(f"rollout of prompt {self.uid} failed", exc_info=info)


class BatchedAgentLoopWorker(AgentLoopWorker):
    """Our worker, which takes the prompts of one call together."""

    def __init__(self, config, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        rollout = config.actor_rollout_ref.rollout
        self.batched = (
            rollout.name == "vllm"
            and type(self.llm_client) is LLMServerClient  # the others resume partial rollouts
            and self.processor is None
            and not self.distillation_enabled
            and not rollout.trace.backend
            and _agent_loop_registry[AGENT]["_target_"] == OURS  # not replaced by a user's
        )
        self.waiting: list[Prompt] = []
        if self.batched:
            data = DictConfigWrap(config.data)
            self.agent = SingleTurnAgentLoop(
                DictConfigWrap(config), self.llm_client, self.tokenizer, self.processor,
                self.dataset_cls, data, hf_model_type=self.hf_model_type,
            )  # fmt: skip
        few = config.reward.num_workers <= rollout.agent.num_workers
        if self.batched and few and not config.reward.reward_model.enable:
            score = RewardLoopWorker(config).compute_score
            local = SimpleNamespace(compute_score=SimpleNamespace(remote=score))
            self.reward_loop_worker_handles = [local]

    async def _run_prompt(self, prompt, sampling_params, trajectory, trace=False) -> None:
        """verl calls this for each prompt, all in one turn of the event loop."""
        if not self.batched or prompt["agent_name"] != AGENT or trace:
            return await super()._run_prompt(prompt, sampling_params, trajectory, trace)
        validate = trajectory["validate"]
        config = self.config.actor_rollout_ref.rollout
        n = config.val_kwargs.n if validate else config.n
        fields = {k: v for k, v in prompt.items() if k != "agent_name"}
        self.waiting.append(Prompt(fields, sampling_params, validate, n))
        if len(self.waiting) == 1:
            await asyncio.sleep(0)  # by then the other tasks of this call have come here, too
            prompts, self.waiting = self.waiting, []
            await self._run_batch(prompts, "val" if validate else "train")

    async def _run_batch(self, prompts: list[Prompt], partition: str) -> None:
        await self._mark(prompts, partition, ["running"] * len(prompts))
        try:
            await asyncio.gather(*[self._render(prompt) for prompt in prompts])
            await self._generate([prompt for prompt in prompts if not prompt.failed])
            rows = [row for prompt in prompts for row in prompt.done]
            if rows:
                keys, fields, tags = map(list, zip(*rows, strict=True))
                data = list_of_dict_to_tensordict(fields)
                await tq.async_kv_batch_put(
                    keys=keys, fields=data, tags=tags, partition_id=partition
                )
        except Exception as error:
            for prompt in prompts:
                prompt.fail(error)
        states = ["failure" if prompt.failed else "finished" for prompt in prompts]
        await self._mark(prompts, partition, states)

    async def _mark(self, prompts: list[Prompt], partition: str, states: list[str]) -> None:
        tags = [{"status": state} for state in states]
        keys = [prompt.uid for prompt in prompts]
        await tq.async_kv_batch_put(keys=keys, tags=tags, partition_id=partition)

    async def _render(self, prompt: Prompt) -> None:
        try:
            messages = list(prompt.fields["raw_prompt"])
            prompt.ids = await self.agent.ct_build_initial_tokens(messages)
        except Exception as error:
            prompt.fail(error)

    async def _generate(self, prompts: list[Prompt]) -> None:
        """Sample all prompts, each on the server that verl's load balancer names, and score."""
        start = time.time()
        requests = [uuid4().hex for _ in prompts]
        servers = await asyncio.gather(
            *[
                self.llm_client._acquire_server(
                    request, prompt_ids=prompt.ids, sampling_params=prompt.params
                )
                for request, prompt in zip(requests, prompts, strict=True)
            ]
        )
        shares = defaultdict(list)
        for (name, handle), prompt in zip(servers, prompts, strict=True):
            shares[name].append((handle, prompt))
        try:
            await asyncio.gather(
                *[
                    self._generate_on(share[0][0], [prompt for _, prompt in share], start)
                    for share in shares.values()
                ]
            )
        finally:
            for (name, _), request in zip(servers, requests, strict=True):
                self.llm_client._release_server(name, request_id=request)

    async def _generate_on(self, server, prompts: list[Prompt], start: float) -> None:
        wanted = [(prompt, i) for prompt in prompts for i in range(prompt.n)]
        asked = [
            (prompt.ids, [self._params(prompt, i) for i in range(prompt.n)]) for prompt in prompts
        ]
        answers = await server.generate_many.remote(asked)
        seconds = time.time() - start
        await asyncio.gather(
            *[
                self._finish(prompt, i, answer, seconds)
                for (prompt, i), answer in zip(wanted, answers, strict=True)
            ]
        )

    def _params(self, prompt: Prompt, session: int) -> dict:
        """How an answer is sampled: as a client's request would be (patches/order.py)."""
        params = self.seeded(prompt.params, prompt.uid, session, prompt.validate)
        return samples.seed_request(params, prompt.ids)

    async def _finish(self, prompt: Prompt, session: int, answer, seconds: float) -> None:
        """Score an answer and make of it what SingleTurnAgentLoop and AgentLoopWorkerTQ write."""
        try:
            if isinstance(answer, BaseException):
                raise answer
            longest = self.rollout_config.response_length
            version = answer.extra_fields.get("global_steps")
            preempted = -1 if answer.num_preempted is None else answer.num_preempted
            routed = answer.routed_experts
            outputs = [
                AgentLoopOutput(
                    prompt_ids=prompt.ids,
                    response_ids=answer.token_ids[:longest],
                    response_mask=[1] * len(answer.token_ids[:longest]),
                    response_logprobs=answer.log_probs[:longest] if answer.log_probs else None,
                    routed_experts=None if routed is None else routed[: len(prompt.ids) + longest],
                    multi_modal_data={},
                    mm_processor_kwargs={},
                    mm_processor_output=None,
                    num_turns=2,
                    metrics=AgentLoopMetrics(generate_sequences=seconds, num_preempted=preempted),
                    extra_fields={"min_global_steps": version, "max_global_steps": version}
                    | answer.extra_fields
                    | {"turn_scores": [], "tool_rewards": []},
                )
            ]
            stored = prompt.fields | {"session_id": session}
            await self._compute_score(outputs, stored)
            fields = outputs[0].as_dict() | stored
            fields.pop("multi_modal_data", None)
            ids = torch.cat([fields["prompts"], fields["responses"]])
            fields |= {
                "loss_mask": fields["response_mask"],
                "input_ids": ids,
                "position_ids": torch.arange(len(ids)),
                "multi_modal_inputs": {},
            }
            length, answered = len(fields["prompts"]), len(fields["responses"])
            tag = {
                "status": "success", "prompt_len": length, "response_len": answered,
                "seq_len": length + answered, "global_steps": stored["global_steps"],
                "min_global_steps": fields["extra_fields"].get("min_global_steps"),
                "max_global_steps": fields["extra_fields"].get("max_global_steps"),
            }  # fmt: skip
            prompt.done.append((samples.make_key(prompt.uid, session), fields, tag))
        except Exception as error:
            prompt.fail(error)


class BatchedAgentLoopManager(AgentLoopManager):
    """Our manager with batching workers."""

    worker = BatchedAgentLoopWorker
