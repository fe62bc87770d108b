"""`launch.py --from-script`: scripts in the ways of several releases of verl, as this project's commands."""

import pytest
from helpers import ROOT

from preflight import names, resolvers, scripts
from preflight.mistakes import Mistake

pytestmark = pytest.mark.usefixtures("own_hydra")

A, R, F = (f"actor_rollout_ref.{part}" for part in ("actor", "rollout", "ref"))
OLD = f"""
set -x
export NCCL_DEBUG=WARN
python3 -m verl.trainer.main_ppo \\
    algorithm.adv_estimator=gae \\
    data.train_files=$HOME/data/gsm8k/train.parquet data.val_files=$HOME/data/gsm8k/test.parquet \\
    data.train_batch_size=256 data.max_prompt_length=512 data.max_response_length=512 data.truncation='error' \\
    data.return_raw_chat=True actor_rollout_ref.model.path=Qwen/Qwen2.5-7B-Instruct \\
    critic.model.path=Qwen/Qwen2.5-7B-Instruct critic.model.fsdp_config.param_offload=True \\
    {A}.optim.lr=2e-6 {A}.ppo_mini_batch_size=64 {A}.ppo_micro_batch_size_per_gpu=4 \\
    {A}.fsdp_config.param_offload=False {F}.fsdp_config.param_offload=True \\
    {R}.name=sglang {R}.n=1 {R}.tensor_model_parallel_size=2 \\
    custom_reward_function.path=mine.py +custom_reward_function.reward_kwargs.bonus=0.5 \\
    trainer.use_legacy_worker_impl=auto trainer.logger=['console','wandb'] trainer.experiment_name=a_$(date +%s) \\
    trainer.n_gpus_per_node=8 trainer.nnodes=2 trainer.total_epochs=3 trainer.default_local_dir=ckpt $@
"""
NEW = f"""
MODEL_PATH=${{MODEL_PATH:-Qwen/Qwen3-8B}}
DEVICE=$(python3 -c 'import torch_npu' 2>/dev/null && echo npu || echo gpu)
case "$DEVICE" in
    gpu) N=8 ;;
    *) exit 1 ;;
esac
DATA=(
    algorithm.adv_estimator=grpo
    data.train_files="['$HOME/data/gsm8k/train.parquet', '$HOME/data/math/train.parquet']"
    data.train_batch_size=${{BATCH:-512}}
)
MODEL=(actor_rollout_ref.model.path="$MODEL_PATH")
ACTOR=(
    {A}.policy_loss.loss_mode=gspo {A}.clip_ratio_low=3e-4
    {A}.use_dynamic_bsz=True {A}.ppo_max_token_len_per_gpu=20000
)
LAUNCH=(python3)
if [ "${{VERL_USE_UV:-1}}" != 0 ]; then
    uv sync --frozen
    LAUNCH=(uv run python3)
fi
"${{LAUNCH[@]}}" -m verl.trainer.main_ppo "${{DATA[@]}}" "${{MODEL[@]}}" "${{ACTOR[@]}}" {R}.n=4 \\
    trainer.n_gpus_per_node=$N trainer.balance_batch=True "$@"
"""
SFT = """
if [ "$#" -lt 2 ]; then echo usage; exit 1; fi
torchrun --nnodes=1 --nproc_per_node=$1 -m verl.trainer.fsdp_sft_trainer \\
    data.train_files=train.parquet data.response_key=answer data.multiturn.messages_key=chat \\
    data.micro_batch_size_per_gpu=4 model.partial_pretrain=Qwen/Qwen2.5-0.5B-Instruct optim.lr=1e-5 engine=fsdp \\
    model.lora_rank=8 ulysses_sequence_parallel_size=2 trainer.total_epochs=2
"""


