"""A run goes on with its own config, whatever conf/ says by now, and with what the new command line sets."""

import json
from pathlib import Path

import pytest
import yaml
from checkpoints import save_step
from helpers import launch_without_verl
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict, read_write

from launcher.checkpoints import fault, is_cut, remove_old, tracked
from launcher.resume import Past, is_gone
from preflight import names
from preflight.mistakes import Mistake

OLD = yaml.safe_load((Path(__file__).parents[1] / "support/old_run.yaml").read_text())
LR = "actor_rollout_ref.actor.optim.lr"
TOKENS = "actor_rollout_ref.actor.ppo_max_token_len_per_gpu"


@pytest.fixture
def compose_at(composer):
    """`compose_at(folder, "algo=ppo", ...)` → the config as launch.py composes it there, with Hydra's own."""

    def make(folder: Path, *overrides: str):
        config = composer(*overrides)
        hydra = HydraConfig.instance().cfg
        with read_write(hydra.hydra), open_dict(hydra.hydra):
            hydra.hydra.overrides.task = [o for o in overrides if not o.startswith("hydra.")]
            hydra.hydra.runtime.output_dir = str(folder)
            hydra.hydra.job.config_name = "config"
        return config

    return make


@pytest.fixture
def begin(compose_at, tmp_path):
    """`begin("algo=ppo", ..., key=value)` → the folder of a run, when conf/ said `key: value`."""

    def make(*overrides: str, **then) -> Path:
        folder = tmp_path / "run"
        (folder / ".hydra").mkdir(parents=True)
        config = compose_at(folder, *overrides)
        for key, value in then.items():
            OmegaConf.update(config, key, value)
        OmegaConf.save(OmegaConf.create(list(overrides)), folder / ".hydra/overrides.yaml")
        OmegaConf.save(config, folder / ".hydra/config.yaml")
        OmegaConf.resolve(config)
        kept = [key for key in config if key not in config.lab.trainer.unused]
        OmegaConf.save(OmegaConf.masked_copy(config, kept), folder / "resolved.yaml")
        return folder

    return make


@pytest.fixture
def go_on(compose_at):
    """`go_on(folder, "lab.seed=3")` → what launch.py makes of `resume=FOLDER lab.seed=3`: Past, config."""

    def make(folder: Path, *more: str):
        config = compose_at(folder, *names.check_argv([f"resume={folder}", *more]))
        past = Past(folder)
        config = past.go_on(config)
        past.keep()
        OmegaConf.save(config, folder / "resolved.yaml", resolve=True)
        return past, config

    return make


def at(config, key: str):
    return OmegaConf.select(config, key, throw_on_missing=True)


def test_a_run_keeps_what_conf_said_and_says_what_is_different_today(begin, go_on):
    folder = begin("trainer.total_training_steps=3", **{"lab.model.rl_lr": 7e-5})
    first = (folder / "resolved.yaml").read_text()
    past, config = go_on(folder, "trainer.total_training_steps=9")
    assert at(config, LR) == 7e-5 and config.trainer.total_training_steps == 9
    assert past.changes == [
        "lab.model.rl_lr=7.0e-05, today 0.0001",
        f"{LR}=7.0e-05, today 0.0001",
    ]
    assert f"\n  {LR}=7.0e-05, today 0.0001\n" in past.report()
    assert (folder / "attempts/1/resolved.yaml").read_text() == first
    assert not (folder / "attempts/2").exists()


@pytest.mark.parametrize("algo", ["ppo", "sft", "self_play"])
def test_it_says_nothing_where_nothing_has_changed(begin, go_on, algo):
    folder = begin(f"algo={algo}", "lab.seed=3")
    first = yaml.safe_load((folder / "resolved.yaml").read_text())
    past, config = go_on(folder)
    assert past.changes == [] and past.report() == ""
    now = yaml.safe_load((folder / "resolved.yaml").read_text())
    assert {key: now[key] for key in first} == first
    assert now.keys() - first.keys() == set(config.lab.trainer.unused)


def test_what_the_command_line_sets_counts_and_so_does_all_that_follows_from_it(begin, go_on):
    then = {"lab.hw.tokens_per_gpu": 999, "lab.model.rl_lr": 7e-5}
    folder = begin(**then)
    _, config = go_on(folder, "lab.hw.tokens_per_gpu=32768")  # which is what conf/ says today
    assert at(config, TOKENS) == 32768 and at(config, LR) == 7e-5
    _, config = go_on(folder, "algo=gspo")  # a third start: what the second one set stays
    assert at(config, "actor_rollout_ref.actor.policy_loss.loss_mode") == "gspo"
    assert at(config, TOKENS) == 32768 and at(config, LR) == 7e-5


