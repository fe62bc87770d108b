"""Command lines in Hydra's own ways, and in those of verl's users."""

import re
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from preflight import hydra_words, names
from preflight.mistakes import Mistake

MODEL = "actor_rollout_ref.model.path"


@pytest.fixture
def mine(tmp_path):
    """A folder with an option of one's own: model=mine."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model/mine.yaml").write_text("# @package lab.model\ndefaults: [tiny]\n")
    return tmp_path


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        (["algo=ppo", "--cfg", "job", "--package", "critic"], ["--cfg", "job", "--package", "critic", "algo=ppo"]),
        (["algo=ppo", "-cn", "config", "-m"], ["-cn", "config", "-m", "algo=ppo"]),
        (["--info"], ["--info=all"]),
        (["--info", "algo=ppo"], ["--info=all", "algo=ppo"]),
        (["--info", "plugins", "algo=ppo"], ["--info=plugins", "algo=ppo"]),
        (["algo=ppo", "--shell-completion", "install=bash"], ["--shell-completion", "algo=ppo", "install=bash"]),
        (["+ray_kwargs.ray_init.runtime_env.env_vars.X=1"], ["++lab.env.X=1"]),
        (["lab.model.path=~/a", "data.train_files=[~/b,'~/c']", "x=a~/b"],
         ["lab.model.path=HOME/a", "data.train_files=[HOME/b,'HOME/c']", "x='a~/b'"]),
        (["algo=sft", "engine=fsdp", "model=hf_model", "optim=fsdp"], ["algo=sft"]),
        (["actor@actor_rollout_ref.actor=dp_actor"], []),
        (["lab.seed=1", "lab.seed=1"], ["lab.seed=1"]),
        ([f"{MODEL}=Qwen/Qwen3-8B"], ["model=qwen3_8b"]),
        ([f"{MODEL}='Qwen/Qwen3-8B'", "model=tiny"], ["lab.model.path=Qwen/Qwen3-8B", "model=tiny"]),
        (["algo=sft", "model.path=some/one"], ["algo=sft", "lab.model.path=some/one"]),
        (["+hydra.sweeper.params={lab.seed:'1,2',algo:'grpo,rloo'}", "-m"], ["-m", "lab.seed=1,2", "algo=grpo,rloo"]),
    ],
)  # fmt: skip
def test_what_hydra_gets(argv, wanted):
    assert names.check_argv(argv) == [word.replace("HOME", str(Path.home())) for word in wanted]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["algo=grpo", "algo=ppo"], "algo= is given twice, grpo and ppo: leave one out"),
        (["engine=megatron"], "it has engine=fsdp. Leave it out"),
        (["model_engine=veomni"], "it has model_engine=dp"),
        (["lab.dataset=gsm8k"], "`dataset=gsm8k` chooses an option of dataset="),
        (["lab.reward=math"], "`reward=math` chooses"),
        (["lab.hw=rtx4090"], "`hw=rtx4090` chooses"),
        (["hydra.job.chdir=true"], "leave it out"),
        (["--shell-completion"], "install=bash"),
        (["model=mine"], "unknown model= 'mine'"),
    ],
)
def test_what_is_refused(argv, said):
    with pytest.raises(Mistake, match=re.escape(said)):
        names.check_argv(argv)


def test_a_key_that_is_given_twice_is_told(capsys):
    assert names.check_argv(["lab.seed=1", "algo=ppo", "lab.seed=2"]) == ["algo=ppo", "lab.seed=2"]
    assert (
        capsys.readouterr().err
        == "note: lab.seed is given 2 times; the last one counts: lab.seed=2\n"
    )


@pytest.mark.parametrize("words", [["--config-dir", "DIR"], ["--config-dir=DIR"], ["-cd", "DIR"]])
def test_options_of_a_folder_of_ones_own(mine, words):
    words = [word.replace("DIR", str(mine)) for word in words]
    assert names.check_argv(["model=mine", *words]) == [*words, "model=mine"]
    with pytest.raises(Mistake, match="Did you mean mine"):
        names.check_argv(["model=mne", *words])


def test_a_search_path_of_ones_own_keeps_the_projects(mine, monkeypatch):
    found = names.check_argv([f"hydra.searchpath=[file://{mine}]", "model=mine"])
    places = hydra_words.searched(found[0])
    assert places[0] == f"file://{mine}" and places[-1] == "machine://"
    assert Path(places[1].removeprefix("file://"), "config/_generated_ppo_trainer.yaml").is_file()
    monkeypatch.syspath_prepend(mine.parent)
    (mine / "__init__.py").touch()
    assert (
        names.check_argv([f"hydra.searchpath=[pkg://{mine.name}]", "model=mine"])[1] == "model=mine"
    )


@pytest.mark.parametrize(
    "path",
    [
        "/x/größe",
        "/x/it's",
        "/x/a=b",
        "/x/a#b",
        "/x/a (1)",
        "/x/a&b",
        "/x/a[1",
        '/x/"q"/a',
        "größe",
        "x/${a",
    ],
)
def test_a_path_may_have_any_name(path):
    """Hydra's grammar has no word for most signs; people write them as their shell takes them."""
    given = [f"hydra.run.dir={path}", f"lab.dataset.dir={path}", f"lab.model.path={path}"]
    words = names.check_argv(given)
    read = OverridesParser.create().parse_overrides(words)
    assert [str(one.value()).replace("\\${", "${") for one in read] == [path] * 3
    assert names.check_argv(words) == words


@pytest.mark.parametrize("said", ["trainer.logger=[a", "algo=(", "+lab.env.X=ö"])
def test_what_is_no_path_is_left_to_hydra_s_grammar(said):
    assert names.check_argv([said]) == [said]
