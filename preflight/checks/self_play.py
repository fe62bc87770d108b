"""Options of self-play, whose second stage would tell them only after the first."""

from hydra import compose
from omegaconf import DictConfig, OmegaConf

from preflight.checks import applies_to
from preflight.facts import has_options
from preflight.mistakes import nearest
from preflight.names import keys_of

COUNTS = ("rounds", "prompts", "pairs_per_prompt", "epochs")


@applies_to(has_options("self_play"))
def check_self_play(config: DictConfig) -> str | None:
    """Ranges that mean something, and keys that algo=dpo has."""
    options = config.self_play
    for name in COUNTS:
        if not isinstance(options[name], int) or options[name] < 1:
            return f"self_play.{name}={options[name]} is not a whole number, 1 or more."
    if not isinstance(options.margin, int | float) or options.margin < 0:
        return f"self_play.margin={options.margin} is not a number, 0 or more."
    if not isinstance(options.beta, int | float) or options.beta <= 0:
        return f"self_play.beta={options.beta} is not a number above 0."
    if (config.trainer.total_training_steps or 0) < 1:
        return (
            "trainer.total_training_steps is the number of rounds: leave it out, or set 1 or more."
        )
    n = config.actor_rollout_ref.rollout.n
    if n < 2 * options.pairs_per_prompt:
        return (f"self_play.pairs_per_prompt={options.pairs_per_prompt} needs twice as many answers to a prompt:"
                f" set actor_rollout_ref.rollout.n={2 * options.pairs_per_prompt} or more.")  # fmt: skip
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
