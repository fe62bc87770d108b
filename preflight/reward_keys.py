"""`lab.reward.KEY`: an option of the reward. verl's long key for the same goes on working, wherever it stands.

conf/trainer maps the one to the other: reward_kwargs is `${lab.reward}`. On a command line the long key is read as the
short one (`short`). A YAML file in the old way, with a mapping in reward_kwargs, makes a copy of that; `gather` puts
the copy back into lab.reward, so that all that comes after finds every option at both places.
"""

from collections.abc import Iterable

from omegaconf import DictConfig, OmegaConf, open_dict

LONG, SHORT = "reward.custom_reward_function.reward_kwargs", "lab.reward"
MAPPED = f"${{{SHORT}}}"


def short(arguments: Iterable[str]) -> list[str]:
    """A command line with the short key for the long one.

    `++` lets it set an option that no YAML file names, as of a reward of one's own; whether the reward has such an
    option is looked at later (preflight/reward_function.py).
    """
    return [_short(argument) for argument in arguments]


def _short(argument: str) -> str:
    key, equals, value = argument.partition("=")
    name = key.lstrip("+~")
    for prefix in (LONG, SHORT):
        if name == prefix or name.startswith(f"{prefix}."):
            name = SHORT + name.removeprefix(prefix)
            return f"{'~' if key.startswith('~') else '++'}{name}{equals}{value}"
    return argument


def given(overrides: Iterable[str]) -> set[str]:
    """Names of the options that a command line sets."""
    keys = (override.partition("=")[0].lstrip("+") for override in short(overrides))
    return {key.split(".")[2] for key in keys if key.startswith(f"{SHORT}.")}


def gather(config: DictConfig, overrides: Iterable[str]) -> None:
    """Options that stand elsewhere come into lab.reward, and those of another reward leave it.

    A YAML file that writes reward_kwargs itself: its options are the reward's, but for those of the command line.
    `reward=none` beside a preset, on the command line: the options that the preset sets are of its own reward, not
    of the function that comes in its place.

    Args:
        config: composed, not resolved; it is changed.
        overrides: of the command line.
    """
    overrides = list(overrides)
    function = OmegaConf.select(config, LONG.rpartition(".")[0])
    if function is None or "reward_kwargs" not in function:
        return
    options = OmegaConf.select(config, SHORT) or OmegaConf.create(
        {}
    )  # a run that began before there was this key
    written, mine = function._get_node("reward_kwargs"), given(overrides)
    with open_dict(config):
        if OmegaConf.is_dict(written) and not (written._is_none() or written._is_interpolation()):
            for name in mine & options.keys():
                written[name] = options._get_node(name)
            config.lab.reward, function.reward_kwargs = written, MAPPED
        preset = any(override.startswith("experiment=") for override in overrides)
        if preset and "reward=none" in overrides:
            for name in config.lab.reward.keys() - mine:
                config.lab.reward.pop(name)
