"""The reward model that a run is scored with."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from plugins import algos
from preflight import machine
from preflight.checks import applies_to
from preflight.facts import choice, is_rl, scored_by
from preflight.models import facts_of
from preflight.resolvers import HUB_ID

STEPS = ("pkg://rewards.prm", "pkg://rewards.sql_process")  # rewards whose steps are their point
TOKENWISE = ("gae", "reinforce_plus_plus")  # of verl's: they use steps with lab.step_rewards=true
OURS = ("pkg://rewards.model", "pkg://rewards.prm")  # others (a generative model's) know themselves


def check_reward_model(config: DictConfig) -> str | None:
    """A model that gives one score is there, and long enough."""
    function, path = scored_by(config), OmegaConf.select(config, "lab.reward_model.path")
    if function is None or path is None:
        return None
    name = choice("reward")
    trainer = "prm" if name == "prm" else "rm"
    how = f"train one (`python launch.py algo={trainer}`) and name its run: lab.reward_model.path=RUN."
    if not path:
        return f"reward={name} needs a reward model: {how}"
    folder = config.reward.reward_model.model_path
    model = facts_of(folder)
    if model is None:
        if HUB_ID.fullmatch(path) and not Path(folder).is_dir():
            return None  # left to the hub
        return f"no reward model at {folder}: {how}"
    if function in OURS:
        kinds = ("ForTokenClassification", "ForSequenceClassification")[: 1 if name == "prm" else 2]
        found = (model.get("architectures") or ["?"])[0]
        if not found.endswith(kinds):
            return f"lab.reward_model.path={path} is a {found}, which gives no scores: {how}"
        labels = len(model["id2label"]) if "id2label" in model else 2  # transformers' default
        if labels != 1:
            return f"lab.reward_model.path={path} has {labels} labels, not one score: {how}"
    context, need = model.get("max_position_embeddings"), config.lab.reward_model.max_tokens
    if context and need > context:
        return f"lab.reward_model.max_tokens={need}, but the reward model's context is {context} tokens: set {context}."
    return None


@applies_to(is_rl)
def check_steps_are_used(config: DictConfig) -> str | None:
    """Step scores that no estimator sees."""
    function = OmegaConf.select(config, "reward.custom_reward_function.path")
    if function not in STEPS:
        return None
    prm = scored_by(config) == function
    if prm and not config.lab.reward_model.gpus:
        return "reward=prm scores while answers are sampled, and needs a GPU of its own: set lab.reward_model.gpus=1."
    name, wanted = config.algorithm.adv_estimator, config.lab.step_rewards
    if algos.uses_steps(name):
        lost = "lab.step_rewards=false takes away the steps that it learns from: leave it out."
        return f"{name}: {lost}" if wanted is False else None
    options = config.reward.custom_reward_function.reward_kwargs
    if wanted is True or (options.aggregate if prm else name in TOKENWISE):
        return None
    if name in TOKENWISE:
        return f"reward=prm: {name} gets its steps only with lab.step_rewards=true: set it."
    cure = (
        "put the steps into the score: reward.custom_reward_function.reward_kwargs.aggregate=min."
    )
    cure = cure if prm else "take reward=sql, whose score is the same."
    return f"{name} looks at the scores of whole answers, not of steps. Choose algo=grpo_process, or {cure}"


def check_gpus_of_reward_model(config: DictConfig) -> str | None:
    """A reward model with GPUs of its own needs more than the policy's."""
    if scored_by(config) is None or config.lab.hw.device != "cuda":
        return None
    have = len(machine.gpus())
    if OmegaConf.select(config, "ray_kwargs.ray_init.address") or not have:
        return None
    policy, own = config.trainer.n_gpus_per_node, config.lab.reward_model.gpus
    if have >= policy + own:
        return None
    cures = [f"trainer.n_gpus_per_node={have - own}"] if have > own else []
    cures += ["lab.reward_model.gpus=0 (they take turns)"] if choice("reward") == "model" else []
    return (f"{policy} GPUs for the policy and {own} for the reward model, and there are {have}:"
            f" {' or '.join(cures) or 'it needs one more'}.")  # fmt: skip
