"""The command line, as a user types it. Real runs are in test_runs.py."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers import ROOT

from preflight import names


def launch(*args: str, cwd: Path = ROOT, python: tuple = ()) -> subprocess.CompletedProcess:
    command = [sys.executable, *python, str(ROOT / "launch.py"), *args]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.fixture
def fresh(tmp_path):
    """launch.py of a copy of the project without data, as after a clone."""
    for folder in ("conf", "launcher", "preflight", "plugins", "rewards", "algos", "data_prep"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    return shutil.copy2(ROOT / "launch.py", tmp_path)


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["algo=grop"], "unknown algo= 'grop'. Did you mean grpo?"),
        (["data.train_batch_sizee=3"], "Did you mean data.train_batch_size?"),
        (["algo=grpo", "trainer.total_training_steps=x y"], "error:"),
        (["lab.dataset.dir=/nowhere"], "`make data D=sql_demo` makes it"),
        (["+x.api_key=1"], "environment"),
        (["resume=/nowhere"], "no run there"),
        (["trainer.n_gpus_per_node=${nothing}"], "nothing"),
        (["hydra.run.dir=/proc/no/such"], "error:"),
        (
            ["critic.model.fsdp_config.param_offload=1", "datta.x=1"],
            "critic.fsdp.param_offload now",
        ),
        (["algo=sft", "actor_rollout_ref.rollout.n=4"], "It is a key of RL"),
        (
            ["-m", "lab.seeed=1,2", "algo=glob(g*)"],
            "Did you mean lab.seed?",
        ),
        (["-m", "lab.seeed=1,2", "algo=grpo,rloo"], "Did you mean lab.seed?"),
        (["--from-script", "nothing.sh"], "No such file"),
        (["--shell-completion"], "install=bash"),
        (["algo=grpo", "algo=ppo"], "given twice"),
        (["hydra.job.chdir=true"], "leave it out"),
    ],
)
def test_a_mistake_is_told_in_three_lines_with_status_2(args, text, tmp_path):
    done = launch(*args, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert text in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3
    assert "Traceback" not in done.stderr


def test_help_lists_every_group_and_option():
    text = launch("--help").stdout
    for group, options in names.groups().items():
        assert f"\n{group}=" in text
        assert all(re.search(rf"\n    {option} ", text) for option in options)


def test_composing_imports_nothing_heavy(tmp_path):
    done = launch("--cfg", "job", "--resolve", cwd=tmp_path, python=("-X", "importtime"))
    config = yaml.safe_load(done.stdout)
    assert config["algorithm"]["adv_estimator"] == "grpo"
    assert config["trainer"]["device"] == "cpu"
    imported = set(re.findall(r"\| +(\w+)$", done.stderr, re.MULTILINE))
    assert "hydra" in imported
    assert not imported & {"torch", "verl", "ray", "transformers", "vllm", "pandas", "numpy"}
    assert list(tmp_path.iterdir()) == []  # looking leaves nothing behind


def test_the_profile_picks_a_model_and_the_command_line_wins():
    def path(*args):
        done = launch("algo=grpo", "hw=rtx4070", "reward=sql", *args, "--cfg", "job", "--resolve")
        config = yaml.safe_load(done.stdout)["actor_rollout_ref"]
        assert config["model"]["lora_rank"] > 0
        assert config["actor"]["fsdp_config"]["optimizer_offload"]
        return config["model"]["path"]

    assert path() == "Qwen/Qwen2.5-1.5B-Instruct"
    assert path("model=qwen3_0_6b") == "Qwen/Qwen3-0.6B"


def test_switches_may_stand_anywhere():
    args = ["lab.seed=5", "--cfg", "job", "hw=cpu_x2", "--resolve", "algo=rloo"]
    config = yaml.safe_load(launch(*args).stdout)
    assert config["lab"]["seed"] == 5
    assert config["trainer"]["n_gpus_per_node"] == 2


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["algo=ppo", "--cfg", "job", "--package", "critic.optim"], "lr_scheduler_type"),
        (["algo=ppo", "--info", "searchpath"], "hydra.searchpath"),
        (["--shell-completion", "install=bash"], "complete"),
        (["+ray_kwargs.ray_init.runtime_env.env_vars.X=7", "--cfg", "job"], "X: 7"),
    ],
)
def test_hydras_own_switches(args, text):
    done = launch(*args)
    assert done.returncode == 0 and text in done.stdout, done.stderr


def test_a_script_of_verl_is_translated_from_standard_input(tmp_path):
    text = "python3 -m verl.trainer.main_ppo algorithm.adv_estimator=rloo trainer.n_gpus_per_node=1"
    command = [sys.executable, str(ROOT / "launch.py"), "--from-script", "-"]
    done = subprocess.run(
        command, cwd=tmp_path, input=text, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "python launch.py \\\n    algo=rloo" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_presets_data_are_found_from_another_folder(tmp_path, fresh):
    """`data/NAME` of a preset is the project's; the run's folder is where the user is."""
    made = tmp_path / "data/sql_demo"
    made.mkdir(parents=True)
    for name in ("train", "val"):
        (made / f"{name}.parquet").touch()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, fresh, "--cfg", "job", "--resolve"]
    done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, timeout=120)
    assert yaml.safe_load(done.stdout)["data"]["train_files"] == str(made / "train.parquet"), (
        done.stderr
    )


def test_a_run_is_not_overwritten(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "resolved.yaml").write_text("mine")
    done = launch(f"hydra.run.dir={run}")
    assert done.returncode == 2
    assert f"resume={run}" in done.stderr
    assert [p.name for p in run.iterdir()] == ["resolved.yaml"]
    assert (run / "resolved.yaml").read_text() == "mine"


def test_a_sweep_goes_on_after_a_failed_job_and_prints_a_table(tmp_path):
    done = launch("-m", "lab.model.path=/nowhere/a,/nowhere/b", cwd=tmp_path)
    assert done.returncode == 2
    assert re.search(r"^ +0 +/nowhere/a .*refused$", done.stdout, re.MULTILINE), done.stdout
    assert re.search(r"^ +1 +/nowhere/b .*refused$", done.stdout, re.MULTILINE), done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_first_start_says_which_two_commands_come_before_it(fresh, tmp_path):
    command = [sys.executable, fresh]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "`make data D=sql_demo`" in done.stderr
    assert "`python -m data_prep tiny_model`" in done.stderr


def algorithms_in(source: str) -> set[str]:
    """The options of algo= that a program's code names; comments and docstrings may."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(
            node
        ):
            node.body[0].value.value = ""
    return names.groups()["algo"].keys() & set(re.findall(r"\w+", ast.unparse(tree)))


def test_launch_is_short_and_names_no_algorithm():
    source = (ROOT / "launch.py").read_text()
    assert len(source.splitlines()) < 140
    assert algorithms_in(source) == set()
    named = (
        '"""as sft"""\ndef job(kind):\n    """of rm"""\n    return kind == "dpo" or grpo()  # prm'
    )
    assert algorithms_in(named) == {"dpo", "grpo"}