@pytest.fixture
def one(monkeypatch):
    """The one start of verl in a script, translated. No variable of this shell counts but HOME."""
    for variable in ("MODEL_PATH", "BATCH", "VERL_USE_UV"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    resolvers.register()

    def translated(text: str, *more: str) -> scripts.Translation:
        (found,) = scripts.translate(text, list(more))
        return found

    return translated


def test_a_script_of_an_old_release(one):
    found = one(OLD)
    words, told = set(found.words), "\n".join(found.told)
    assert {
        "algo=ppo",
        "model=qwen2_5_7b",
        "hw=h100x8",
        "dataset=gsm8k",
        "reward=none",
        "logger=wandb",
    } <= words
    assert {"lab.dataset.train=/home/me/data/gsm8k/train.parquet", "lab.hw.nodes=2", "lab.hw.tensor_parallel=2",
            "lab.epochs=3", "lab.name=a", "++lab.reward.bonus=0.5", f"{A}.optim.lr=2e-6",
            "reward.custom_reward_function.path=mine.py"} <= words  # fmt: skip
    # one key of the profile stands for three of verl's: those that differ are said
    assert {"critic.fsdp.param_offload=True", f"{F}.fsdp_config.param_offload=True"} <= words
    assert not [
        word
        for word in words
        if word.startswith(("lab.hw.param_offload", "critic.model", "data.truncation"))
    ]
    for line in ("critic.model.fsdp_config.param_offload → critic.fsdp.param_offload: its name now",
                 "trainer.use_legacy_worker_impl: verl 0.9.1 has it no more", f"{R}.name=sglang: this project has vllm",
                 f"{A}.ppo_micro_batch_size_per_gpu: batches are dynamic", "trainer.default_local_dir: the run's own",
                 "trainer.experiment_name: a program makes a part of it", "variables of the script: NCCL_DEBUG",
                 "algo=ppo sets what the script leaves out; verl's own values: algorithm.lam=1.0"):  # fmt: skip
        assert line in told


def test_the_command_means_what_the_script_means(one, composer):
    config = names.composed(one(OLD).words)
    actor, ref = config.actor_rollout_ref.actor, config.actor_rollout_ref.ref
    assert (actor.fsdp_config.param_offload, ref.fsdp_config.param_offload) == (False, True)
    assert (config.data.train_batch_size, actor.ppo_mini_batch_size, config.trainer.nnodes) == (
        256,
        64,
        2,
    )
    assert (
        config.critic.model.path
        == config.actor_rollout_ref.model.path
        == "Qwen/Qwen2.5-7B-Instruct"
    )
    config = names.composed(one(NEW).words)
    assert config.actor_rollout_ref.actor.ppo_max_token_len_per_gpu == 20000
    # the batch follows from the number of answers, if nobody says it
    assert (config.data.train_batch_size, config.actor_rollout_ref.rollout.n) == (512, 4)


def test_a_script_of_arrays(one):
    found = one(NEW)
    assert {"algo=gspo", "model=qwen3_8b", "hw=h100x8"} <= set(found.words)
    assert (
        "data.train_files=[/home/me/data/gsm8k/train.parquet,/home/me/data/math/train.parquet]"
        in found.words
    )
    assert not [word for word in found.words if "balance" in word or "loss_mode" in word]
    assert "balance" not in "\n".join(found.told)


def test_what_follows_from_another_key_is_not_repeated(one):
    again = f"{R}.log_prob_max_token_len_per_gpu=20000 {F}.log_prob_max_token_len_per_gpu=20000"
    found = one(NEW.replace("trainer.balance_batch=True", again))
    assert found.words == one(NEW).words and "lab.hw.tokens_per_gpu=20000" in found.words


def test_a_script_of_sft(one):
    found = one(SFT)
    assert {"algo=sft", "model=qwen2_5_0_5b", "hw=h100x8", "lab.lora_rank=8", "lab.epochs=2",
            "data.messages_key=chat",
            "engine.ulysses_sequence_parallel_size=2",
            "lab.dataset.sft_train=train.parquet"} <= set(found.words)  # fmt: skip
    assert [
        line
        for line in found.told
        if line.startswith("data.response_key: verl 0.9.1 has it no more: SFT reads")
    ]


def test_words_behind_the_file_win(one, monkeypatch):
    found = one(NEW, "hw=h200", "model=qwen3_1_7b", "lab.seed=3", f"{R}.n=6")
    assert {"hw=h200", "model=qwen3_1_7b", "lab.seed=3", f"{R}.n=6"} <= set(found.words)
    assert len([word for word in found.words if word.startswith(("hw=", "model=", f"{R}.n="))]) == 3
    monkeypatch.setenv("MODEL_PATH", "some/Model")
    assert "lab.model.path=some/Model" in one(NEW).words


def test_what_is_printed_is_a_script_again(one, tmp_path):
    text = str(one(NEW))
    again = scripts.Script(text).commands
    assert [command.words for command in again] == [["python", "launch.py", *one(NEW).words]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo hello", "no command of the script starts a trainer"),
        ("if [ a", "line 1 is no shell"),
    ],
)
def test_what_can_not_be_translated(text, said):
    with pytest.raises(Mistake, match=said):
        scripts.translate(text, [])


def test_parts_that_have_no_equivalent_are_told(one):
    text = f"python3 -m verl.trainer.main_ppo {A}.strategy=megatron {A}.megatron.tensor_model_parallel_size=2"
    told = "\n".join(
        one(f"{text} engine=veomni actor_rollout_ref.rollout.nonsense=1 trainer.device=npu").told
    )
    for line in ("Megatron has no equivalent", "engine=veomni chooses a part",
                 "rollout.nonsense: verl 0.9.1 has no such", "trainer.device=npu: this project has cuda"):  # fmt: skip
        assert line in told


def test_every_algorithm_is_found_by_its_own_keys(one):
    """Of the config that an option makes; who reads no option of its own, as two names of one thing, may be either."""
    for name in (
        "grpo",
        "dapo",
        "dr_grpo",
        "cispo",
        "rloo",
        "remax",
        "gmpo",
        "reinforce_pp",
        "gpg",
        "ppo",
        "kl_cov",
    ):
        keys = {key: value for key, value in scripts.settings("algo", name).items()
                if not key.startswith("lab.") and "${" not in str(value)}  # fmt: skip
        text = " ".join(
            f"'{key}={scripts.written(value)}'"
            for key, value in keys.items()
            if not isinstance(value, list)
        )
        assert f"algo={name}" in one(f"python3 -m verl.trainer.main_ppo {text}").words


def test_a_file_or_standard_input(tmp_path, monkeypatch, capsys):
    file = tmp_path / "run.sh"
    file.write_text(SFT)
    assert "algo=sft" in scripts.show(["--from-script", str(file)])
    assert "hw=h200x8" in scripts.show([f"--from-script={file}", "hw=h200x8"])
    with pytest.raises(Mistake, match="needs a file"):
        scripts.show(["--from-script"])
    with pytest.raises(Mistake, match="No such file"):
        scripts.show(["--from-script", str(ROOT / "nothing.sh")])
