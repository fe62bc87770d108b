"""Plans of composed configs: what fits, what is refused with which cure, what lab.plan=auto chooses; estimates."""

import copy
import re
from collections import namedtuple

import pytest
from omegaconf import OmegaConf

from preflight import names
from preflight.checks import memory as memory_check
from preflight.checks.memory import check_plan
from preflight.facts import is_rl
from preflight.memory import fit
from preflight.memory.plan import NAMES, amount, plan_of, table, trainer_bytes
from preflight.memory.sizes import setup_of
from preflight.memory.step_time import estimate
from preflight.memory.training import GIB
from preflight.preparation import Preparation

GPU = sorted(set(names.groups()["hw"]) - {"auto", "cpu", "cpu_x2"})
LONG = {"data.max_prompt_length": 2048, "data.max_response_length": 1024}


@pytest.fixture(scope="module")
def grpo(composer):
    """The mission's own line."""
    return composer("algo=grpo", "hw=rtx4070", "reward=sql")


def forecast(config):
    """What is expected of the run; lab.plan=auto chooses."""
    return Preparation(config).expected


def check_fit(config):
    """What the check says of a config that is prepared."""
    return memory_check.check_fit(config, forecast(config))


def check_checkpoint_space(config):
    return memory_check.check_checkpoint_space(config, forecast(config))


def changed(config, **values):
    """A copy with other values; `__` stands for a dot."""
    config = copy.deepcopy(config)
    for key, value in values.items():
        OmegaConf.update(config, key.replace("__", "."), value, force_add=True)
    return config


def test_the_missions_line_fits_into_12_gb(grpo):
    found = plan_of(grpo)
    assert found.gpu < 12 * GIB and found.fits
    assert set(found.phases) == {
        "rollout",
        "log-probs",
        "update",
        "weight sync",
    }  # LoRA: the reference is the actor
    assert check_fit(grpo) is None


@pytest.mark.parametrize("hw", GPU)
def test_each_profile_fits_its_own_model(composer, hw):
    """With short sequences, and with Spider's."""
    config = composer("algo=grpo", f"hw={hw}")
    assert plan_of(config).fits
    for key, value in LONG.items():
        OmegaConf.update(config, key, value)
    found = plan_of(config)
    assert found.fits and found.concurrent > 8


def test_more_nodes_share_the_weights(grpo, composer):
    one, four = (setup_of(composer("hw=h100x8", f"lab.hw.nodes={n}")) for n in (1, 4))
    assert four.actor.shards == 32 and one.actor.stored == 4 * four.actor.stored


def test_sums_and_columns(grpo):
    for config in (grpo, changed(grpo, lab__lora_rank=0)):
        found = plan_of(config)
        for parts in found.phases.values():
            assert sum(amount(parts, name) for name in NAMES) == pytest.approx(sum(parts.values()))
        text = table(found)
        assert f"{found.peak / GIB:.2f}" in text and "KV cache holds" in text
        assert trainer_bytes(found) < found.peak
    assert "DOES NOT FIT" in table(plan_of(changed(grpo, lab__hw__memory_gib=6)))


PARTS = {  # overrides → phases that it has
    ("algo=grpo", "hw=a100"): {"rollout", "log-probs", "reference", "update", "weight sync"},
    ("algo=ppo", "hw=a100"): {"rollout", "log-probs", "reference", "values", "critic update", "update", "weight sync"},
    ("algo=dapo", "hw=a100"): {"rollout", "log-probs", "update", "weight sync"},
    ("algo=sft", "hw=a100"): {"update"},
    ("algo=dpo", "hw=a100"): {"update", "reference"},
    ("algo=dpo", "hw=rtx4070"): {"update"},
    ("algo=rm", "hw=a100"): {"update"},
    ("algo=self_play", "hw=a100"): {"rollout", "log-probs", "update", "weight sync"},
    ("algo=grpo", "hw=cpu"): {"update", "log-probs"},
}  # fmt: skip


@pytest.mark.parametrize("overrides", PARTS)
def test_phases_of_each_kind_of_run(composer, tiny_model, overrides):
    path = [f"lab.model.path={tiny_model}"] if "hw=cpu" in overrides else []
    found = plan_of(composer(*overrides, *path))
    assert set(found.phases) == PARTS[overrides] and found.fits


def test_a_reward_model_that_takes_turns(composer, tmp_path):
    model = "Qwen/Qwen2.5-1.5B-Instruct"
    config = composer(
        "hw=a100", "reward=model", f"lab.reward_model.path={model}", "lab.reward_model.gpus=0"
    )
    assert "reward model" in plan_of(config).phases
    own = composer(
        "hw=a100", "reward=model", f"lab.reward_model.path={model}", "lab.reward_model.gpus=1"
    )
    assert "reward model" not in plan_of(own).phases


