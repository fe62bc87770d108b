"""The pass over all values of a config: types, unknown keys, words, ranges. And a fuzz over every key."""

import copy
import random

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from preflight_helpers import caught

from preflight import declared, names, values
from preflight.mistakes import Mistake
from preflight.preparation import Preparation

A = "actor_rollout_ref"
ACTOR, ROLLOUT = f"{A}.actor", f"{A}.rollout"
FSDP = f"{ACTOR}.fsdp_config"
MISTAKES = [  # overrides, and what the line has
    # a type
    (["lab.seed=abc"], "lab.seed=abc must be a whole number."),
    (["lab.loggers=null"], "lab.loggers=null must be"),
    (["trainer.critic_warmup=null"], "trainer.critic_warmup=null must be a whole number."),
    (["data.train_max_samples=abc"], "must be a whole number"),
    (["lab.hw.gradient_checkpointing=abc"], "gradient_checkpointing=abc must be true or false."),
    ([f"{ACTOR}.use_kl_loss=no"], "'no' is a word here, and a word counts as true."),
    (["algorithm.use_kl_in_reward=None"], "'None' is a word here"),
    (["algo=dapo", "algorithm.filter_groups.enable=off"], "must be true or false"),
    ([f"{ACTOR}.entropy_coeff=None"], "entropy_coeff=None must be a number."),
    (["data.train_batch_size=1e3"], "must be a whole number. Write 1000."),
    ([f"{ACTOR}.ppo_mini_batch_size=2.5"], "ppo_mini_batch_size=2.5 must be a whole number"),
    ([f"{ROLLOUT}.agent.num_workers=null"], "agent.num_workers=null must be a whole number."),
    (["trainer.nnodes=true"], "nnodes=true must be a whole number"),
    (["lab.hw.vllm_kwargs.kv_cache_memory_bytes=abc"], "must be a whole number"),
    ([f"{ROLLOUT}.max_model_len=None"], "must be a whole number, or null. Write null."),
    (["trainer.total_training_steps=1e300"], "too large"),
    (["lab.run_dir=null"], "lab.run_dir=null must be text."),
    # a group of settings
    (["trainer.v1=null"], "this is a group of settings; set one of them, as trainer.v1.NAME=VALUE."),
    (["lab.preflight=null"], "this is a group of settings"),
    (["critic=null"], "critic=null: this is a group of settings"),
    ([f"{ACTOR}.optim=null"], "this is a group of settings"),
    (["lab.seed={a: 1}"], "lab.seed must be a whole number, and not a group of settings."),
    (["algo=sft", "trainer.profile_interval=[1,a]"], "must be a list of numbers"),
    (["data.train_files=[1,a]"], "must be a list of words"),
    # one that is calculated from a key: that key is named
    (["lab.hw.attention=null"], "lab.hw.attention=null must be text."),
    (["lab.hw.attention=flash_attn2"], "unknown lab.hw.attention 'flash_attn2'. Did you mean flash_attention_2?"),
    (["critic.loss_agg_mode=token-mena"], "unknown critic.loss_agg_mode 'token-mena'. Did you mean token-mean?"),
    (["lab.model.chat_template=nope"], "lab.model.chat_template: no template nope: chatml, default, llama"),
    # a range
    (["data.train_batch_size=0"], "data.train_batch_size=0 must be 1 or more."),
    (["trainer.total_training_steps=-1"], "total_training_steps=-1 must be 1 or more."),
    ([f"{ACTOR}.optim.clip_grad=0"], "clip_grad=0 must be above 0."),
    (["algo=ppo", "critic.optim.clip_grad=0"], "critic.optim.clip_grad=0 must be above 0."),
    ([f"{ACTOR}.optim.lr=1e6"], "must be from 0 to 1"),
    ([f"{ACTOR}.optim.betas=[0.9,1.5]"], "betas=[0.9, 1.5] must be from 0 to below 1"),
    ([f"{ACTOR}.clip_ratio_low=-0.2"], "must be above 0, below 1."),
    ([f"{ACTOR}.clip_ratio_low=1.5"], "must be above 0, below 1."),
    ([f"{ACTOR}.kl_loss_coef=-0.1"], "must be 0 or more."),
    (["algorithm.kl_ctrl.kl_coef=-0.1"], "must be 0 or more."),
    (["lab.lora_rank=16", "lab.lora_alpha=-32"], "lora_alpha=-32 must be above 0."),
    (["algo=dr_grpo", f"{ACTOR}.loss_scale_factor=0"], "must be above 0."),
    (["lab.stall_timeout_s=0"], "lab.stall_timeout_s=0 must be above 0."),
    # a key that nobody has
    ([f"{ROLLOUT}.max_len=100"], f"unknown key '{ROLLOUT}.max_len'"),
    ([f"{A}.model.target_module=[q_proj]"], "Did you mean target_modules?"),
    ([f"{FSDP}.mixed_precision.param_dtyp=bf16"], "Did you mean param_dtype?"),
    (["algo=sft", "optim.warmup_steps=10"], "unknown key 'optim.warmup_steps'"),
    (["algorithm.filter_groups.enabel=true"], "Did you mean enable?"),
    (["lab.hw.vllm_kwargs.max_seqs=3"], "Did you mean max_num_seqs?"),
    (["lab.hw.tokens=3"], "unknown key 'lab.hw.tokens'"),
    ([f"{ACTOR}.optim.override_optimizer_config={{fusd: true}}"], "Did you mean fused?"),
]  # fmt: skip
GOOD = [
    ["lab.name=7", "lab.project=2026"],
    [f"{ROLLOUT}.max_model_len=null", "lab.reward_limits.memory_mib=null"],
    ["trainer.total_training_steps=3", f"{ACTOR}.entropy_coeff=0", f"{ACTOR}.optim.lr=1"],
    ["trainer.logger=console", f"{A}.model.target_modules=[q_proj]", f"{A}.model.target_modules=all-linear"],
    [f"{ROLLOUT}.top_k=-1", "trainer.test_freq=-1", "data.val_max_samples=-1", "lab.stall_timeout_s=90.5"],
    ["lab.hw.vllm_kwargs.enable_prefix_caching=false", "lab.hw.vllm_kwargs.max_num_seqs=3"],
    [f"{ACTOR}.optim.override_optimizer_config={{fused: true}}", f"{FSDP}.mixed_precision.param_dtype=bf16"],
    ["lab.hw.attention=kernels-community/flash-attn3"],
    ["algo=sft", "lab.dataset.sft_val=null"],
]  # fmt: skip
WRONG = {
    "null": None,
    "text": "abc",
    "-1": -1,
    "a group": {"a": 1},
    "huge": 10**30,
    "list": [1, "a"],
}


