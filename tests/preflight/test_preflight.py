"""Every check finds its mistake, says what to do in a line, and has nothing to say about a good config."""

import ast
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ROOT
from preflight_helpers import all_checks

from preflight import names, prepare
from preflight.checks import DEFAULT, Note
from preflight.mistakes import Mistake
from preflight.preparation import Preparation

TESTS = Path(__file__).parent


@pytest.mark.parametrize("algo", names.groups()["algo"])
def test_a_good_config_passes(said, algo):
    assert said(f"algo={algo}") == []
    assert said(f"algo={algo}", "lab.hw.gpus_per_node=2") == []


def names_tested(file: Path) -> Iterator[str]:
    """Checks that must refuse a config in a test of this file: `caught(NAME, ...)`, and keys of each(MISTAKES)."""
    tables = {}
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            keys = [key.value for key in node.value.keys if isinstance(key, ast.Constant)]
            tables |= {target.id: keys for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            first = node.args[0]
            if node.func.id in ("caught", "noted") and isinstance(first, ast.Constant):
                yield first.value
            elif node.func.id == "each":
                yield from tables[first.id]


def test_every_check_catches_something():
    """Who adds a check adds a config that it refuses."""
    tested = {name for file in TESTS.rglob("test_*.py") for name in names_tested(file)}
    assert set(all_checks()) - tested == set()


def test_no_two_checks_have_one_name():
    """`lab.preflight.skip` goes by the name."""
    files = (ROOT / "preflight/checks").glob("*.py")
    found = [
        name for file in files for name in re.findall(r"(?m)^def (check_\w+)", file.read_text())
    ]
    assert sorted(found) == sorted(all_checks())


def test_checks_are_left_out_by_name(configure):
    wrong = ["algorithm.adv_estimator=grop", "trainer.test_freq=x"]
    for skip, left in (("[]", 2), ("[estimator]", 1), ("[check_estimator,frequencies]", 0)):
        config = configure(*wrong, f"lab.preflight.skip={skip}")
        assert len(list(Preparation(config).complaints())) == left
        told = {found.name: found.message for found in Preparation(config).findings(DEFAULT)}
        assert isinstance(told["check_estimator"], Note) == (skip != "[]")


def test_a_note_is_no_mistake(configure, monkeypatch):
    monkeypatch.setattr("preflight.checks.checks", lambda kind: {"check_x": lambda _: Note("well")})
    preparation = Preparation(configure())
    assert list(preparation.complaints()) == [] and preparation.refuse() is None
    assert [found.message for found in preparation.findings(DEFAULT)] == ["well"]


def test_all_of_them_are_quick(real_demo):
    """Under 3 s on a prepared dataset, the first time."""
    begin = time.perf_counter()
    assert list(Preparation(real_demo).complaints()) == []
    assert time.perf_counter() - begin < 3


@pytest.fixture
def real_demo(configure, sql_demo):
    return configure(f"lab.dataset.dir={sql_demo}", "reward=sql")


def test_three_lines_at_most(composer):
    with pytest.raises(Mistake) as caught:
        prepare(composer("lab.dataset.dir=/nowhere", "lab.model.path=/nowhere/x", "algorithm.adv_estimator=x",
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
