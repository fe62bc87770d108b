"""Every shipped option composes, alone and in pairs, and verl accepts what comes out. By glob: a new
YAML file is tested without anyone adding it to a list."""

import itertools
import re
from collections.abc import Callable, Hashable, Iterator

import pytest
import yaml
from helpers import VERIFIED, resolved
from omegaconf import OmegaConf

from plugins import algos
from preflight import names
from preflight.checks.names import check_unknown_keys
from preflight.facts import is_rl
from preflight.mistakes import Mistake

GROUPS = {group: list(options) for group, options in names.groups().items()}
SINGLES = [
    f"{group}={option}"
    for group, options in GROUPS.items()
    for option in options
    if group != "model"
]
SINGLES += [
    "model=tiny",
    "model=qwen2_5_0_5b",
    "model=qwen3_4b",
]  # all write the same keys: the pairs have each


def test_the_table_of_contents_names_every_folder():
    config = (names.CONF / "config.yaml").read_text()
    listed = set(re.findall(r"^  - (\w+): ", config, re.MULTILINE))
    assert listed == set(GROUPS)


@pytest.mark.parametrize("override", SINGLES)
def test_each_option_resolves_and_verl_accepts_it(composer, tiny_model, override):
    config = composer(override)
    assert None not in resolved(config).values()  # every interpolation leads somewhere
    if override.startswith("trainer=") and override != "trainer=rl":
        pytest.skip("an algorithm picks it; under another preflight calls that one's keys unknown")
    config.lab.model.path = str(tiny_model)  # verl reads the model's own files
    assert check_unknown_keys(config) is None
    OmegaConf.resolve(config)
    accept_rl(config) if is_rl(config) else accept_sft(config)


def accept_sft(config) -> None:
    """verl's own conversion to dataclasses, as SFTTrainer._build_config does it."""
    from verl.utils.config import omega_conf_to_dataclass

    for key in ("model", "engine", "optim", "checkpoint", "profiler"):
        omega_conf_to_dataclass(config[key])


def accept_rl(config) -> None:
    """verl's own validation and conversion, as main_ppo and its workers do it."""
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    validate_config(config, need_reference_policy(config), need_critic(config))
    OmegaConf.set_struct(config, False)
    reference = config.actor_rollout_ref.ref  # ActorRolloutRefWorker.init_model renames these
    for key in ("micro_batch_size", "micro_batch_size_per_gpu", "max_token_len_per_gpu"):
        reference[f"ppo_{key}"] = reference.pop(f"log_prob_{key}")
    reference.use_dynamic_bsz = reference.pop("log_prob_use_dynamic_bsz")
    reference.ppo_mini_batch_size = config.actor_rollout_ref.actor.ppo_mini_batch_size
    config.actor_rollout_ref.rollout.prometheus.served_model_name = None
    for key in ("actor", "ref", "rollout", "model"):
        omega_conf_to_dataclass(config.actor_rollout_ref[key])
    omega_conf_to_dataclass(config.critic)
    for name in algos.names("compute_advantage"):  # verl itself never builds this one
        config.algorithm.pop(name, None)
    omega_conf_to_dataclass(config.algorithm)


NONE = ""  # no preset
PAIRED = {  # the trainer is what an algorithm picks; a preset can be left out
    group: ([NONE] if group in ("experiment", "sweep") else []) + options
    for group, options in GROUPS.items()
    if group != "trainer"
}


def read(group: str, option: str) -> dict:
    """The YAML of an option; nothing for what has no file."""
    file = names.CONF / group / f"{option}.yaml"
    return (yaml.safe_load(file.read_text()) or {}) if file.is_file() else {}


def traits(group: str, option: str) -> tuple[set[str], dict[str, str]]:
    """The files of base/ that an option stands on (its name, if it has no file), and the options that it picks."""
    data, found, picked = read(group, option), set(), {}
    for entry in data.get("defaults", [] if data else [option]):
        if isinstance(entry, dict):  # override /algo: grpo
            picked |= {key.rpartition("/")[2]: value for key, value in entry.items()}
        elif entry.startswith("base/") or not data:
            found.add(entry)
        else:
            below, picks = traits(group, entry)
            found, picked = found | below, picks | picked
    if group == "reward":
        found |= {f"lab.{key}" for key in data.get("lab", {})}
    return found, picked


def kind(group: str, option: str) -> frozenset[str]:
    """What decides beside what an option must compose: its files of base/, its trainer, a preset's hardware."""
    found, picked = traits(group, option)
    found |= {f"trainer={picked['trainer']}"} if "trainer" in picked else set()
    if group == "experiment":
        found |= {f"{g}: {k}" for g in ("algo", "hw") if g in picked for k in kind(g, picked[g])}
    return frozenset(found)


