"""Every shipped option composes, alone and in pairs, and verl accepts what comes out. By glob: a new
YAML file is tested without anyone adding it to a list."""

import itertools
import re

import pytest
from helpers import resolved
from omegaconf import OmegaConf

from plugins import algos
from preflight import names
from preflight.checks.names import check_unknown_keys
from preflight.facts import is_rl

GROUPS = {group: list(options) for group, options in names.groups().items()}
SINGLES = [f"{group}={option}" for group, options in GROUPS.items() for option in options]


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


def covering_choices() -> list[dict[str, str]]:
    """Choices of one option for every group, such that each pair of options of two groups is in one.

    Greedy: a choice starts from a pair that is not covered yet, and each other group takes the
    option that covers most: about 120 compositions. The trainer is what an algorithm picks. Of files
    that write the same keys a few are here: every tenth of the algorithms under verl's RL trainer,
    every fifth model, dataset and preset, a machine for each file of conf/hw/base.
    """
    groups = {name: options for name, options in GROUPS.items() if name != "trainer"}
    picks = [
        a for a in GROUPS["algo"] if "/trainer:" in (names.CONF / f"algo/{a}.yaml").read_text()
    ]
    groups["algo"] = picks + [a for a in GROUPS["algo"] if a not in picks][::10]
    for group in ("model", "dataset", "experiment"):
        groups[group] = GROUPS[group][::5]
    groups["hw"] = ["auto", "cpu", "cpu_x2", "h100", "h100x8", "rtx4070", "rtx4090"]
    pairs = {
        frozenset([(g, a), (h, b)])
        for g, h in itertools.combinations(groups, 2)
        for a, b in itertools.product(groups[g], groups[h])
    }
    choices = []
    while pairs:
        choice = dict(min(pairs, key=sorted))
        for group in groups:
            if group not in choice:
                new = {
                    o: sum(frozenset([(group, o), c]) in pairs for c in choice.items())
                    for o in groups[group]
                }
                choice[group] = max(new, key=new.get)
        pairs -= {frozenset(pair) for pair in itertools.combinations(choice.items(), 2)}
        choices.append(choice)
    return choices


def test_every_pair_of_options_of_two_groups_composes(composer):
    failed = []
    for choice in covering_choices():
        overrides = [f"{group}={option}" for group, option in choice.items()]
        try:
            resolved(composer(*overrides))
        except Exception as error:  # all failures together say more than the first
            failed.append(f"{' '.join(overrides)}: {error}")
    assert not failed, "\n".join(failed)


def test_the_environment_of_rays_workers_is_text(composer):
    """Ray refuses numbers, after the start."""
    config = resolved(composer("lab.seed=3", "lab.env.OMP_NUM_THREADS=2"))
    env = config["ray_kwargs"]["ray_init"]["runtime_env"]["env_vars"]
    assert env["LAB_SEED"] == "3" and env["OMP_NUM_THREADS"] == "2"
    assert all(isinstance(value, str) for value in env.values())