def cure(line: str) -> list[str]:
    """The overrides that a refusal names."""
    return re.search(r"It fits with: (.*) \(lab.plan=auto", line)[1].split()


REFUSED = {
    ("hw=a100", "model=qwen2_5_7b"): "lab.lora_rank=32",
    ("hw=rtx4070", "lab.hw.tokens_per_gpu=16384"): "lab.hw.tokens_per_gpu=",
    ("hw=a100", "lab.hw.rollout_memory=0.95"): "lab.hw.rollout_memory=",
    (
        "hw=rtx4090",
        "lab.lora_rank=0",
        "lab.hw.weights_dtype=fp32",
        "lab.hw.optimizer_offload=false",
    ): "lora_rank=32",
    ("hw=h100x8", "lab.hw.rollout_memory=0.15"): "lab.hw.rollout_memory=",
}


@pytest.mark.parametrize("overrides", REFUSED)
def test_a_run_that_does_not_fit_is_refused_with_a_cure_that_helps(composer, overrides):
    line = check_fit(composer(*overrides))
    assert "\n" not in line and REFUSED[overrides] in line
    again = {o.split("=")[0] for o in cure(line)}
    kept = [o for o in overrides if o.split("=")[0] not in again]
    assert check_fit(composer(*kept, *cure(line))) is None


def test_nothing_helps_but_a_smaller_model(composer):
    config = composer("hw=rtx4070", "model=qwen2_5_7b")
    before = OmegaConf.to_yaml(config)
    line = check_fit(config)
    smaller = re.search(r"model=(\w+)", line)[1]
    assert "No setting makes it fit" in line
    assert OmegaConf.to_yaml(config) == before  # looking for a cure left it as it was
    assert check_fit(composer("hw=rtx4070", f"model={smaller}")) is None
    assert smaller == "qwen2_5_1_5b"  # of its family, not the largest of all
    coder = check_fit(composer("hw=rtx4070", "model=qwen2_5_coder_7b"))
    assert "model=qwen2_5_coder_1_5b would" in coder


def test_a_round_is_no_step(composer, tiny_model):
    """A round is many steps and the starts of its parts: no time of a step stands for it."""
    model = f"lab.model.path={tiny_model}"
    rounds = forecast(composer("algo=self_play", "hw=cpu", model))
    assert set(rounds.figures()) == {"machine_gib"} and "a step" not in rounds.text()
    assert set(forecast(composer("hw=cpu", model)).figures()) == {"machine_gib", "step_s"}


def test_switched_off_or_unknown(grpo):
    tight = changed(grpo, lab__hw__memory_gib=6)
    assert check_fit(tight) and check_fit(changed(tight, lab__plan="off")) is None
    assert forecast(changed(tight, lab__plan="off")).figures() == {}
    stranger = changed(grpo, lab__model__path="some/model")
    assert check_fit(stranger) is None and check_checkpoint_space(stranger) is None
    assert forecast(stranger).text().startswith("no plan: nothing is known of some/model")
    assert (
        "Did you mean auto?" in check_plan(changed(grpo, lab__plan="autos"))
        and check_plan(grpo) is None
    )


AUTO = {
    ("hw=rtx4070",): {"lab.lora_rank": 32, "lab.hw.optimizer_offload": False},
    ("hw=a100", "model=qwen2_5_7b"): {"lab.lora_rank": 32},
    ("hw=l40s", "model=qwen2_5_7b"): {"lab.lora_rank": 32, "lab.hw.weights_dtype": "bf16"},
    ("hw=l40s", "model=qwen2_5_7b", "lab.lora_rank=8"): {
        "lab.lora_rank": 8,
        "lab.hw.weights_dtype": "bf16",
    },
    ("hw=a100_40g", "dataset=spider"): {"lab.lora_rank": 0},
    ("hw=h100x8", "dataset=spider"): {"lab.lora_rank": 0, "lab.hw.param_offload": False},
    ("algo=sft", "hw=a10g", "model=qwen3_4b"): {"lab.lora_rank": 32},
    ("algo=dpo", "hw=h100", "model=qwen3_1_7b"): {"lab.lora_rank": 0},
}


