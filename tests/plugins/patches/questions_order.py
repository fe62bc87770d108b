"""Questions about order and seeds, asked as those of questions.py."""

import contextlib
from types import SimpleNamespace
from unittest import mock

import numpy as np
from omegaconf import OmegaConf


def prompt_names():
    """Of three batches of two prompts in steps 1, 1 and 2, of a validation at step 2; of an async trainer."""
    from verl.trainer.ppo.v1 import trainer_base

    names = []

    def put(keys, **_):
        names.append(keys)
        raise StopIteration  # the rest of a validation is no question

    def batch():
        return {"raw_prompt": np.array([[], []], dtype=object)}

    class Trainer(trainer_base.PPOTrainer):
        on_sample_end = on_step_end = None

    trainer = Trainer.__new__(Trainer)
    trainer.trainer_mode, trainer.train_dataloader_it = "sync", iter([batch() for _ in range(4)])
    trainer.val_dataloader = [batch()]
    trainer.config = OmegaConf.create({"actor_rollout_ref": {"rollout": {"val_kwargs": {"n": 1}}}})
    for trainer.global_steps in (1, 1, 2):
        names.append(list(trainer._fetch_one_gen_batch()["uid"]))
    with (
        mock.patch.object(trainer_base.tq, "kv_batch_put", put),
        contextlib.suppress(StopIteration),
    ):
        trainer._validate()
    trainer.trainer_mode = "colocate_async"
    names.append(list(trainer._fetch_one_gen_batch()["uid"]))
    return names


def batch_order():
    """Rows of a batch whose answers were written from the last to the first; which 3 of 64 groups are taken."""
    from verl.trainer.ppo.v1 import replay_buffer

    buffer = replay_buffer.ReplayBuffer("sync", {}, None, "drop", {})
    written = {f"{uid}_{session}_0": {"n": session} for uid in "ba" for session in (10, 9, 1)}
    with mock.patch.object(replay_buffer.tq, "kv_clear"):
        batch = buffer._materialize_batch("train", ["a", "b"], written)
    groups = {f"{number:02d}" for number in range(64)}
    return [
        batch.keys,
        [tag["n"] for tag in batch.tags],
        buffer._select_prompt_uids("train", groups, 3)[0],
    ]


def turn_seeds():
    """Of two turns of an answer with seed 7, and of a request without a seed."""
    import asyncio

    from verl.workers.rollout.llm_server import LLMServerClient
    from verl.workers.rollout.replica import TokenOutput

    seeds = []

    async def generate(sampling_params, **_):
        seeds.append(sampling_params.get("seed"))
        return TokenOutput(token_ids=[])

    async def acquire(request_id, **_):
        return "name", SimpleNamespace(generate=SimpleNamespace(remote=generate))

    rollout = {"full_determinism": False, "name": "vllm", "trace": {}}
    client = LLMServerClient(OmegaConf.create({"actor_rollout_ref": {"rollout": rollout}}))
    client._acquire_server, client._release_server = acquire, mock.Mock()
    for ids, params in (([1, 2], {"seed": 7}), ([1, 2, 3], {"seed": 7}), ([1], {})):
        asyncio.run(client.generate("r", prompt_ids=ids, sampling_params=params))
    return seeds


def engine_draws():
    """What the engines of workers 0, 1 and 0 with seed 5, and 0 with seed 6, draw for new weights, and afterwards."""
    import torch
    from verl.workers.engine.fsdp import transformer_impl

    class Engine(transformer_impl.FSDPEngine):
        module = optimizer = lr_scheduler = None
        model_config = checkpoint_config = mock.Mock()
        _is_offload_param = _is_offload_optimizer = False
        __abstractmethods__ = frozenset()

        def _build_model_optimizer(self):
            self.weights = torch.rand(1).item()

        def to(self, *_, **__):
            pass

    found = []
    others = dict.fromkeys(("FSDPCheckpointManager", "log_gpu_memory_usage"), mock.DEFAULT)
    with mock.patch.multiple(transformer_impl, **others):
        for rank, seed in ((0, 5), (1, 5), (0, 5), (0, 6)):
            engine = Engine.__new__(Engine)
            engine.rank, engine.engine_config = rank, SimpleNamespace(seed=seed)
            torch.seed()  # as a new process has it
            engine.initialize()
            found.append([engine.weights, torch.rand(1).item()])
    return found


QUESTIONS = [prompt_names, batch_order, turn_seeds, engine_draws]
