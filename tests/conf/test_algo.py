"""The settings of each algorithm, as its paper (or its authors' code) has them, in one table.

A blank (None) says that verl doesn't read the setting in this algorithm: then no file may set it.
"""

import copy
import functools
import re

import pytest
from omegaconf import OmegaConf

from preflight import names, resolvers
from preflight.checks.algorithms import check_greedy_baseline, check_manager, check_needs
from preflight.checks.batch import check_lengths, check_rl_batch
from preflight.checks.knobs import check_group, check_kl
from preflight.facts import verl_folder

GRPO = ("vanilla", (0.2, 0.2), "seq-mean-token-mean", None, (0.001, "low_var_kl"), 8, 1)
# estimator, division by the spread of the group, loss, clip range, aggregation of the loss,
# KL in the reward, KL loss (coefficient, kind), answers a prompt, updates of the actor a step
TABLE = {
    "ppo": ("gae", None, "vanilla", (0.2, 0.2), "token-mean", 0.001, None, 1, 4),
    "grpo": ("grpo", True, *GRPO),
    "dr_grpo": ("grpo", False, "vanilla", None, "seq-mean-token-sum-norm", None, None, 8, 1),
    "dapo": ("grpo", True, "vanilla", (0.2, 0.28), "token-mean", None, None, 16, 16),
    "gspo": ("grpo", True, "gspo", (3e-4, 4e-4), "seq-mean-token-mean", None, None, 8, 4),
    "cispo": ("grpo", True, "cispo", (10, 4.0), "token-mean", None, None, 8, 4),
    "sapo": ("grpo", True, "sapo", None, None, None, None, 16, 8),
    "gmpo": ("grpo", True, "geo_mean", (0.4, 0.4), None, None, None, 8, 4),
    "gpg": ("gpg", None, "gpg", None, "token-mean", None, None, 8, 1),
    "rloo": ("rloo", None, "vanilla", None, "seq-mean-token-sum", 0.03, None, 4, 1),
    "reinforce_pp": ("reinforce_plus_plus", None, "vanilla", None, "token-mean", 0.001, None, 1, 1),
    "reinforce_pp_baseline":
        ("reinforce_plus_plus_baseline", None, "vanilla", None, "token-mean", None, (1e-5, "k2"), 8, 1),
    "remax": ("remax", None, "vanilla", None, "seq-mean-token-sum", 0.001, None, 1, 1),
    "opo": ("opo", None, "vanilla", None, "token-mean", None, None, 8, 1),
    "grpo_passk": ("grpo_passk", False, "vanilla", None, "seq-mean-token-sum", None, None, 8, 1),
    "gdpo": ("gdpo", None, "vanilla", (0.2, 0.2), "token-mean", None, None, 4, 4),
    "otb": ("optimal_token_baseline", None, "vanilla", None, "token-mean", None, None, 4, 1),
    "clip_cov": ("grpo", True, "clip_cov", (1.0, 1.0), "token-mean", None, None, 8, 8),
    "kl_cov": ("grpo", True, "kl_cov", None, "token-mean", None, None, 8, 8),
    "dppo": ("grpo", False, "dppo_tv", (0.15, 0.15), "seq-mean-token-sum-norm", None, None, 16, 8),
    "grpo_weighted": ("grpo_weighted", None, *GRPO),
    "grpo_process": ("grpo_process", None, *GRPO),
    "grpo_token": ("grpo_token", None, *GRPO),
    "dro": ("grpo", False, "dro", None, "token-mean", None, None, 8, 4),
}  # fmt: skip
DEFAULT = {"std": True, "clip": (0.2, 0.2), "aggregation": "token-mean"}
ALONE = {  # what only one algorithm has; the others have verl's default
    ("dapo", "algorithm.filter_groups.enable"): True,
    ("dapo", "algorithm.filter_groups.metric"): "acc_or_score",
    ("dapo", "algorithm.filter_groups.max_num_gen_batches"): 10,
    ("dapo", "actor_rollout_ref.actor.clip_ratio_c"): 10.0,
    ("dppo", "actor_rollout_ref.actor.clip_ratio_c"): 10000.0,
    ("dppo", "algorithm.rollout_correction.bypass_mode"): True,
    ("kl_cov", "actor_rollout_ref.actor.policy_loss.kl_cov_ratio"): 0.002,
    ("kl_cov", "actor_rollout_ref.actor.policy_loss.ppo_kl_coef"): 1.0,
    ("dro", "actor_rollout_ref.actor.policy_loss.dro_beta"): 0.05,
    ("otb", "actor_rollout_ref.actor.calculate_sum_pi_squared"): True,
    ("grpo_weighted", "algorithm.grpo_weighted.weight"): 0.5,
    ("ppo", "algorithm.lam"): 0.95,
    ("ppo", "critic.cliprange_value"): 0.2,
}
SAME = {  # what is verl's default, and the papers'
    "algorithm.gamma": 1.0,
    "algorithm.kl_penalty": "kl",
    "actor_rollout_ref.actor.tau_pos": 1.0,
    "actor_rollout_ref.actor.tau_neg": 1.05,
    "actor_rollout_ref.actor.policy_loss.clip_cov_ratio": 0.0002,
    "actor_rollout_ref.actor.policy_loss.clip_cov_lb": 1.0,
    "actor_rollout_ref.actor.policy_loss.clip_cov_ub": 5.0,
    "actor_rollout_ref.actor.entropy_coeff": 0,
    "actor_rollout_ref.actor.ppo_epochs": 1,
    "actor_rollout_ref.rollout.temperature": 1.0,
}
FILES = {path.stem: path for path in (names.CONF / "algo").glob("*.yaml")}
RL = sorted(name for name, path in FILES.items() if "/trainer:" not in path.read_text())