def keys_written(group: str, option: str) -> frozenset[str]:
    """The keys that an option's file writes, and what it stands on. A model's facts are read, not composed with."""

    def dotted(data: dict, prefix: str = "") -> Iterator[str]:
        for key, value in data.items():
            if isinstance(value, dict) and value and key != "facts":
                yield from dotted(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}"

    data = read(group, option)
    return frozenset(map(str, data.pop("defaults", []))) | frozenset(dotted(data)) or frozenset(
        [option]
    )


def covering(alike: Callable[[str, str], Hashable]) -> list[dict[str, str]]:
    """Choices of one option for every group, such that each pair of two groups is in one.

    alike: options of which it says the same stand for each other: they take turns, and each is in some choice.
    Greedy: a choice starts from a pair that is not covered yet, and each other group takes what covers most.
    """
    turns = {}  # (group, kind) → its options, again and again
    for group, options in PAIRED.items():
        for option in options:
            turns.setdefault((group, alike(group, option)), []).append(option)
    kinds = {group: [k for g, k in turns if g == group] for group in PAIRED}
    left = {
        frozenset([(g, a), (h, b)]): None
        for g, h in itertools.combinations(PAIRED, 2)
        for a, b in itertools.product(kinds[g], kinds[h])
    }
    unused = {key: list(options) for key, options in turns.items()}
    turns = {key: itertools.cycle(options) for key, options in turns.items()}
    choices = []
    while left or any(unused.values()):
        choice = dict(next(iter(left)) if left else [next(k for k, o in unused.items() if o)])
        for group in PAIRED:
            if group not in choice:
                choice[group] = max(kinds[group], key=lambda k, g=group: (
                    sum(frozenset([(g, k), c]) in left for c in choice.items()), len(unused[g, k])
                ))  # fmt: skip
        for pair in itertools.combinations(choice.items(), 2):
            left.pop(frozenset(pair), None)
        chosen = {group: next(turns[group, k]) for group, k in choice.items()}
        for (group, k), option in zip(choice.items(), chosen.values(), strict=True):
            unused[group, k] = [o for o in unused[group, k] if o != option]
        choices.append(chosen)
    return choices


def compose_all(composer, choices: list[dict[str, str]]) -> None:
    """All failures together say more than the first."""
    failed = []
    for choice in choices:
        overrides = [f"{group}={option}" for group, option in choice.items() if option != NONE]
        try:
            resolved(composer(*overrides))
        except Exception as error:
            failed.append(f"{' '.join(overrides)}: {error}")
    assert not failed, "\n".join(failed)
    for group, options in PAIRED.items():
        assert {choice[group] for choice in choices} == set(options)


def test_each_kind_of_option_composes_with_each_kind_of_the_other_groups(composer):
    """And each option at least once. A kind: see `kind`; `make test-all` makes the pairs of the options themselves."""
    compose_all(composer, covering(kind))


@pytest.mark.slow
def test_every_two_options_of_two_groups_compose(composer):
    """Options that write the same keys, with other values, stand for each other."""
    compose_all(composer, covering(keys_written))


def test_a_pair_is_in_a_choice():
    """What the two above rest on."""
    choices = covering(kind)
    for (g, a), (h, b) in [
        (("algo", "sft"), ("reward", "prm")), (("experiment", NONE), ("hw", "h100x8")),
        (("experiment", "demo_self_play"), ("algo", "dpo")), (("model", "tiny"), ("hw", "auto")),
    ]:  # fmt: skip
        assert any((kind(g, c[g]), kind(h, c[h])) == (kind(g, a), kind(h, b)) for c in choices)


def test_no_preset_has_no_file(tmp_path):
    """`none` says so all the same; an old run has it, and a logger that is gone, in its saved overrides."""
    assert names.check_argv(["experiment=none", "sweep=null", "algo=sft"]) == ["algo=sft"]
    with pytest.raises(Mistake, match="logger=file is gone: logger=console does the same"):
        names.check_argv(["logger=file"])
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra/overrides.yaml").write_text("[experiment=none, logger=file, algo=sft]")
    argv = names.check_argv([f"resume={tmp_path}"])
    assert argv == ["logger=console", "algo=sft", f"hydra.run.dir={tmp_path}"]


def test_a_preset_says_on_its_first_line_whether_anyone_tried():
    """Those of a CPU ran, each real test runs them again; of the others nobody has the hardware."""
    for name, line in names.groups()["experiment"].items():
        here = name.startswith("demo_") or name.endswith("_cpu")
        assert re.search(VERIFIED if here else r"\. # unverified$", line), name


def test_the_environment_of_rays_workers_is_text(composer):
    """Ray refuses numbers, after the start."""
    config = resolved(composer("lab.seed=3", "lab.env.OMP_NUM_THREADS=2"))
    env = config["ray_kwargs"]["ray_init"]["runtime_env"]["env_vars"]
    assert env["LAB_SEED"] == "3" and env["OMP_NUM_THREADS"] == "2"
    assert all(isinstance(value, str) for value in env.values())