@pytest.mark.parametrize(("overrides", "text"), MISTAKES)
def test_each_wrong_value_is_told(configure, overrides, text):
    assert text in caught("check_values", configure(*overrides))


@pytest.mark.parametrize("overrides", GOOD)
def test_usable_values_are_taken(configure, overrides):
    assert values.faults(configure(*overrides)) == []


def test_a_number_is_text_where_text_is_meant(configure):
    config = configure("lab.project=2026")
    assert values.faults(config) == []
    assert config.lab.project == config.trainer.project_name == "2026"


def test_a_group_that_was_replaced_is_told(configure):
    config = configure()
    OmegaConf.set_struct(config, False)
    config.transfer_queue.backend = {"a": 1}
    (line,) = [one for one in values.faults(config) if "has lost" in one]
    assert line.startswith("transfer_queue.backend has lost storage_backend, SimpleStorage")


def test_all_wrong_values_are_told_at_once(configure):
    wrong = [
        "lab.seed=a",
        "trainer.nnodes=b",
        "trainer.critic_warmup=c",
        f"{ROLLOUT}.n=d",
        f"{ROLLOUT}.top_k=e",
    ]
    line = values.listed(values.faults(configure(*wrong)))
    assert len(line.splitlines()) == 3
    assert all(override.partition("=")[0] in line for override in wrong)


@pytest.mark.parametrize("algo", sorted(names.groups()["algo"]))
def test_no_file_of_the_project_has_a_wrong_value(composer, algo):
    assert values.faults(composer(f"algo={algo}")) == []


@pytest.mark.parametrize(
    "group",
    [
        "dataset",
        "reward",
        "experiment",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("hw", "model")),
    ],
)
def test_no_choice_has_a_wrong_value(composer, group):
    for name in names.groups()[group]:
        overrides = [f"{group}={name}"]
        if name == "format":
            overrides.append("lab.reward.pattern=x")
        assert values.faults(composer(*overrides)) == [], name


def test_what_verl_declares_is_read_from_its_source():
    """A new verl that declares otherwise must not make the pass blind."""
    actor, optimizer = declared.fields("FSDPActorConfig"), declared.fields("FSDPOptimizerConfig")
    assert actor["use_kl_loss"].kinds == {"bool"}
    assert actor["ppo_micro_batch_size_per_gpu"].kinds == {"int", "null"}
    assert actor["fsdp_config"].of == "FSDPEngineConfig"
    assert optimizer["betas"].kinds == {"list"}
    assert optimizer["lr"].kinds == {"float"}


def keys_of(config) -> list[str]:
    return [place.path for place in declared.places(config, True)]


@pytest.mark.parametrize(
    ("trainer", "share"),
    [
        ("algo=ppo", 0.06),
        *(pytest.param(algo, 1, marks=pytest.mark.slow) for algo in ("algo=ppo", "algo=sft")),
    ],
)
def test_no_value_of_any_key_gives_a_traceback(composer, data, tiny_model, trainer, share):
    """A share of the keys, each with one of the wrong values; the seed says which."""
    base = composer(
        trainer, f"lab.dataset.dir={data}", f"lab.model.path={tiny_model}", "reward=none"
    )
    draw = random.Random(0)
    tracebacks = []
    for path in keys_of(base):
        word, value = draw.choice(list(WRONG.items()))
        if draw.random() > share or path.startswith(
            "lab.trainer."
        ):  # what a trainer is, and no setting
            continue
        config = copy.deepcopy(base)
        OmegaConf.set_struct(config, False)
        parent, _, key = path.rpartition(".")
        try:
            (OmegaConf.select(config, parent) if parent else config)[key] = value
            Preparation(config).refuse()
        except (Mistake, OmegaConfBaseException):
            pass
        except Exception as error:
            tracebacks.append(f"{path}={word}: {type(error).__name__}: {error}")
    assert tracebacks == []