def test_a_folder_that_was_moved(begin, go_on):
    folder = begin("lab.project=mine")
    moved = folder.rename(folder.with_name("elsewhere"))
    past, config = go_on(moved)
    assert past.changes == []
    assert str(folder) not in (moved / "resolved.yaml").read_text()
    assert config.trainer.default_local_dir == f"{moved}/checkpoints"


def test_the_address_of_ray_is_that_of_this_start(begin, go_on, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "first:1")
    folder = begin()
    for now, cpus in (("second:2", None), ("", 32)):
        monkeypatch.setenv("RAY_ADDRESS", now)
        past, config = go_on(folder)
        ray = config.ray_kwargs.ray_init
        assert (ray.address, ray.num_cpus) == (now or None, cpus) and not past.changes


def test_keys_that_came_and_went(begin, go_on):
    folder = begin("+trainer.mine=1")
    resolved = yaml.safe_load((folder / "resolved.yaml").read_text())
    resolved["trainer"]["of_an_older_verl"] = 5
    del resolved["trainer"]["val_only"], resolved["lab"]["keep_best"]
    (folder / "resolved.yaml").write_text(yaml.safe_dump(resolved))
    past, config = go_on(folder, "trainer.mine=2")
    assert config.trainer.mine == 2 and "of_an_older_verl" not in config.trainer
    assert past.changes == [
        "lab.keep_best=false is new",
        "trainer.of_an_older_verl=5 is no key any more",
        "trainer.val_only=false is new",
    ]


def test_what_was_chosen_for_a_run_stays(begin, go_on):
    """lab.plan=auto changes the composed config, so the overrides alone don't give the run's."""
    folder = begin("lab.plan=auto", **{"lab.lora_rank": 32, "lab.hw.tokens_per_gpu": 999})
    chosen = ["lab.lora_rank=32", "lab.hw.tokens_per_gpu=999"]
    record = {"attempts": [{"exit": 0, "chosen": chosen}]}
    (folder / "run.json").write_text(json.dumps(record))
    past, config = go_on(folder, "lab.hw.tokens_per_gpu=500")
    assert past.changes == [] and config.lab.plan == "check"
    assert at(config, "actor_rollout_ref.model.lora_rank") == 32 and at(config, TOKENS) == 500


def test_a_run_is_not_planned_anew(begin, go_on):
    folder = begin()
    with pytest.raises(Mistake, match="chooses for a new run"):
        go_on(folder, "lab.plan=auto")


def test_stages_of_a_run_are_composed_of_its_own_config(begin, go_on):
    """.hydra/config.yaml, which algos/self_play.py makes the configs of its stages of."""
    folder = begin("algo=self_play", **{"self_play.margin": 0.25})
    go_on(folder, "self_play.rounds=7")
    raw = OmegaConf.load(folder / ".hydra/config.yaml")
    assert (raw.self_play.margin, raw.self_play.rounds) == (0.25, 7)
    assert OmegaConf.is_interpolation(raw.trainer, "default_local_dir")


@pytest.fixture
def old_run(tmp_path):
    """The folder of a run of an older version of this project."""
    folder = tmp_path / "old"
    (folder / ".hydra").mkdir(parents=True)
    for part, name in (
        ("overrides", ".hydra/overrides"),
        ("composed", ".hydra/config"),
        ("resolved", "resolved"),
    ):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(OLD[part]))  # fmt: skip
    return folder


def test_an_old_run(old_run, go_on):
    past, config = go_on(old_run, "trainer.total_training_steps=9")
    assert config.lab.trainer.entry == "verl.trainer.main_ppo" and "spmd" not in config.lab
    start = "/old/old_sft/checkpoints/global_step_40/huggingface"  # found then, and not today
    assert config.actor_rollout_ref.model.path == start
    agent = config.actor_rollout_ref.rollout.agent
    assert agent.agent_loop_manager_class.startswith("plugins.rollout.batched_rollout.")
    assert config.reward.reward_manager.module.path == "pkg://plugins.rollout.reward_manager"
    assert config.trainer.default_local_dir == f"{old_run}/checkpoints"
    assert config.data.train_batch_size == 4 and config.trainer.total_training_steps == 9
    assert f"actor_rollout_ref.model.path={start}, today /old/old_sft" in past.changes
    raw = OmegaConf.load(old_run / ".hydra/config.yaml")
    OmegaConf.resolve(raw)  # nothing refers to a key that is gone


