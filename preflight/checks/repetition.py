"""What is to make a run the same each time (docs/runs.md)."""

from omegaconf import DictConfig, OmegaConf

from preflight.checks import applies_to
from preflight.facts import given, is_rl

ROLLOUT, REWARD_MODEL = "actor_rollout_ref.rollout", "reward.reward_model"
SEEDS = "lab.hw.answer_seeds"


@applies_to(is_rl)
def check_full_determinism(config: DictConfig) -> str | None:
    """verl's switch: one seed for all answers of a step (vllm_async_server.py:626), kernels that a CPU hasn't."""
    on_cpu = config.lab.hw.device == "cpu"
    if config.actor_rollout_ref.rollout.full_determinism:
        instead = f"{SEEDS}=true gives each answer its own"
        if not on_cpu:
            instead += (
                ", and +lab.env.VLLM_BATCH_INVARIANT=1 makes vLLM's results the same in every batch"
            )
        return (f"{ROLLOUT}.full_determinism=true gives all answers one seed, so those of a group are alike: leave it"
                f" out. {instead}.")  # fmt: skip
    model = config.reward.reward_model
    if on_cpu and model.enable and OmegaConf.select(model, "rollout.full_determinism"):
        return f"{REWARD_MODEL}.rollout.full_determinism=true asks vLLM for kernels that are for GPUs: leave it out."
    return None


def check_answer_seeds(config: DictConfig) -> str | None:
    """Seeds that nobody takes."""
    if not given(SEEDS) or not config.lab.hw.answer_seeds:
        return None
    if not is_rl(config):
        return f"{SEEDS} does nothing: nothing is sampled here."
    name, mode = config.actor_rollout_ref.rollout.name, config.trainer.v1.trainer_mode
    if name != "vllm":
        return f"{SEEDS} does nothing with {ROLLOUT}.name={name}: it is for vLLM."
    if mode != "sync":
        return f"{SEEDS} does nothing with trainer.v1.trainer_mode={mode}: which answers a step takes depends on time."
    return None
