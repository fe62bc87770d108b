"""Seeds of the answers of a job that samples."""

import asyncio

import pytest
from omegaconf import OmegaConf

from plugins.rollout import sampling

SAMPLED = {"temperature": 1.0, "top_p": 1.0, "top_k": -1}
GREEDY = {"temperature": 0, "top_p": 1.0, "top_k": -1}


@pytest.fixture
def seeds(monkeypatch):
    """`seeds(row_ids, params)` -> the seed with which each row of a job would be sampled, in their order."""
    asked = []

    async def run_prompt(self, prompt, sampling_params, trajectory):
        asked.append(self.seeded(sampling_params, prompt["uid"], 0, trajectory["validate"]))

    monkeypatch.setattr(sampling.BatchedAgentLoopWorker, "_run_prompt", run_prompt)

    def of(row_ids, params, seed=3):
        asked.clear()
        worker = sampling.SamplingWorker.__new__(sampling.SamplingWorker)
        worker.config, worker.seed = (
            OmegaConf.create({"actor_rollout_ref": {"rollout": SAMPLED}}),
            seed,
        )
        for place, row_id in enumerate(row_ids):
            prompt = {"row_id": row_id, "uid": f"val-000000-{place:06d}"}
            asyncio.run(worker._run_prompt(prompt, params, trajectory={"validate": True}))
        return [params.get("seed") for params in asked]

    return of


def test_an_answer_has_the_seed_of_its_row_and_not_of_its_place(seeds):
    rows = ["train-0-0", "train-0-1", "train-1-0", "val-0-0", "val-0-1"]
    found = seeds(rows, SAMPLED)
    assert len(set(found)) == 5 and None not in found
    assert seeds(rows[3:], SAMPLED) == found[3:]  # a validation alone
    assert seeds(rows[:3], SAMPLED) == found[:3]
    assert not set(seeds(rows, SAMPLED, seed=4)) & set(found)


def test_the_most_probable_answer_has_none_and_seeds_can_be_off(seeds):
    assert seeds(["val-0-0"], GREEDY) == [None]
    assert seeds(["train-0-0"], GREEDY) != [None]  # sampled all the same
    assert seeds(["train-0-0"], SAMPLED, seed=None) == [None]
