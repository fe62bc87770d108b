"""Models that conf/model/ ships: what their facts say of themselves, and which files they stand on."""

import re

import pytest
import yaml

from preflight import names
from preflight.models import Shape, UnknownModel, shipped

FILES = {
    name: yaml.safe_load((names.CONF / f"model/{name}.yaml").read_text())
    for name in names.groups()["model"]
}
SHIPPED = {name: file for name, file in FILES.items() if "facts" in file}
# Parameters as the hub counts them, of tied weights once: a wrong size, a head too many, or an output layer that is
# not the embedding after all changes them. (Coder models: tests/preflight/memory/test_memory.py)
PUBLISHED = {
    "gemma3_1b": 999_885_952,
    "gemma3_270m": 268_098_176,
    "llama3_1_70b": 70_553_706_496,
    "llama3_1_8b": 8_030_261_248,
    "llama3_2_1b": 1_235_814_400,
    "llama3_2_3b": 3_212_749_824,
    "mistral_7b": 7_248_023_552,
    "phi4": 14_659_507_200,
    "phi4_mini": 3_836_021_760,
    "qwen2_5_0_5b": 494_032_768,
    "qwen2_5_14b": 14_770_033_664,
    "qwen2_5_1_5b": 1_543_714_304,
    "qwen2_5_32b": 32_763_876_352,
    "qwen2_5_3b": 3_085_938_688,
    "qwen2_5_72b": 72_706_203_648,
    "qwen2_5_7b": 7_615_616_512,
    "qwen3_0_6b": 596_049_920,
    "qwen3_14b": 14_768_307_200,
    "qwen3_1_7b": 1_720_574_976,
    "qwen3_235b_a22b": 235_093_634_560,
    "qwen3_30b_a3b": 30_532_122_624,
    "qwen3_32b": 32_762_123_264,
    "qwen3_4b": 4_022_468_096,
    "qwen3_8b": 8_190_735_360,
    "r1_distill_llama_8b": 8_030_261_248,
    "r1_distill_qwen_1_5b": 1_777_088_000,
    "r1_distill_qwen_7b": 7_615_616_512,
    "smollm2_135m": 134_515_008,
    "smollm2_1_7b": 1_711_376_384,
    "smollm2_360m": 361_821_120,
    "smollm3_3b": 3_075_098_624,
}


@pytest.mark.parametrize("name", SHIPPED)
def test_facts_are_those_of_one_model(name):
    facts = SHIPPED[name]["facts"]
    heads, kv_heads = facts["num_attention_heads"], facts["num_key_value_heads"]
    assert heads % kv_heads == 0
    assert "head_dim" in facts or facts["hidden_size"] % heads == 0
    assert facts["max_position_embeddings"] % 1024 == 0 and facts["max_position_embeddings"] >= 8192
    assert isinstance(facts["tie_word_embeddings"], bool)
    assert len(facts["architectures"]) == 1 and facts["architectures"][0].endswith("ForCausalLM")
    if "num_experts" in facts:
        assert 0 < facts["num_experts_per_tok"] < facts["num_experts"]


def parameters(facts: dict) -> int:
    """By the planner's formulas; of a type that they don't know, by transformers."""
    try:
        return Shape.of(facts).parameters()
    except UnknownModel:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**facts))
        return sum(p.numel() for p in model.parameters())


def test_parameters_are_the_published():
    assert {name for name in SHIPPED if "coder" not in name} == set(PUBLISHED)
    assert {name: parameters(SHIPPED[name]["facts"]) for name in PUBLISHED} == PUBLISHED


def test_each_says_its_licence_on_the_first_line():
    licences = re.compile(r"Apache-2\.0|MIT|[Ll]icen[cs]e|Gemma terms")
    for name in SHIPPED:
        assert licences.search(names.groups()["model"][name]), name


def test_paths_are_one_of_a_kind():
    """shipped() knows facts by path."""
    assert len(shipped()) == len(SHIPPED)
