"""Options of self-play, whose second stage would tell them only after the first."""

from hydra import compose
from omegaconf import DictConfig, OmegaConf

from preflight.mistakes import nearest
from preflight.names import keys_of

COUNTS = ("rounds", "prompts", "pairs_per_prompt", "epochs")


def check_self_play(config: DictConfig) -> str | None:
    """Ranges that mean something, and keys that algo=dpo has."""
    options = OmegaConf.select(config, "self_play")
    if options is None:
        return None
    for name in COUNTS:
        if not isinstance(options[name], int) or options[name] < 1:
            return f"self_play.{name}={options[name]} is not a whole number from 1 on."
    if not isinstance(options.margin, int | float) or options.margin < 0:
        return f"self_play.margin={options.margin} is not a number from 0 on."
    if not isinstance(options.beta, int | float) or options.beta <= 0:
        return f"self_play.beta={options.beta} is not a number above 0."
    if (config.trainer.total_training_steps or 0) < 1:
        return "trainer.total_training_steps is the number of rounds: leave it out, or at least 1."
    n = config.actor_rollout_ref.rollout.n
    if n < 2 * options.pairs_per_prompt:
        return (f"self_play.pairs_per_prompt={options.pairs_per_prompt} needs twice as many answers:"
                f" actor_rollout_ref.rollout.n={n}.")  # fmt: skip
    if not options.train:
        return None
    dpo = compose("config", ["algo=dpo"])  # by the Hydra that composed `config`
    known = set(keys_of(dpo))
    for key in keys_of(options.train):
        parent = key.rpartition(".")[0]
        free = ".override_config." in key or (parent and not OmegaConf.select(dpo, parent))
        if key not in known and not free:
            return f"self_play.train.{key}: algo=dpo has no such key.{nearest(key, known)}"
    return None
