"""The reward function gets the prompt, also where verl hands over no more than prompt and answer."""

import asyncio
import math

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from tensordict import TensorDict
from transformers import AutoTokenizer
from verl import DataProto

from plugins.reward_manager import RewardManager, column

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How many?"}]


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


def sample(tokenizer, answer: str, **fields) -> DataProto:
    """What verl's agent loop sends to a reward worker, or, without fields, its trainer."""
    ids = torch.tensor([tokenizer(answer + tokenizer.eos_token)["input_ids"]])
    batch = TensorDict({"responses": ids, "attention_mask": torch.ones_like(ids)}, batch_size=1)
    fields = {name: column(value) for name, value in fields.items()}
    return DataProto(batch, {"raw_prompt": np.array([MESSAGES], dtype=object), **fields})


def score(tokenizer, data, said, pool=True) -> dict:
    """Run the manager; `said(**arguments)` is the reward function."""

    async def compute_score(**arguments):
        return said(**arguments)

    model = {"enable": True, "enable_resource_pool": pool}
    config = OmegaConf.create({"reward": {"reward_model": model}})

    async def run():
        manager = RewardManager(config, tokenizer, compute_score, "host:1", tokenizer)
        return await manager.run_single(data)

    return asyncio.run(run())


def test_the_prompt_comes_with_the_answer(tokenizer):
    seen = {}
    info = {"db": "x.sqlite"}
    data = sample(
        tokenizer, "Three.", data_source="s", reward_model={"ground_truth": "3"}, extra_info=info
    )
    result = score(
        tokenizer, data, lambda **arguments: seen.update(arguments) or {"score": 0.5, "part": 1.0}
    )
    assert result["reward_score"] == 0.5 and result["reward_extra_info"]["part"] == 1.0
    assert (seen["solution_str"], seen["ground_truth"], seen["data_source"]) == ("Three.", "3", "s")
    assert seen["extra_info"]["messages"] == MESSAGES and seen["extra_info"]["db"] == "x.sqlite"
    assert (seen["reward_router_address"], seen["reward_model_tokenizer"]) == ("host:1", tokenizer)
    assert info == {"db": "x.sqlite"}  # the row's own is as it was


def test_a_model_that_takes_turns(tokenizer):
    seen = {}
    data = sample(tokenizer, "Three.")
    score(tokenizer, data, lambda **arguments: seen.update(arguments) or 1.0, pool=False)
    assert seen["solution_str"] == "Three." and seen["ground_truth"] is None
    assert seen["extra_info"]["messages"] == MESSAGES


def test_no_score_ends_a_run_that_cannot_mask(tokenizer):
    data = sample(tokenizer, "Three.")
    assert math.isnan(score(tokenizer, data, lambda **_: math.nan)["reward_score"])
    with pytest.raises(RuntimeError, match=r"lab\.reward_model\.gpus=1"):
        score(tokenizer, data, lambda **_: math.nan, pool=False)
