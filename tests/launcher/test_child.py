"""The child process that verl runs in: whose Ray it uses, its command and its environment."""

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from launcher import child

ADDRESS = "ray_kwargs.ray_init.address"


@pytest.fixture
def made(composer):
    """`made("algo=sft")` → config, as resolved.yaml has it, and the command and the environment of its child."""

    def make(*overrides: str):
        config = composer(*overrides)
        for root in config.lab.trainer.unused:
            config._set_flag("struct", False)
            config.pop(root, None)
        return (
            config,
            child.command(config, Path("/run"), "/tmp/x", None),
            child.environment(config),
        )

    return make


@pytest.mark.parametrize(
    ("exported", "overrides", "address"),
    [("head:6379", [], "head:6379"), ("", [], None), ("local", [], None), (None, [], None),
     ("head:6379", [f"{ADDRESS}=other:1"], "other:1"), ("head:6379", [f"{ADDRESS}=null"], None),
     (None, [f"{ADDRESS}=auto"], "auto")],
)  # fmt: skip
def test_one_place_says_whose_ray_a_run_uses(made, monkeypatch, exported, overrides, address):
    """The config's, of which $RAY_ADDRESS is the default; Ray itself would look at the variable again."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if exported is not None:
        monkeypatch.setenv("RAY_ADDRESS", exported)
    config, command, env = made(*overrides)
    ray = config.ray_kwargs.ray_init
    assert ray.address == address
    assert "RAY_ADDRESS" not in env
    own = address is None
    assert child.makes_ray(config) == own
    assert any("_temp_dir=" in word for word in command) == own
    assert (ray.num_cpus is not None) == (ray.num_gpus is not None) == own  # Ray refuses both


def test_the_command_names_any_folder(composer):
    """Hydra's grammar reads its words again; what comes out is what went in."""
    odd = ["/run", "/x (1)", "/größe's", '/#1 lr=1e-6 "a"', "/a\\", "/${x}/b", "/a,b:{c}[d]~"]
    parser = OverridesParser.create()
    for folder in odd:
        words = child.command(composer(), Path(folder), f"/tmp{folder}", f"/usr{folder}/python")
        values = {
            one.key_or_group: str(one.value()).replace("\\${", "${")
            for one in parser.parse_overrides(words[words.index("--config-name") + 2 :])
        }
        assert values["hydra.run.dir"] == folder
        assert values["ray_kwargs.ray_init._temp_dir"] == f"/tmp{folder}"
        assert values["ray_kwargs.ray_init.runtime_env.py_executable"] == f"/usr{folder}/python"


@pytest.mark.parametrize("algo", ["sft", "self_play"])
def test_runs_without_a_ray_of_their_own(made, monkeypatch, algo):
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    config, command, env = made(f"algo={algo}")
    assert not child.makes_ray(config) and not any("ray" in word for word in command)
    assert env["RAY_ADDRESS"] == "head:6379"  # the stages of self-play join that Ray


def test_sft_runs_under_torchrun_with_a_worker_a_gpu(made):
    _, command, _ = made("algo=sft", "hw=cpu_x2")
    assert "torch.distributed.run" in command and "--nproc_per_node=2" in command
    assert command[-5:-3] == ["--config-name", "resolved"]


def test_the_environment_has_what_the_config_adds(made):
    _, _, env = made("+lab.env.MINE=3")
    assert env["MINE"] == "3" and env["VERL_PLATFORM"] == "cpu"
    assert env["PYTHONPATH"].split(":")[0] == str(child.ROOT)


@pytest.mark.parametrize(("algo", "made"), [("sft", True), ("dpo", True), ("grpo", False)])
def test_a_run_that_has_made_its_steps_makes_no_more(
    composer, tmp_path, capsys, monkeypatch, algo, made
):
    """verl's SFT trainer makes a step before it looks; RL's looks first, and validates what it has."""
    config = composer(
        f"algo={algo}", "trainer.total_training_steps=8", f"trainer.default_local_dir={tmp_path}"
    )
    for step, done in (("7", False), ("8", made), ("9", made), ("", False)):
        (tmp_path / "latest_checkpointed_iteration.txt").write_text(step)
        assert child.all_made(config) == done
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("8")
    monkeypatch.setattr(child.supervisor, "run", lambda *_, **__: 5)
    assert child.run(config, tmp_path) == (0 if made else 5)
    assert ("all 8 steps are made" in capsys.readouterr().out) == made
    (tmp_path / "latest_checkpointed_iteration.txt").unlink()
    assert not child.all_made(config)
