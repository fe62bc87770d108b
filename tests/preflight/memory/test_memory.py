"""Sizes of models against the models themselves, built without weights; memory against what was measured."""

import dataclasses
import json
import os

import bench_gpu
import bench_memory
import pytest

from preflight.memory.plan import allocated, plan_of
from preflight.memory.training import ON_GPU, Engine, inference, training
from preflight.memory.vllm import Server
from preflight.models import Shape, UnknownModel, facts_of, shipped

SMALL = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 4, "vocab_size": 1000}  # fmt: skip
FAMILIES = {
    "llama": SMALL | {"model_type": "llama", "num_key_value_heads": 2},
    "llama with biases": SMALL | {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "mistral": SMALL | {"model_type": "mistral", "num_key_value_heads": 2},
    "mixtral": SMALL | {"model_type": "mixtral", "num_local_experts": 4, "num_key_value_heads": 2},
    "phi3": SMALL | {"model_type": "phi3", "pad_token_id": 0},
    "qwen2, tied": SMALL | {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3 with biases": SMALL | {"model_type": "qwen3", "head_dim": 64, "attention_bias": True},
}
# Layers are alike: of more than 48, four are built. (The whole count is compared in tests/conf/test_models.py.)
MODELS = {
    path: facts | ({"num_hidden_layers": 4} if facts["num_hidden_layers"] > 48 else {})
    for path, facts in shipped().items()
    if "Coder" not in path and facts["model_type"] in Shape.known
} | FAMILIES
SETTINGS = bench_memory.POINTS | bench_memory.POINTS_GPU
POINTS = json.loads(bench_memory.FILE.read_text()) | json.loads(bench_memory.FILE_GPU.read_text())
RUNS = json.loads(bench_gpu.FILE.read_text())


def built(facts: dict, kind: str):
    """The model of transformers, on the meta device."""
    import torch
    import transformers

    config = transformers.AutoConfig.for_model(**facts)
    config.num_labels = 1
    with torch.device("meta"):
        return getattr(transformers, f"AutoModelFor{kind}").from_config(config)


def count(model) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.filterwarnings("ignore")  # PEFT's about patterns of a mixture's experts
@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_exact(name):
    import torch
    from peft import LoraConfig, get_peft_model

    shape, facts = Shape.of(MODELS[name]), MODELS[name]
    model = built(facts, "CausalLM")
    assert shape.parameters() == count(model)
    assert shape.parameters("value") == count(built(facts, "TokenClassification"))
    with torch.device("meta"):
        lora = get_peft_model(
            model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM")
        )
    assert shape.adapter(8) == count(lora)


def test_coder_models_have_the_sizes_of_the_others():
    for path, facts in shipped().items():
        assert facts == shipped()[path.replace("-Coder", "")]


def test_models_that_are_not_known():
    assert facts_of("nobody/nothing") is None
    with pytest.raises(UnknownModel, match="model type gpt2"):
        Shape.of({"model_type": "gpt2"})
    with pytest.raises(UnknownModel, match="dense layers"):
        Shape.of(shipped()["Qwen/Qwen3-30B-A3B"] | {"mlp_only_layers": [0]})


def test_facts_come_from_the_folder_first(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(FAMILIES["llama"]))
    assert facts_of(str(tmp_path)) == FAMILIES["llama"]


def test_facts_come_from_the_hubs_cache(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    revision = tmp_path / "models--some--model"
    (revision / "refs").mkdir(parents=True)
    (revision / "refs/main").write_text("abc")
    (revision / "snapshots/abc").mkdir(parents=True)
    (revision / "snapshots/abc/config.json").write_text(json.dumps(FAMILIES["phi3"]))
    assert facts_of("some/model") == FAMILIES["phi3"]


def test_all_points_were_measured():
    assert set(POINTS) == set(SETTINGS)


@pytest.mark.parametrize("name", POINTS)
def test_what_was_measured_is_predicted(name):
    """Within 10 %, and not more than 5 % too low; weights and AdamW's moments to the last percent."""
    engine, measured = bench_memory.engine_of(*SETTINGS[name]), POINTS[name]
    assert measured["stored"] == pytest.approx(engine.stored, rel=0.01)
    assert measured["optimizer"] == pytest.approx(engine.optimizer, rel=0.01)
    for phase, parts in (("update", training(engine)), ("inference", inference(engine))):
        ratio = sum(parts.values()) / measured[phase]
        assert 0.95 <= ratio <= 1.10, f"{phase}: {ratio:.3f}"


@pytest.mark.parametrize("name", RUNS)
def test_a_run_on_a_gpu_is_predicted(name, composer):
    """Of each phase what all processes took, and what torch allocated: within 10 %, and not more than 5 % too low."""
    run = RUNS[name]
    predicted = plan_of(composer(*bench_gpu.USUAL, *run["overrides"])).phases
    assert run["exit"] == 0 and set(predicted) <= set(run["phases"])
    for phase, parts in predicted.items():
        measured = run["phases"][phase]
        assert 0.95 <= sum(parts.values()) / measured["gpu"] <= 1.10, phase
        if phase != "rollout":
            assert 0.95 <= allocated(parts) / measured["allocated"] <= 1.10, phase


def test_the_bench_gives_each_phase_what_it_took():
    """verl's process is 7, vLLM's 8, the bench itself another; the sync begins when vLLM wakes."""
    memory = bench_gpu.Memory()
    mine = {os.getpid(): 99}
    memory.samples = [
        (t, mine | {7: a, 8: b}) for t, a, b in [(1, 2, 9), (2, 5, 1), (3, 6, 1), (4, 3, 4), (5, 1, 7), (6, 1, 8)]
    ]  # fmt: skip
    marks = [
        {"phase": "update", "begin": 1.5, "end": 2.5, "pid": 7, "allocated": 4, "reserved": 5},
        {"phase": "wake", "begin": 3.5, "pid": 7},
        {"phase": "cache", "begin": 4.5, "pid": 7},
        {"phase": "weight sync", "begin": 2.6, "end": 4.6, "pid": 7, "allocated": 3, "reserved": 3},
        {"phase": "update", "begin": 5.5, "end": 6.5, "pid": 7, "allocated": 2, "reserved": 2},
    ]
    assert bench_gpu.phases(marks, memory) == {
        "update": {"allocated": 4, "reserved": 5, "gpu": 9, "verl": 5, "vllm": 8},
        "weight sync": {"allocated": 3, "reserved": 3, "gpu": 7, "verl": 3, "vllm": 4},
        "rollout": {"gpu": 8, "verl": 1, "vllm": 7},
    }


@pytest.mark.real
@pytest.mark.parametrize("name", ["small_bf16", "small_lora"])
def test_verls_engine_still_takes_what_was_measured(name):
    now = bench_memory.alone(name)
    for what, then in POINTS[name].items():
        assert now[what] == pytest.approx(then, rel=0.05), what


QWEN = Shape.of(shipped()["Qwen/Qwen2.5-1.5B-Instruct"])
ENGINE = Engine(QWEN, tokens=8192, infer_tokens=8192, longest=2048)


def peak(**settings) -> float:
    return sum(training(dataclasses.replace(ENGINE, **settings)).values())


def test_what_takes_less_memory():
    assert peak(rank=32) < peak() / 2
    assert peak(shards=8) < peak() / 2
    assert peak(checkpointing=False) > peak() + 5e9
    assert peak(rank=32, tokens=16384) > peak(rank=32, tokens=8192) > peak(rank=32, tokens=1024)
    assert peak(flash=False, tokens=32768) > peak(tokens=32768)
    assert peak(packed=False, tokens=32768) > peak(tokens=32768)
    assert peak(passes=4, w=2, deferred=True) > peak(passes=4, w=2, deferred=False)


def test_what_stays_on_the_gpu():
    assert sum(ENGINE.resident.values()) == 12 * QWEN.parameters()
    assert dataclasses.replace(ENGINE, optimizer_offload=True).resident["optimizer"] == 0
    assert dataclasses.replace(ENGINE, param_offload=True).resident["weights"] == 0
    assert dataclasses.replace(ENGINE, frozen=True).resident == {}


def test_entropy_in_pieces_takes_less():
    whole = dataclasses.replace(ENGINE, compiled=False)
    pieces = dataclasses.replace(whole, chunk=512)
    assert sum(inference(pieces).values()) < sum(inference(whole).values()) - 5e9


def test_cuda_graphs_take_their_part_of_the_share_and_keep_it_asleep():
    """vLLM's list of sizes ends at 256 for 128 sequences, at 512 for 256 and more."""
    server = Server(QWEN, 0.5, sequences=128)
    assert server.captured == 35 + 19
    assert dataclasses.replace(server, rank=32).captured == 2 * server.captured
    assert dataclasses.replace(server, sequences=1024).captured == 51 + 51
    assert dataclasses.replace(server, sizes=(1, 8, 64, 256)).captured == 4 + 3
    assert dataclasses.replace(server, batched=128).captured == 19 + 19
    eager = dataclasses.replace(server, eager=True)
    assert eager.graphs == 0 == dataclasses.replace(server, cuda=False).graphs
    assert eager.room(2**34) - server.room(2**34) == pytest.approx(server.graphs)
    assert sum(server.parts(2**34).values()) == pytest.approx(sum(eager.parts(2**34).values()))
    assert server.asleep()["graphs"] == server.graphs > 0 == eager.asleep()["graphs"]


def test_the_cache_gets_what_is_left():
    server = Server(QWEN, 0.5, longest=2048)
    gpu = 24 * 2**30
    assert (
        server.token == 2 * 28 * 2 * 128 * 2
    )  # keys and values of 28 layers, 2 heads of 128, in bf16
    beside = server.activations + server.graphs + ON_GPU["workspaces"]
    assert server.room(gpu) == pytest.approx(12 * 2**30 - server.weights - beside)
    assert server.concurrent(gpu) == pytest.approx(server.room(gpu) / server.token / 2048)
    assert (
        dataclasses.replace(server, share=0.1).concurrent(gpu) == 0
    )  # 2.4 GiB don't hold 3 GB of weights
    both = dataclasses.replace(server, parallel=2)
    assert both.weights == server.weights / 2 and both.token == server.token / 2
    assert dataclasses.replace(server, parallel=4).token == both.token  # a head is never divided
