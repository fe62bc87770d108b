"""Every check finds its mistake, says what to do in a line, and has nothing to say about a good config."""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import test_batch as batch
import test_machine as machine
import test_settings as settings
from helpers import ROOT
from preflight_helpers import RL_ROW, all_checks

from preflight import names
from preflight.checks import DEFAULT, Note, complaints, findings, refuse
from preflight.mistakes import Mistake


@pytest.mark.parametrize("algo", names.groups()["algo"])
def test_a_good_config_passes(said, algo):
    assert said(f"algo={algo}") == []
    assert said(f"algo={algo}", "lab.hw.gpus_per_node=2") == []


LOSS = "actor_rollout_ref.actor"
ROLLOUT = "actor_rollout_ref.rollout"
# check → cases: overrides, and what the line must say
MISTAKES = {
    "check_estimator": [(["algorithm.adv_estimator=grop"], "Did you mean grpo? There is: ")],
    "check_options": [
        (["algo=grpo_weighted", "+algorithm.grpo_weighted.wight=1"], "weight? There is: weight."),
        (["algo=grpo_weighted", "algorithm.grpo_weighted.weight=all"], "the default is 0.5"),
        (["+algorithm.grpo_weighted.weight=1"], "does nothing: algorithm.adv_estimator is grpo"),
        (["algorithm.adv_estimator=grpo_token", "+algorithm.grpo_token.x=1"], "There is: none."),
        (["algorithm.adv_estimator=grpo_weighted", "+algorithm.grpo_weighted=1"], "stand below it"),
    ],
    "check_policy_loss": [([f"{LOSS}.policy_loss.loss_mode=gpso"], "Did you mean gspo?")],
    "check_ignored_keys": [
        (["custom_reward_function.path=x.py"], "Use reward.custom_reward_function.*")
    ],
    "check_unknown_keys": [
        (["+trainer.tst_freq=3"], "unknown key 'trainer.tst_freq'"),
        (["+algorithm.grpo_wieghted.weight=1"], "Did you mean grpo"),
        (["+tainer.test_freq=3"], "Did you mean trainer?"),
        (["algo=sft", "+data.max_lenght=3"], "Did you mean max_length?"),
    ],
    "check_skip": [
        (
            ["lab.preflight.skip=[gpuz]"],
            "unknown check 'gpuz' in lab.preflight.skip. Did you mean gpus?",
        ),
        (["lab.preflight.skip=check_ksip"], "Did you mean skip?"),
    ],
    "check_kl": [
        (["algo=gspo", f"{LOSS}.kl_loss_coef=0.01"], "actor.use_kl_loss=true as well"),
        (
            ["algo=gspo", f"{LOSS}.kl_loss_coef=0.001"],
            "does nothing",
        ),  # verl's default, but asked for
        (["algorithm.kl_ctrl.kl_coef=0.005"], "algorithm.use_kl_in_reward=true as well"),
    ],
    "check_group": [
        ([f"{ROLLOUT}.n=1"], "compares the answers to a prompt"),
        ([f"{ROLLOUT}.temperature=0"], "nothing could be learned"),
        ([f"{ROLLOUT}.val_kwargs.n=4"], "samples the same answer again"),
    ],
    "check_clip": [([f"{LOSS}.clip_ratio=0.3"], "clip_ratio_low and")],
    "check_lora": [(["lab.lora_alpha=32"], "does nothing with lab.lora_rank=0")],
    "check_reward_of_sft": [(["algo=sft", "reward=sql"], "scores nothing")],
    "check_data_files": [(["lab.dataset.dir=/nowhere"], "`make data D=sql_demo` makes it")],
    "check_model": [
        (["lab.model.path=/nowhere/model"], "no model at /nowhere/model"),
        (["lab.model.path=/tmp"], "no Hugging Face model"),
    ],
    "check_reward_function": [
        (["reward.custom_reward_function.path=/nowhere.py"], "no reward file /nowhere.py"),
        (["reward.custom_reward_function.path=pkg://rewards.sqll"], "Did you mean sql?"),
    ],
    "check_keep_best": [(["lab.keep_best=true", "trainer.save_freq=-1"], "leaves the last alone")],
    "check_limits": [
        (["lab.reward_limits.processes=0"], "must be a number above 0"),
        (["lab.reward_limits.timeout_s=null"], "timeout_s=None must be"),
    ],
    "check_loggers": [(["logger=trackio"], "pip install trackio")],
    "check_gpus": [(["hw=rtx4070"], "hw=cpu runs anywhere")],
    "check_flash_attention": [(["hw=h100x8"], "lab.hw.attention=sdpa")],
    "check_one_node": [(["algo=sft", "trainer.nnodes=2"], "runs on one node")],
}
ELSEWHERE = (batch.MISTAKES, settings.MISTAKES, machine.MISTAKES)
OTHERWISE = {
    "check_disk", "check_packages", "check_rows",  # tests of their own below
    "check_counts", "check_adapter",  # test_preflight_settings.py
    "check_versions", "check_open_files", "check_shared_memory", "check_loopback", "check_columns", "check_data_source",
    "check_chat_template", "check_architecture",  # test_preflight_machine.py
    "check_lengths_of_rows", "check_turns", "check_reward", "check_verls_verdict",  # test_preflight_slow.py
    "check_plan", "check_fit", "check_checkpoint_space",  # test_preflight_plan.py
    "check_algo_files",  # test_plugins_algos.py
    "check_needs", "check_greedy_baseline", "check_manager",  # test_conf_algo.py
    "check_reward_model", "check_steps_are_used", "check_gpus_of_reward_model",  # test_preflight_reward_model.py
    "check_dpo", "check_rm", "check_unread_data_keys", "check_kind_of_rows", "check_items_fit", "check_start",
    # test_preflight_preference.py
    "check_self_play",  # test_algos_self_play.py
    "check_reward_options",  # test_preflight_reward_options.py, test_preflight_judge.py
}  # fmt: skip
CASES = [(name, *case) for name, cases in MISTAKES.items() for case in cases]