@pytest.fixture(scope="module")
def verl():
    """verl's own defaults."""
    return OmegaConf.load(verl_folder() / "trainer/config/_generated_ppo_trainer.yaml")


@pytest.fixture(scope="module")
def algorithm(composer, tiny_model):
    """`algorithm("ppo")` → its config; each is composed once."""

    @functools.cache
    def composed(name):
        return composer(f"algo={name}", f"lab.model.path={tiny_model}")

    return lambda name: copy.deepcopy(composed(name))


def test_every_algorithm_has_a_row():
    assert sorted(TABLE) == RL


@pytest.mark.parametrize("name", sorted(FILES))
def test_the_second_line_names_the_method_and_its_paper(name):
    first, second = FILES[name].read_text().splitlines()[:2]
    assert first.startswith("# @package")
    assert re.match(r"# .*\barXiv:\d{4}\.\d{4,5}\b", second), second


@pytest.mark.parametrize("name", sorted(TABLE))
def test_the_settings_are_the_papers(algorithm, verl, name):
    estimator, std, loss, clip, aggregation, kl_reward, kl_loss, n, updates = TABLE[name]
    config = algorithm(name)
    config.lab.hw.samples_per_step = 1024  # sixteen updates divide it
    algo, actor = config.algorithm, config.actor_rollout_ref.actor
    assert algo.adv_estimator == estimator
    assert algo.norm_adv_by_std_in_grpo == (DEFAULT["std"] if std is None else std)
    assert actor.policy_loss.loss_mode == loss
    assert (actor.clip_ratio_low, actor.clip_ratio_high) == (clip or DEFAULT["clip"])
    assert actor.loss_agg_mode == (aggregation or DEFAULT["aggregation"])
    assert algo.use_kl_in_reward == (kl_reward is not None)
    assert algo.kl_ctrl.kl_coef == (kl_reward or verl.algorithm.kl_ctrl.kl_coef)
    assert actor.use_kl_loss == (kl_loss is not None)
    theirs = verl.actor_rollout_ref.actor
    assert (actor.kl_loss_coef, actor.kl_loss_type) == (
        kl_loss or (theirs.kl_loss_coef, theirs.kl_loss_type)
    )
    assert config.actor_rollout_ref.rollout.n == n
    assert config.data.train_batch_size == 1024 // n
    assert config.data.train_batch_size // actor.ppo_mini_batch_size == updates
    normed = aggregation == "seq-mean-token-sum-norm"
    assert actor.loss_scale_factor == (config.data.max_response_length if normed else None)
    for key in {key for _, key in ALONE}:
        expected = ALONE.get((name, key), OmegaConf.select(verl, key))
        assert OmegaConf.select(config, key) == expected, key
    for key, value in SAME.items():
        assert OmegaConf.select(config, key) == value, key


