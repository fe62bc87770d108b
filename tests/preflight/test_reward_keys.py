"""`lab.reward.KEY` and verl's long key: on the command line, in YAML files of both ways, and in what verl gets."""

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from launcher import stages
from preflight import names, reward_keys
from preflight.names import CONF

LONG = reward_keys.LONG


@pytest.mark.parametrize(
    ("argument", "wanted"),
    [
        (f"{LONG}.mode=bird", "++lab.reward.mode=bird"),
        (f"+{LONG}.bonus=0.1", "++lab.reward.bonus=0.1"),
        (f"++{LONG}.bonus=0.1", "++lab.reward.bonus=0.1"),
        (f"~{LONG}.shaping", "~lab.reward.shaping"),
        (f"{LONG}={{a: 1}}", "++lab.reward={a: 1}"),
        ("lab.reward.options.length.cache=9", "++lab.reward.options.length.cache=9"),
        ("lab.reward_limits.timeout_s=9", "lab.reward_limits.timeout_s=9"),
        ("lab.reward_model.path=x", "lab.reward_model.path=x"),
        ("reward=sql", "reward=sql"),
        ("reward.num_workers=2", "reward.num_workers=2"),
        ("--resolve", "--resolve"),
    ],
)
def test_the_short_key_on_the_command_line(argument, wanted):
    assert reward_keys.short([argument]) == [wanted]
    assert reward_keys.short([wanted]) == [wanted]
    assert names.check_argv([argument]) == [wanted]


def test_a_run_that_goes_on_has_each_option_once(tmp_path):
    (tmp_path / ".hydra").mkdir()
    saved = [f"{LONG}.mode=bird", "lab.reward.shaping=binary", "algo=grpo"]
    (tmp_path / ".hydra/overrides.yaml").write_text(yaml.safe_dump(saved))
    argv = names.check_argv(
        [f"resume={tmp_path}", "lab.reward.mode=strict", f"{LONG}.shaping=arctic"]
    )
    assert argv == ["algo=grpo", f"hydra.run.dir={tmp_path}", "++lab.reward.mode=strict",
                    "++lab.reward.shaping=arctic"]  # fmt: skip


@pytest.fixture
def composed(tmp_path, composer):
    """`composed({"reward/mine": text}, ...)` → the config with YAML files of one's own beside those of conf/."""

    def make(files: dict[str, str], *overrides: str, gather: bool = True):
        for name, text in files.items():
            file = tmp_path / f"{name}.yaml"
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        verls = OmegaConf.create({"tree": "${lab.verl:}"}).tree  # as in conf/config.yaml
        places = [verls, "machine://", f"file://{tmp_path}"]
        overrides = reward_keys.short([f"hydra.searchpath={places}", *overrides])
        hydra = GlobalHydra.instance().hydra
        GlobalHydra.instance().clear()
        try:
            with initialize_config_dir(str(CONF), version_base="1.3"):
                config = compose("config", overrides=overrides)
        finally:
            GlobalHydra.instance().hydra = hydra
        if gather:
            reward_keys.gather(config, overrides)
        return config

    return make


def options(config) -> dict:
    """What verl gets, which is also what stands in lab.reward."""
    kwargs = OmegaConf.to_container(config.reward.custom_reward_function, resolve=True)[
        "reward_kwargs"
    ]
    assert kwargs == OmegaConf.to_container(config.lab.reward, resolve=True)
    return kwargs


OLD = """
custom_reward_function:
  path: /mine.py
  name: mine
  reward_kwargs: {weight: 1.0, folder: "${lab.run_dir}/x", words: [a]}
"""
NEW = """
# @package _global_
lab: {reward: {weight: 1.0, words: [a]}}
reward: {custom_reward_function: {path: /mine.py, name: mine}}
"""
OLD_PRESET = """
# @package _global_
defaults:
  - override /reward: sql
reward: {custom_reward_function: {reward_kwargs: {shaping: binary}}}
"""


@pytest.mark.parametrize("key", ["lab.reward", LONG])
@pytest.mark.parametrize("text", [OLD, NEW], ids=["old", "new"])
def test_a_yaml_file_of_ones_own(composed, text, key):
    made = {"reward/mine": text}
    before = options(composed(made, "reward=mine", "lab.run_dir=/run"))
    assert before["weight"] == 1.0 and before["words"] == ["a"]
    assert before.get("folder", "/run/x") == "/run/x"
    after = options(
        composed(made, "reward=mine", "lab.run_dir=/run", f"{key}.weight=2", f"{key}.more=3")
    )
    assert after == before | {"weight": 2, "more": 3}


@pytest.mark.parametrize("key", ["lab.reward", LONG])
def test_a_preset_in_the_old_way(composed, key):
    made = {"experiment/mine": OLD_PRESET}
    got = options(composed(made, "experiment=mine", f"{key}.mode=strict"))
    assert got == {"mode": "strict", "keep_distinct": True, "shaping": "binary", "timeout_s": 2}
    assert options(composed(made, "experiment=mine", f"{key}.shaping=skyrl"))["shaping"] == "skyrl"


def test_verl_gets_plain_values(composer):
    config = composer("reward=judge", "lab.reward.model=m", "lab.run_dir=/run")
    OmegaConf.resolve(config)
    kwargs = OmegaConf.to_container(config.reward.custom_reward_function)["reward_kwargs"]
    assert kwargs["folder"] == "/run/judge" and kwargs["sampling"] == {
        "temperature": 0,
        "max_tokens": 1024,
    }
    assert "$" not in str(kwargs)


def test_a_trainer_without_a_reward_has_none(composer):
    config = composer("algo=sft")
    assert OmegaConf.select(config, LONG) is None


def test_a_stage_has_the_reward_of_its_run(composed, tmp_path, monkeypatch):
    """algos/self_play.py: the options of conf/'s default reward are not among them."""
    lines = {"mine": [f"{LONG}.weight=2", "lab.run_dir=/run"], "exact": ["lab.reward.where=line"]}
    monkeypatch.setattr(stages.subprocess, "Popen", Started)
    for name, line in lines.items():
        line = ["algo=self_play", f"reward={name}", *line]
        parent = composed({"reward/mine": OLD}, *line)
        (tmp_path / name / ".hydra").mkdir(parents=True)
        as_hydra = composed({"reward/mine": OLD}, *line, gather=False)
        OmegaConf.save(as_hydra, tmp_path / name / ".hydra/config.yaml")
        (tmp_path / name / ".hydra/overrides.yaml").write_text(yaml.safe_dump(line))
        raw = stages.composed(tmp_path / name)
        stages.run(tmp_path / name / "round_1/sample", "self_play", raw)
        text = (tmp_path / name / "round_1/stage/sample.yaml").read_text()
        overrides = [word for word in Started.command[2:] if not word.startswith("--config-dir")]
        stage = composed({"stage/sample": text}, *overrides)
        assert options(stage) == options(parent) and len(options(stage)) in (3, 6)
        function = stage.reward.custom_reward_function
        assert function.path == parent.reward.custom_reward_function.path


class Started:
    """In place of a process: it has ended well."""

    def __init__(self, command, **_):
        Started.command, self.stdout = command, ()

    def wait(self):
        return 0