def test_every_check_is_tested():
    assert set(all_checks()) == set(MISTAKES).union(*ELSEWHERE) | OTHERWISE


def test_no_two_checks_have_one_name():
    """`lab.preflight.skip` goes by the name."""
    sources = [path.read_text() for path in (ROOT / "preflight").glob("*_*.py")]
    names = re.findall(r"^def (check_\w+)", "\n".join(sources), re.MULTILINE)
    assert sorted(names) == sorted(set(all_checks()))


@pytest.mark.parametrize(("name", "overrides", "text"), CASES)
def test_each_mistake_is_found(configure, name, overrides, text):
    if name in ("check_gpus", "check_flash_attention") and shutil.which("nvidia-smi"):
        pytest.skip("this machine has a GPU")
    line = all_checks()[name](configure(*overrides))
    assert line is not None and text in line
    assert "\n" not in line


def test_another_verl(configure, monkeypatch):
    from preflight.checks import machine

    monkeypatch.setattr(machine, "VERL", "0.8.0")
    assert "the files in conf/trainer are for 0.8.0" in machine.check_packages(configure())


def test_a_reward_file_is_checked_without_running_it(said, tmp_path):
    reward = tmp_path / "mine.py"
    reward.write_text("raise SystemExit('ran')\ndef compute_scores(**_): return 1\n")
    key = "reward.custom_reward_function"
    assert "Did you mean compute_scores?" in said(f"{key}.path={reward}")[0]
    assert said(f"{key}.path={reward}", f"{key}.name=compute_scores") == []
    reward.write_text("def compute_score(**_)\n    return 1\n")
    assert "mine.py, line 1: expected ':'" in said(f"{key}.path={reward}")[0]


def test_wandb_needs_a_key(said, monkeypatch, tmp_path):
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert "WANDB_MODE=offline" in said("logger=wandb")[0]
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert said("logger=wandb") == []


def test_a_full_disk(said, monkeypatch):
    from preflight.checks import files

    monkeypatch.setattr(files, "MIN_FREE_GIB", 10**9)
    assert "GiB free, 1000000000 GiB needed" in said()[0]