@pytest.mark.parametrize(
    ("value", "gone"),
    [("pkg://plugins.reward_manager", True), ("plugins.batched_rollout.Manager", True),
     ("plugins.rollout.batched_rollout.BatchedAgentLoopManager", False), ("plugins.register", False),
     ("pkg://rewards.sql", False), ("algos.no_such", True), ("verl.trainer.main_ppo", False),
     ("a rewards.none text", False), ("plugins", False), (3, False)],
)  # fmt: skip
def test_a_module_that_is_gone(value, gone):
    assert is_gone(value) == gone


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_command_line(tmp_path, sql_demo, tiny_model):
    """A job of a multirun goes on; what is refused leaves the folder as it was."""
    common = [f"lab.dataset.dir={sql_demo}", f"lab.model.path={tiny_model}"]
    done = launch_without_verl(
        "-m", "algo=grpo,rloo", *common, f"hydra.sweep.dir={tmp_path / 'sweep'}"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("has random weights") == 2
    job = tmp_path / "sweep/1"
    first = contents(job)
    for wrong, text in (
        ("lab.model.path=/nowhere/model", "/nowhere/model"),
        ("algo=grop", "Did you mean grpo?"),
        ("trainer.total_training_stepss=3", "Did you mean trainer.total_training_steps?"),
    ):
        done = launch_without_verl(f"resume={job}", wrong)
        assert done.returncode == 2 and text in done.stderr and contents(job) == first, done.stderr
    done = launch_without_verl(f"resume={job}", "trainer.total_training_steps=5")
    assert done.returncode == 0, done.stdout + done.stderr
    now = contents(job)
    config = yaml.safe_load(now["resolved.yaml"])
    assert config["algorithm"]["adv_estimator"] == "rloo"
    assert config["trainer"]["total_training_steps"] == 5
    assert config["lab"]["run_dir"] == str(job)
    for name in ("resolved.yaml", ".hydra/overrides.yaml", "training_config.json", "plan.txt"):
        assert now[f"attempts/1/{name}"] == first[name]
    assert "changed since this run began" not in done.stdout
    assert "trainer.total_training_steps=5" in yaml.safe_load(now[".hydra/overrides.yaml"])
    done = launch_without_verl(
        "-m", "algo=grpo,rloo", *common, f"hydra.sweep.dir={tmp_path / 'sweep'}"
    )
    assert done.returncode == 2 and "holds a sweep already" in done.stderr
    done = launch_without_verl(f"resume={job}", f"hydra.run.dir={tmp_path / 'other'}")
    assert done.returncode == 2 and "leave out hydra.run.dir" in done.stderr
    done = launch_without_verl("-m", f"resume={job}", "lab.seed=1,2")
    assert done.returncode == 2 and "leave out -m" in done.stderr
    assert contents(job) == now


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [("run.json", '{"attempts": [{"comm', "remove it"), ("run.json", "[]", "remove it"), ("run.json", "", "remove it"),
     ("resolved.yaml", "", "put a whole one there"), ("resolved.yaml", "lab: {a", "put a whole one there"),
     ("resolved.yaml", "hello", "put a whole one there"), (".hydra/config.yaml", "", "put a whole one there"),
     (".hydra/overrides.yaml", "", "must be a list"), (".hydra/overrides.yaml", "{a: 1}", "must be a list"),
     (".hydra/overrides.yaml", "- a: [", "must be a list")],
)  # fmt: skip
def test_a_damaged_file_of_a_run_is_told(begin, go_on, name, content, text):
    folder = begin()
    (folder / name).write_text(content)
    with pytest.raises(Mistake, match=text) as told:
        go_on(folder)
    assert name in str(told.value)


TRACKER = "latest_checkpointed_iteration.txt"


@pytest.fixture
def saved(begin):
    """`saved(2, 4, tracker="4")` → the folder of the checkpoints of a run that saved these steps."""

    def make(*steps: int, tracker: str | None = None, algo: str = "grpo") -> Path:
        folder = begin(f"algo={algo}") / "checkpoints"
        folder.mkdir()
        for step in steps:
            save_step(folder / f"global_step_{step}")
        if tracker is not None:
            (folder / TRACKER).write_text(tracker)
        (folder.parent / "metrics.jsonl").write_text('{"step": 5, "data": {}}\n')
        return folder

    return make


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-30])


def test_a_whole_checkpoint_is_gone_on_from_without_a_word(saved, go_on):
    past, _ = go_on(saved(2, 4, tracker="4\n").parent)
    assert past.report() == ""


@pytest.mark.parametrize("algo", ["grpo", "sft", "dpo"])
def test_a_file_that_is_cut_short_is_told_and_the_checkpoint_before_is_used(saved, go_on, algo):
    folder = saved(2, 4, tracker="4", algo=algo)
    place = "actor/" if algo == "grpo" else ""
    cut(folder / f"global_step_4/{place}optim_world_size_1_rank_0.pt")
    past, _ = go_on(folder.parent)
    one, two = past.report().splitlines()
    assert one.endswith(
        f"global_step_4 is no whole checkpoint: {place}optim_world_size_1_rank_0.pt is cut short"
    )
    assert two == "The run goes on from step 2, its last whole checkpoint."
    assert tracked(folder) == 2 and (folder / "global_step_4").is_dir()