@pytest.mark.parametrize("overrides", AUTO)
def test_auto_chooses_what_fits_and_no_less(composer, overrides):
    config = composer(*overrides, "lab.plan=auto")
    found = forecast(config)
    assert found.plan.fits and memory_check.check_fit(config, found) is None
    for key, value in AUTO[overrides].items():
        assert OmegaConf.select(config, key) == value
    for what, why in found.chosen.items():  # what it wrote is what it set
        key, _, value = what.partition("=")
        assert str(OmegaConf.select(config, key)) == value and why and what in found.text()
    tokens = config.lab.hw.tokens_per_gpu
    if "don't fit" in found.chosen[f"lab.hw.tokens_per_gpu={tokens}"]:
        more = changed(config, lab__hw__tokens_per_gpu=2 * tokens)
        assert fit.best_share(more) is None
    else:
        assert tokens == min(fit.tokens_of_update(config), fit.MOST)
    if is_rl(config) and config.lab.hw.rollout_memory < max(fit.SHARES):
        assert not plan_of(
            changed(config, lab__hw__rollout_memory=config.lab.hw.rollout_memory + 0.05)
        ).fits


def test_auto_leaves_what_the_command_line_says(composer):
    said = [
        "lab.hw.tokens_per_gpu=3000",
        "lab.hw.rollout_memory=0.3",
        "lab.hw.optimizer_offload=true",
        "lab.lora_rank=8",
    ]
    config = composer("hw=rtx4070", "lab.plan=auto", *said)
    chosen = forecast(config).chosen
    assert set(chosen) == {"lab.hw.param_offload=False"}
    for override in said:
        key, _, value = override.partition("=")
        assert str(OmegaConf.select(config, key)).lower() == value


def test_auto_where_nothing_fits_changes_nothing(composer):
    config = composer("hw=rtx4070", "model=qwen2_5_7b", "lab.plan=auto")
    before = OmegaConf.to_yaml(config)
    assert forecast(config).chosen == {} and OmegaConf.to_yaml(config) == before
    assert "No setting makes it fit" in check_fit(config)


def test_room_for_checkpoints(composer, monkeypatch):
    config = composer(
        "algo=ppo", "hw=a100", "trainer.total_training_steps=100", "trainer.save_freq=20"
    )
    usage = namedtuple("usage", "total used free")

    def disk(free):
        monkeypatch.setattr(memory_check.shutil, "disk_usage", lambda path: usage(0, 0, free))
        return check_checkpoint_space

    line = disk(0)(config)
    need = int(re.search(r"take (\d+) GiB", line)[1])
    # two that stay and one more; weights (the actor's also for transformers) and two moments, in fp32
    parameters = setup_of(config).actor.shape.parameters()
    assert (
        need == pytest.approx(3 * (16 + 12) * parameters / GIB, rel=0.05)
        and "trainer.save_freq=-1" in line
    )
    assert disk((need + 1) * GIB)(config) is None
    last = changed(config, trainer__save_freq=-1)
    assert disk(need / 2 * GIB)(last) is None
    sft = composer("algo=sft", "hw=a100")
    assert "trainer.max_ckpt_to_keep=1" in disk(0)(sft) and disk(200 * GIB)(sft) is None


def test_decoding_has_a_floor_that_graphs_lower(composer):
    """A small model is read within a millisecond; what else a step of decoding takes is the same on any GPU."""

    def rollout_s(*overrides):
        config = composer("hw=rtx4090", "lab.hw.memory_gb_s=100000", *overrides)
        return estimate(setup_of(config), config, plan_of(config).concurrent).phases["rollout"]

    graphs, adapter = rollout_s(), rollout_s("lab.hw.enforce_eager=true")
    eager = rollout_s("lab.hw.enforce_eager=true", "lab.lora_rank=0")
    assert graphs < eager < adapter
    assert rollout_s("lab.lora_rank=0") == pytest.approx(graphs, rel=0.1)


def test_estimates(grpo, composer, tiny_model):
    def of(config):
        found = plan_of(config)
        return estimate(setup_of(config), config, found.concurrent)

    once, twice = of(grpo), of(changed(grpo, lab__hw__samples_per_step=256))
    assert 1.5 < (twice.step_s - once.phases["rest"]) / (once.step_s - once.phases["rest"]) < 2.5
    assert set(once.phases) == {"rollout", "log-probs", "reference", "update", "rest"}
    assert "of the data sheet's" in once.assumed
    assert of(changed(grpo, lab__hw__bf16_tflops=None)) is None
    flash, ten_times = composer("hw=h100"), composer("hw=h100", "lab.hw.bf16_tflops=9890")
    assert of(ten_times).phases["update"] == pytest.approx(of(flash).phases["update"] / 10)
    cpu = of(composer("hw=cpu", f"lab.model.path={tiny_model}"))
    assert "measured" in cpu.assumed and 0.5 < cpu.step_s < 60
    assert set(of(composer("algo=sft", "hw=a100")).phases) == {"update", "rest"}