def test_rows_that_cannot_be_graded(said, data, tmp_path):
    """A reference answer that fails and a database that is missing, with the row's number; once for each file."""
    import sqlite3

    db = tmp_path / "d.sqlite"
    with sqlite3.connect(db) as connection:
        connection.execute("CREATE TABLE t (a INTEGER)")

    def write(*references: tuple[str, Path]) -> None:
        rows = [
            RL_ROW | {"reward_model": {"style": "rule", "ground_truth": sql},
                      "extra_info": {"index": i, "split": "train", "db": str(path)}}
            for i, (sql, path) in enumerate(references)
        ]  # fmt: skip
        for name in ("train", "val"):
            pq.write_table(pa.Table.from_pylist(rows * 16), tmp_path / f"{name}.parquet")

    here = [f"lab.dataset.dir={tmp_path}", "reward=sql"]
    write(
        ("SELECT a FROM t", db),
        ("SELECT b FROM t", db),
        ("SELECT a FROM t", tmp_path / "none.sqlite"),
    )
    line = said(*here)[0]
    assert "gold_error" in line or "db_missing" in line
    assert said(*here, "lab.check_data=false") == []
    write(("SELECT a FROM t", db))
    assert said(*here) == []
    assert (tmp_path / "train.checked.json").exists()


def test_checks_are_left_out_by_name(configure):
    wrong = ["algorithm.adv_estimator=grop", "trainer.test_freq=x"]
    for skip, left in (("[]", 2), ("[estimator]", 1), ("[check_estimator,frequencies]", 0)):
        config = configure(*wrong, f"lab.preflight.skip={skip}")
        assert len(list(complaints(config))) == left
        told = {result.name: result.said for result in findings(config, DEFAULT)}
        assert isinstance(told["check_estimator"], Note) == (skip != "[]")


def test_a_note_is_no_mistake(configure, monkeypatch):
    monkeypatch.setattr("preflight.checks.checks", lambda kind: {"check_x": lambda _: Note("well")})
    config = configure()
    assert list(complaints(config)) == [] and refuse(config) is None
    assert [result.said for result in findings(config, DEFAULT)] == ["well"]


def test_all_of_them_are_quick(real_demo):
    """Under 3 s on a prepared dataset, the first time."""
    begin = time.perf_counter()
    assert list(complaints(real_demo)) == []
    assert time.perf_counter() - begin < 3


@pytest.fixture
def real_demo(configure, sql_demo):
    return configure(f"lab.dataset.dir={sql_demo}", "reward=sql")


def test_three_lines_at_most(composer):
    with pytest.raises(Mistake) as caught:
        refuse(composer("lab.dataset.dir=/nowhere", "lab.model.path=/nowhere/x", "algorithm.adv_estimator=x",
                       "actor_rollout_ref.rollout.n=1", "lab.lora_alpha=3"))  # fmt: skip
    assert 2 <= len(str(caught.value).splitlines()) <= 3


def test_preflight_imports_neither_torch_nor_verl():
    code = """
import sys, preflight, preflight.verdict
from preflight.checks import DEFAULT, SLOW, checks
checks(DEFAULT + SLOW)
print([m for m in ("torch", "verl", "ray", "transformers", "vllm") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["algo=grop"], "Did you mean grpo?"),
        (["-m", "algo=grpo,rlo"], "Did you mean rloo?"),
        (["+lab.env.WANDB_API_KEY=abc"], "Put it into the environment"),
        (["++x.password=abc"], "no secret on the command line"),
        (["x.base_url=https://me:abc@host/v1"], "x.base_url: no secret on the command line"),
        (["resume=/nowhere"], "no run there"),
    ],
)
def test_mistakes_on_the_command_line(argv, text):
    with pytest.raises(Mistake, match=re.escape(text)):
        names.check_argv(argv)


def test_names_of_tokens_are_no_secrets():
    argv = [
        "lab.hw.tokens_per_gpu=3",
        "data.tokenizer=x",
        "algo=glob(*)",
        "actor_rollout_ref.actor.x=[1,2]",
    ]
    assert names.check_argv(argv) == argv


def test_resume_takes_the_overrides_of_the_run(tmp_path):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra/overrides.yaml").write_text(
        "- algo=ppo\n- trainer.total_training_steps=3\n"
    )
    (tmp_path / "resolved.yaml").write_text("")
    expected = ["algo=ppo", f"hydra.run.dir={tmp_path}", "trainer.total_training_steps=9"]
    assert names.check_argv([f"resume={tmp_path}", "trainer.total_training_steps=9"]) == expected
    with pytest.raises(Mistake, match="holds a run already"):
        names.check_argv([f"hydra.run.dir={tmp_path}"])