@pytest.mark.parametrize(
    ("tracker", "line"),
    [("", f"{TRACKER} names no step"), ("none", f"{TRACKER} names no step"), (None, f"{TRACKER} is missing"),
     ("7", "global_step_7 is no whole checkpoint: it is not there")],
)  # fmt: skip
def test_a_tracker_that_names_no_checkpoint_is_told(saved, go_on, tracker, line):
    folder = saved(2, 4, tracker=tracker)
    past, _ = go_on(folder.parent)
    assert past.report().splitlines()[0].endswith(line) and "goes on from step 4" in past.report()
    assert tracked(folder) == 4


def test_a_checkpoint_that_the_tracker_does_not_name_yet_is_not_used(saved, go_on):
    """The run was killed while it was saved: it may look whole."""
    folder = saved(2, 4, 6, tracker="4")
    past, _ = go_on(folder.parent)
    assert past.report() == "" and tracked(folder) == 4


def test_a_run_without_a_whole_checkpoint_never_begins_again_in_silence(saved, go_on):
    folder = saved(2, 4, tracker="4")
    for step in (2, 4):
        (folder / f"global_step_{step}/data.pt").unlink()
    with pytest.raises(
        Mistake,
        match=r"(?s)global_step_4 is.*data.pt is missing.*global_step_2.*begins again with step 1",
    ):
        go_on(folder.parent)
    assert tracked(folder) == 4  # as it was
    (folder / TRACKER).unlink()  # the first one was being saved
    past, _ = go_on(folder.parent)
    assert "has no checkpoint yet: the run begins again with step 1" in past.report()


def test_a_run_that_has_saved_nothing_says_so(begin, go_on):
    folder = begin()
    assert go_on(folder)[0].report() == ""  # and has made nothing
    (folder / "metrics.jsonl").write_text('{"step": 5, "data": {}}\n')
    assert "has no checkpoint yet" in go_on(folder)[0].report()


def test_a_checkpoint_of_other_workers_is_told(saved, go_on):
    folder = saved(tracker="2", algo="sft")
    save_step(folder / "global_step_2", world=2)
    with pytest.raises(Mistake, match="is of 2 workers, and this start has 1"):
        go_on(folder.parent)
    go_on(folder.parent, "hw=cpu_x2")


def test_what_is_missing_of_a_checkpoint(tmp_path):
    step, needs = (
        save_step(tmp_path / "global_step_3", world=2),
        {"actor": ["model", "optimizer", "extra", "hf_model"]},
    )
    assert fault(step, needs, "data.pt") is None
    assert fault(step, needs | {"critic": []}, "data.pt") == "critic is empty or missing"
    (step / "actor/huggingface").mkdir()
    (step / "actor/huggingface/config.json").write_text('{"a": ')
    assert fault(step, needs, "data.pt") == "actor/huggingface/config.json is cut short"
    (step / "actor/extra_state_world_size_2_rank_1.pt").unlink()
    assert fault(step, needs, "data.pt") == "actor/extra_state_world_size_2_rank_1.pt is missing"


def test_a_file_that_is_cut_at_any_place(tmp_path):
    import torch
    from safetensors.torch import save_file

    torch.save({"x": torch.arange(300)}, tmp_path / "a.pt")
    save_file({"x": torch.arange(300)}, tmp_path / "a.safetensors", metadata={"format": "pt"})
    (tmp_path / "a.json").write_text('{"a": [1, 2]}')
    for file in sorted(tmp_path.iterdir()):
        whole = file.read_bytes()
        assert not is_cut(file)
        for length in {*range(0, len(whole), 97), 0, len(whole) // 2, len(whole) - 1}:
            file.write_bytes(whole[:length])
            assert is_cut(file), (file.name, length)


def test_of_a_run_that_goes_on_so_many_checkpoints_stay_as_it_says(tmp_path):
    """Each limit is that of its part; what is newer than the one that was saved now was never whole."""
    folder = tmp_path / "run/checkpoints"
    for step in (2, 4, 6, 10, 12):
        save_step(folder / f"global_step_{step}", parts=("actor", "critic"))
    best = save_step(tmp_path / "run/best_model")
    remove_old(folder, 10, {"actor": 1, "critic": 3})
    left = {str(path.relative_to(folder)) for path in folder.glob("*/*") if path.is_dir()}
    assert left == {f"global_step_{n}/critic" for n in (4, 6, 10, 12)} | {
        f"global_step_{n}/actor" for n in (10, 12)
    }
    assert not (folder / "global_step_2").exists() and best.is_dir()
    remove_old(folder, 10, {"actor": None, "critic": None})
    assert len(list(folder.iterdir())) == 4
