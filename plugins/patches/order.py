"""Patches of verl 0.9.1 so that the same seed gives the same run. One function a patch, as in verl.py."""

import functools
import uuid

from plugins.rollout import samples


class PromptNames:
    """Names of the prompts of one step, one after the other. Stands where verl asks the module `uuid`."""

    def __init__(self):
        self.partition, self.step, self.number = "", None, 0

    def begin(self, partition: str, step: int) -> None:
        self.partition, self.step, self.number = partition, step, 0

    def go_on(self, partition: str, step: int | None) -> None:
        """Begin if it is another step. None: names that are verl's own."""
        if (self.partition, self.step) != (partition, step):
            self.begin(partition, step)

    def uuid4(self) -> str:
        if self.step is None:
            return str(uuid.uuid4())
        self.number += 1
        return samples.make_uid(self.partition, self.step, self.number - 1)


def name_prompts(trainer_base) -> None:
    """verl/trainer/ppo/v1/trainer_base.py:1050,1476 names each prompt of a step by a uuid4.

    So nothing that comes of a name is the same in two runs: the order of what is sorted by it, the seed of
    an answer. In the async trainers verl's names stay: a checkpoint keeps prompts that are on their way,
    and their names must not be given again; what such a trainer takes in a step depends on time anyway.
    """
    trainer, names = trainer_base.PPOTrainer, PromptNames()
    fetch, validate = trainer._fetch_one_gen_batch, trainer._validate
    trainer_base.uuid = names

    @functools.wraps(fetch)
    def _fetch_one_gen_batch(self):
        names.go_on("train", self.global_steps if self.trainer_mode == "sync" else None)
        return fetch(self)

    @functools.wraps(validate)
    def _validate(self):
        names.begin("val", self.global_steps)
        return validate(self)

    trainer._fetch_one_gen_batch, trainer._validate = _fetch_one_gen_batch, _validate


def sort_batch(replay_buffer) -> None:
    """verl/trainer/ppo/v1/replay_buffer.py:374,387: a batch has the order in which its answers were written.

    That is the order in which scoring ended; and of more groups than are needed those are taken that come
    first in a set of texts. Sort both by name: the order of the data, and of a prompt's answers.
    """
    buffer = replay_buffer.ReplayBuffer
    select, materialize = buffer._select_prompt_uids, buffer._materialize_batch

    @functools.wraps(select)
    def _select_prompt_uids(self, partition_id, sampleable_keys, batch_size):
        return select(self, partition_id, sorted(sampleable_keys), batch_size)

    @functools.wraps(materialize)
    def _materialize_batch(self, partition_id, selected_prompt_uids, partition_snapshot):
        in_order = sorted(partition_snapshot, key=samples.read_key)
        snapshot = {key: partition_snapshot[key] for key in in_order}
        return materialize(self, partition_id, selected_prompt_uids, snapshot)

    buffer._select_prompt_uids, buffer._materialize_batch = _select_prompt_uids, _materialize_batch


def seed_requests(llm_server) -> None:
    """verl/workers/rollout/llm_server.py:103, LLMServerClient.generate: an answer of several turns has one seed.

    Each of its requests would draw the same numbers again. Give each a seed that comes of the answer's
    (agent_loop.py) and of the prompt so far.
    """
    client = llm_server.LLMServerClient
    generate = client.generate

    @functools.wraps(generate)
    async def seeded(self, request_id, *, prompt_ids, sampling_params, **kwargs):
        params = samples.seed_request(sampling_params, prompt_ids)
        return await generate(
            self, request_id, prompt_ids=prompt_ids, sampling_params=params, **kwargs
        )

    client.generate = seeded


def seed_engine(transformer_impl) -> None:
    """verl/workers/engine/fsdp/transformer_impl.py:207, initialize, draws with the seed that its process has by chance.

    So a new head (of PPO's critic) and a new adapter are others in each run, and so is dropout. All workers draw
    the same new weights; in dropout each has a seed of its own. A checkpoint brings the generators' state.
    """
    engine, seed = transformer_impl.FSDPEngine, transformer_impl.torch.manual_seed
    initialize = engine.initialize

    @functools.wraps(initialize)
    def seeded(self):
        seed(self.engine_config.seed)
        initialize(self)
        seed(samples.seed_of(self.engine_config.seed, self.rank))

    engine.initialize = seeded