def test_the_penalty_of_dapo_follows_the_length_of_an_answer(composer):
    reward = composer("algo=dapo", "data.max_response_length=20480").reward
    assert reward.reward_kwargs.max_resp_len == 20480
    buffer = reward.reward_kwargs.overlong_buffer_cfg
    assert (buffer.enable, buffer.len, buffer.penalty_factor) == (True, 4096, 1.0)


def test_the_parts_of_gdpo_are_those_of_the_reward(composer):
    algorithm = composer("algo=gdpo").algorithm
    assert len(algorithm.gdpo_reward_keys) == len(algorithm.gdpo_reward_weights)
    from rewards._sql.shaping import report

    assert set(algorithm.gdpo_reward_keys) <= set(report("arctic", "match"))


@pytest.fixture(scope="module")
def machines(composer):
    """Answers a step and training workers of each hw profile."""
    configs = {name: composer(f"hw={name}") for name in names.groups()["hw"]}
    return {
        name: (config.lab.hw.samples_per_step, config.trainer.n_gpus_per_node)
        for name, config in configs.items()
    }


@pytest.mark.parametrize("name", RL)
def test_preflight_has_nothing_to_say_of_a_shipped_algorithm(algorithm, machines, name):
    config = algorithm(name)
    config.data.train_files = []  # no rows to count
    for check in (check_kl, check_group, check_needs, check_greedy_baseline, check_manager):
        assert check(config) is None
    for machine, (samples, workers) in machines.items():
        config.lab.hw.samples_per_step = samples
        config.trainer.n_gpus_per_node = workers
        assert check_rl_batch(config) is None, machine
        assert check_lengths(config) is None, machine


VERLS = "reward.reward_manager.source=register reward.reward_manager.name"


@pytest.mark.parametrize(
    "override, says",
    [
        ("algorithm.adv_estimator=optimal_token_baseline", "calculate_sum_pi_squared"),
        ("algorithm.adv_estimator=gdpo", "gdpo_reward_keys"),
        ("actor_rollout_ref.actor.policy_loss.loss_mode=dro", "dro_beta"),
        ("algo=remax actor_rollout_ref.rollout.val_kwargs.temperature=1", "greedy"),
        ("algo=remax trainer.v1.trainer_mode=separate_async", "sync"),
        (f"algo=dapo {VERLS}=naive", "overlong_buffer_cfg does nothing"),
        (f"algo=dapo {VERLS}=dapo", "know the metric acc_or_score"),
    ],
)
def test_preflight_names_what_an_algorithm_lacks(composer, override, says):
    config = composer(*override.split())
    said = [check(config) for check in (check_needs, check_greedy_baseline, check_manager)]
    assert [line for line in said if line and says in line]


@pytest.mark.parametrize("name", sorted(FILES))
def test_what_a_trainer_declares_is_there(composer, name):
    """lab.trainer, on which preflight, the plan and the tools rely, whatever an algorithm's name is."""
    config = composer(f"algo={name}")
    trainer = config.lab.trainer
    assert set(trainer) == {"entry", "kind", "unused", "options", "rows", "columns", "sequences", "head",
                            "makes_reward"}  # fmt: skip
    assert (trainer.kind == "rl") == ("actor_rollout_ref" in config)
    package, _, rest = trainer.entry.partition(".")
    folder = verl_folder() if package == "verl" else names.ROOT / package
    assert (folder / f"{rest.replace('.', '/')}.py").is_file()
    assert trainer.head in ("lm", "value") and trainer.sequences >= 1 and list(trainer.columns)
    assert set(trainer.options) <= set(config) and set(trainer.unused) <= set(config)
    if trainer.rows:
        named = config.lab.dataset[f"{trainer.rows}_train"]
        assert config.data.train_files == resolvers.absolute(named)
    if trainer.makes_reward:
        assert trainer.head == "value" and trainer.makes_reward in names.groups()["reward"]
