"""Each patch of order.py is still needed, and does what it says; and so is vllm.py's for seeds on the CPU."""

import inspect
import uuid
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from plugins.patches.vllm import draw_once, keep_generators
from plugins.rollout import samples


def test_verl_names_prompts_by_chance(without, patched):
    names = [name for batch in without["prompt_names"] for name in batch]
    assert len(set(names)) == len(names) == 10
    assert all(uuid.UUID(name).version == 4 for name in names)
    *batches, of_async = patched["prompt_names"]
    assert batches == [
        [samples.make_uid(kind, step, number) for number in numbers]
        for kind, step, numbers in (
            ("train", 1, (0, 1)),
            ("train", 1, (2, 3)),
            ("train", 2, (0, 1)),
            ("val", 2, (0, 1)),
        )
    ]
    assert all(uuid.UUID(name).version == 4 for name in of_async)


def test_verls_batch_has_the_order_in_which_answers_were_written(without, patched):
    keys = [f"{uid}_{session}_0" for uid in "ba" for session in (10, 9, 1)]
    assert without["batch_order"][:2] == [keys, [10, 9, 1] * 2]
    assert patched["batch_order"] == [keys[::-1], [1, 9, 10] * 2, ["00", "01", "02"]]


def test_verls_turns_have_one_seed(without, patched):
    assert without["turn_seeds"] == [7, 7, None]
    first, second, none = patched["turn_seeds"]
    assert first != second and none is None
    assert first == samples.seed_request({"seed": 7}, [1, 2])["seed"]


def test_verls_engines_draw_new_weights_by_chance(without, patched):
    drawn = [number for pair in without["engine_draws"] for number in pair]
    assert len(set(drawn)) == len(drawn)
    first, second, again, other = patched["engine_draws"]
    assert first == again
    assert first[0] == second[0] and first[1] != second[1]  # the same new weights, other dropout
    assert not set(first) & set(other)


def test_vllm_asks_a_generator_of_the_cpu_for_its_offset():
    """Its runner takes a draw back that way, and the generator refuses."""
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    assert "gen.set_offset(gen.get_offset()" in inspect.getsource(GPUModelRunner._bookkeeping_sync)
    with pytest.raises(RuntimeError, match="does not use offset"):
        torch.Generator().get_offset()


def test_a_prompt_that_is_not_all_read_draws_nothing():
    class Runner:
        def sample_tokens(self, error=None):
            self.seen = dict(self.input_batch.generators)
            if error:
                raise error

    keep_generators(SimpleNamespace(GPUModelRunner=Runner))
    runner, generators = Runner(), {0: "a", 1: "b", 2: "c"}
    runner.input_batch = SimpleNamespace(num_reqs=3, generators=dict(generators))
    # the fourth place is of a request that has ended; the second prompt is not all read
    runner.discard_request_mask = SimpleNamespace(np=np.array([False, True, False, True]))
    runner.sample_tokens()
    assert runner.seen == {0: "a", 2: "c"} and runner.input_batch.generators == generators
    with pytest.raises(KeyError):
        runner.sample_tokens(KeyError("x"))
    assert runner.input_batch.generators == generators


def test_vllm_draws_twice_for_a_request_with_a_generator(monkeypatch):
    from vllm.v1.sample.ops import topk_topp_sampler

    class Sampler(topk_topp_sampler.TopKTopPSampler):
        """A copy to patch."""

    draws, exponential = [], torch.Tensor.exponential_

    def counted(self, *args, generator=None, **kwargs):
        draws.append(self.numel())
        return exponential(self, *args, generator=generator, **kwargs)

    def sampled(seeds: dict[int, int]) -> list[int]:
        """The tokens of three requests over four words, of the same probabilities each time."""
        draws.clear()
        logits = torch.randn(3, 4, generator=torch.manual_seed(0))
        own = {row: torch.Generator().manual_seed(seed) for row, seed in seeds.items()}
        return sampler.forward_cpu(logits, own, None, None)[0].tolist()

    monkeypatch.setattr(torch.Tensor, "exponential_", counted)
    sampler, asked = Sampler(), [{0: 4, 1: 5, 2: n} for n in range(20)]
    twice = [sampled(seeds) for seeds in asked]
    assert sum(draws) == 24
    draw_once(SimpleNamespace(TopKTopPSampler=Sampler))
    assert [sampled(seeds) for seeds in asked] == twice
    assert sum(draws) == 12
    sampled({0: 4})
    assert sum(draws) == 12 + 4  # some have none: as vLLM does
