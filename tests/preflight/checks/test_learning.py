"""What preflight says of what would keep a run from learning, of settings that nobody reads, and of names of code."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from preflight_helpers import RL_ROW, all_checks, caught, each, noted, said_by

from preflight import estimators
from preflight.checks.unread import mapped

A = "actor_rollout_ref"
ACTOR, ROLLOUT = f"{A}.actor", f"{A}.rollout"
LORA = "lab.lora_rank=16"
MISTAKES = {
    "check_warmup": [
        (["algo=ppo", "trainer.critic_warmup=100", "trainer.total_training_steps=100"], "the policy would never learn"),
    ],
    "check_rate_warmup": [
        ([f"{ACTOR}.optim.lr_warmup_steps=50", "trainer.total_training_steps=50"], "the rate never comes up"),
        (["algo=sft", "optim.lr_warmup_steps=50", "trainer.total_training_steps=50"], "the rate never comes up"),
    ],
    "check_rollout_lengths": [
        ([f"{ROLLOUT}.prompt_length=16"], "set lab.dataset.max_prompt_length alone"),
        ([f"{ROLLOUT}.response_length=4096"], "set lab.dataset.max_response_length alone"),
    ],
    "check_strategies": [
        ([f"{ACTOR}.strategy=fsdp"], "verl reads the first one"),
        (["algo=sft", "engine.strategy=fsdp", "engine.offload_policy=true"], "only fsdp2 has it"),
    ],
    "check_of_estimator": [
        (["algorithm.gamma=0.9"], "algorithm.gamma does nothing: grpo doesn't read it."),
        (["algo=rloo", "algorithm.norm_adv_by_std_in_grpo=false"], "rloo doesn't read it"),
        ([f"{ACTOR}.tau_pos=2", "algorithm.lam=0.9"], "algorithm.lam does nothing: grpo"),
    ],
    "check_with": [
        ([f"{ACTOR}.optim.num_cycles=2"], "it is read with cosine"),
        ([f"{ACTOR}.loss_scale_factor=5"], "it is read with seq-mean-token-sum-norm"),
        ([f"{A}.hybrid_engine=false"], "it is read with separate_async"),
        ([f"{ROLLOUT}.val_kwargs.temperature=0", f"{ROLLOUT}.val_kwargs.top_k=50"], "takes the likeliest token"),
    ],
    "check_unread_words": [
        (["lab.model.rl_lr=1e-5", LORA], "lab.model.rl_lr does nothing in this run: lab.model.rl_lr_lora is read"),
        (["lab.model.rl_lr_lora=1e-5"], "lab.model.rl_lr is read (lab.lora_rank=0)"),
        (["lab.hw.sft_batch_size=16"], "lab.hw.sft_batch_size does nothing in this run"),
        (["lab.hw.samples_per_step=64", "data.train_batch_size=16"], "lab.hw.samples_per_step does nothing"),
    ],
    "check_code_files": [
        (["data.custom_cls.path=/nope.py", "data.custom_cls.name=Rows"], "no such file"),
        (["data.custom_cls.path=pkg://data_prep.convert", "data.custom_cls.name=Nope"], "Nope"),
        ([f"{ROLLOUT}.multi_turn.tool_config_path=/nope.yaml"], "no such file"),
    ],
    "check_classes": [
        ([f"{ROLLOUT}.agent.agent_loop_manager_class=plugins.rollout.nope.Manager"], "no module plugins.rollout.nope"),
        ([f"{ROLLOUT}.agent.agent_loop_manager_class=plugins.rollout.batched_rollout.Nope"], "has no Nope"),
        ([f"{A}.model.external_lib=nope_nope"], "no such module is installed"),
    ],
    "check_registered": [
        (["reward.reward_manager.source=register", "reward.reward_manager.name=dappo"], "Did you mean dapo?"),
        ([f"{ROLLOUT}.agent.default_agent_loop=tol_agent"], "Did you mean tool_agent?"),
    ],
    "check_optimizer": [
        ([f"{ACTOR}.optim.optimizer=adamw"], "Did you mean AdamW?"),
        (["algo=sft", "optim.optimizer_impl=nope.optim"], "no such module is installed"),
    ],
    "check_other_models": [
        (["algo=ppo", "critic.model.path=/nope"], "there is no config.json"),
        ([f"{A}.model.tokenizer_path=/nope"], "there is no tokenizer_config.json"),
    ],
    "check_target_modules": [
        ([LORA, f"{A}.model.target_modules=[]"], "names no layer"),
        ([LORA, f"{A}.model.target_modules=all_linear"], "write all-linear"),
        ([LORA, f"{A}.model.target_modules=[q_proj,v_prj]"], "Did you mean v_proj?"),
    ],
    "check_long_rows": [
        (["algo=sft", "data.max_length=1"], "none is left"),
    ],
}  # fmt: skip
GOOD = [
    ["algorithm.gamma=1.0", f"{ROLLOUT}.val_kwargs.top_k=-1", f"{ROLLOUT}.val_kwargs.temperature=0"],  # verl's own
    ["algo=ppo", "trainer.critic_warmup=5", "trainer.total_training_steps=100", "algorithm.gamma=0.9"],
    [LORA, "lab.model.rl_lr_lora=1e-5", f"{A}.model.target_modules=[q_proj,v_proj]"],
    [LORA, f"{A}.model.target_modules='.*(q|v)_proj'"],
    ["algo=sapo", f"{ACTOR}.tau_pos=2"],
    ["algo=sft", "lab.hw.sft_batch_size=16", "optim.lr_scheduler_type=cosine", "optim.num_cycles=0.4"],
    ["lab.hw.samples_per_step=64", "lab.seed=3", "lab.hw.tokens_per_gpu=9000", "lab.epochs=2"],
    [f"{ACTOR}.optim.optimizer=SGD", "data.custom_cls.path=pkg://data_prep.convert"],
    ["reward.reward_manager.source=register", "reward.reward_manager.name=dapo"],
]  # fmt: skip

test_each_mistake_is_found = each(MISTAKES)


@pytest.mark.parametrize("overrides", GOOD)
def test_good_settings_pass(configure, overrides):
    assert said_by(MISTAKES, configure(*overrides)) == {}


def test_a_rate_of_another_order_is_told(configure):
    assert "far from what is usual" in noted(
        "check_learning_rate", configure(f"{ACTOR}.optim.lr=0.5")
    )
    assert "far from what is usual" in noted(
        "check_learning_rate", configure("algo=sft", "optim.lr=1e-9")
    )
    assert "nothing is learned" in noted("check_learning_rate", configure(f"{ACTOR}.optim.lr=0"))
    for good in ([], ["algo=sft"], [LORA], ["algo=sft", LORA], [f"{ACTOR}.optim.lr=1e-6"]):
        assert all_checks()["check_learning_rate"](configure(*good)) is None


def test_an_upper_clip_that_clips_nothing_is_told(configure):
    assert "no ratio is ever clipped" in noted(
        "check_clip_high", configure(f"{ACTOR}.clip_ratio_high=28")
    )
    for good in (["algo=dapo"], ["algo=cispo"], [f"{ACTOR}.clip_ratio_high=0.4"]):
        assert all_checks()["check_clip_high"](configure(*good)) is None


def test_a_number_of_another_loss_is_told(configure):
    assert "vanilla doesn't read it" in noted("check_of_loss", configure(f"{ACTOR}.tau_pos=2"))
    assert all_checks()["check_of_loss"](configure("algo=sapo", f"{ACTOR}.tau_pos=2")) is None


def test_validation_on_the_training_rows_is_told(configure, data):
    config = configure(f"data.val_files={data}/train.parquet")
    assert "validated on" in noted("check_validation_rows", config)
    assert all_checks()["check_validation_rows"](configure()) is None


def test_every_word_that_is_mapped_is_read_by_some_trainer(configure):
    """Else it could never do anything."""
    from omegaconf import OmegaConf

    from preflight.checks.unread import changes

    configs = [configure(), configure("algo=sft"), configure(LORA), configure("algo=sft", LORA), configure("algo=ppo"),
               configure("algo=dpo"), configure("algo=prm"), configure("lab.hw.entropy_chunk=64")]  # fmt: skip
    dead = [
        key
        for key in sorted(mapped())
        if not any(OmegaConf.select(c, key) is None or changes(c, key) for c in configs)
    ]
    assert dead == []


def test_what_a_function_reads_is_seen_in_its_source(tmp_path, monkeypatch):
    assert estimators.mentions("compute_advantage", "gae", "gamma")
    assert estimators.mentions("compute_advantage", "grpo", "gamma") is False
    assert estimators.mentions("compute_policy_loss", "sapo", "tau_pos")
    assert estimators.mentions("compute_policy_loss", "nobody", "tau_pos") is None
    monkeypatch.setattr(estimators.algos, "FOLDER", tmp_path)
    (tmp_path / "mine.py").write_text(
        "def scale(x, config):\n    return x * config['gamma']\n\n\n"
        "def compute_advantage(token_level_rewards, response_mask, index, config, **_):\n    return scale(1, config)\n"
    )
    (tmp_path / "passes.py").write_text(
        "from far import away\n\n\n"
        "def compute_advantage(token_level_rewards, config, **_):\n    return away(token_level_rewards, config)\n"
    )
    assert estimators.mentions("compute_advantage", "mine", "gamma")
    assert estimators.mentions("compute_advantage", "mine", "lam") is False
    assert estimators.mentions("compute_advantage", "passes", "gamma") is None  # nobody knows


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("What is 1 + 1?", "prompt is text, and verl takes messages"),
        (
            [{"from": "human", "value": "hi"}],
            "(ShareGPT), and verl takes role and content. `python -m data_prep jsonl",
        ),
        ([], "prompt is empty"),
        ([{"role": "user", "content": ""}], "has no text"),
        ([{"role": "user"}], "a message without content"),
    ],
)
def test_prompts_that_are_no_messages(configure, tmp_path, prompt, text):
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([RL_ROW | {"prompt": prompt}] * 3), file)
    assert text in caught("check_messages", configure(f"data.train_files={file}"))


def test_a_class_of_ones_own_in_a_broken_file(configure, tmp_path):
    file = tmp_path / "rows.py"
    file.write_text("class Rows(:\n")
    config = configure(f"data.custom_cls.path={file}", "data.custom_cls.name=Rows")
    assert "rows.py, line 1: " in caught("check_code_files", config)


def test_a_file_without_rows(configure, tmp_path):
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([RL_ROW])[:0], file)
    assert "rows.parquet has no rows." in caught(
        "check_messages", configure(f"data.train_files={file}")
    )


def test_long_prompts_that_are_kept(configure, tmp_path):
    long = RL_ROW | {"prompt": [{"role": "user", "content": "a b c d e f " * 99}]}
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([RL_ROW, long] * 3), file)
    kept = configure(f"data.train_files={file}", "data.filter_overlong_prompts=false")
    assert "vLLM refuses them" in caught("check_long_rows", kept)
    assert "they are left out" in noted("check_long_rows", configure(f"data.train_files={file}"))
    pq.write_table(pa.Table.from_pylist([long] * 3), file)
    assert "none is left" in caught("check_long_rows", configure(f"data.train_files={file}"))


def test_the_first_answers_are_scored(configure, tmp_path):
    """What a run would find out at its first step."""

    def written(text: str) -> str:
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.py"
        file.write_text(text)
        return f"reward.custom_reward_function.path={file}"

    path = written("import nobody_has_this\n\n\ndef compute_score(**_):\n    return 1\n")
    assert "nobody_has_this" in caught("check_first_answers", configure(path))
    path = written(
        "def compute_score(data_source, solution_str, ground_truth, extra_info):\n    return answre\n"
    )
    assert "answre" in caught("check_first_answers", configure(path))
    path = written("def compute_score(**_):\n    return {'score': 1.0, 'acc': 1.0}\n")
    filtered = ["algo=dapo", path, "algorithm.filter_groups.metric=accuracy"]
    assert "the reward returns acc" in caught("check_first_answers", configure(*filtered))
    for good in ([path], [*filtered[:2], "algorithm.filter_groups.metric=acc"], ["reward=none"]):
        assert all_checks()["check_first_answers"](configure(*good)) is None
