"""Hydra's own habits: what a command line of it may say, in the form that this project composes.

Switches anywhere, `~/x`, search paths of one's own, verl's own groups, keys that are given twice.
"""

import importlib.util
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from preflight.mistakes import Mistake

OPEN = {  # verl's place for words that it passes on → ours, to which conf/trainer maps it
    "ray_kwargs.ray_init.runtime_env.env_vars": "lab.env",
    "actor_rollout_ref.rollout.engine_kwargs.vllm": "lab.hw.vllm_kwargs",
    "data.apply_chat_template_kwargs": "lab.model.chat_template_kwargs",
}


def split(override: str) -> tuple[str, str]:
    """Key and value of `key=value`, without Hydra's `+`, `++`, `~`."""
    key, _, value = override.partition("=")
    return key.lstrip("+~"), value


def key_of(override: str) -> str:
    """The key of an override."""
    return split(override)[0]


def sorted_out(argv: list[str]) -> tuple[list[str], list[str]]:
    """Switches, each with its value, and overrides: Hydra's parser takes no switch behind an override.

    People write them where they like. A switch whose value may be left out (`--info`) gets Hydra's own one.
    """
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    known = {name: action for action in parser._actions for name in action.option_strings}
    switches, overrides, rest = [], [], list(argv)
    while rest:
        arg = rest.pop(0)
        action = known.get(arg)
        if action is None:
            (switches if arg.startswith("-") else overrides).append(arg)
        elif action.nargs == "?":
            named = rest and rest[0] in (action.choices or ())
            switches.append(f"{arg}={rest.pop(0) if named else action.const}")
        else:
            takes_value = action.nargs is None  # a flag has 0
            switches += [arg, rest.pop(0)] if takes_value and rest else [arg]
    completes = {"--shell-completion", "-sc"}.intersection(switches)
    if completes and not {"install", "uninstall", "query"}.intersection(map(key_of, overrides)):
        raise Mistake('--shell-completion needs one more word: `eval "$(python launch.py --shell-completion'
                      ' install=bash)"` (or zsh, fish); uninstall=bash takes it back.')  # fmt: skip
    return switches, overrides


def at_home(arg: str) -> str:
    """`~/x` in a value is the home folder's: the shell leaves it as it is behind a key with a point."""
    return re.sub(r"(?<=[=\[,'\"])~(?=/)", lambda _: str(Path.home()), arg)


def in_environment(arg: str) -> str:
    """A variable at verl's place for Ray's workers, at this project's place for all processes (`lab.env`)."""
    key, equals, value = arg.partition("=")
    name = key.lstrip("+~")
    for verls, ours in OPEN.items():
        if name.startswith(f"{verls}.") and equals:
            return f"++{ours}{name.removeprefix(verls)}={value}"
    return arg


def own_folders(switches: list[str], overrides: list[str]) -> list[Path]:
    """Folders with a user's own options: --config-dir, and those of hydra.searchpath that are folders here."""
    folders = []
    for number, arg in enumerate(switches):
        name, _, value = arg.partition("=")
        if name in ("--config-dir", "-cd"):
            folders.append(Path(value or "".join(switches[number + 1 : number + 2])))
    for place in (place for arg in overrides for place in searched(arg)):
        scheme, _, name = place.rpartition("://")
        if scheme == "pkg":
            try:
                spec = importlib.util.find_spec(name.replace("/", "."))
            except ModuleNotFoundError:
                spec = None  # Hydra says so
            folders += map(Path, (spec and spec.submodule_search_locations) or ())
        elif scheme in ("", "file"):
            folders.append(Path(name))
    return folders


def parsed(arg: str) -> Any:
    """The value of an override, as Hydra reads it; None if it can't (then it says why)."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    try:
        return OverridesParser.create().parse_override(arg).value()
    except OverrideParseException:
        return None


def first_of_sweep(arg: str) -> str:
    """The override of the first job of a sweep (`algo=grpo,rloo` → `algo=grpo`); another one as it is."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(arg)
        values = override.sweep_string_iterator() if override.is_sweep_override() else None
        return arg if values is None else f"{arg.partition('=')[0]}={next(iter(values))}"
    except HydraException:
        return arg  # Hydra says what it can't read


def searched(arg: str) -> list[str]:
    """The places of a `hydra.searchpath=[...]`; none of another override."""
    value = parsed(arg) if key_of(arg) == "hydra.searchpath" else None
    return [
        str(place) for place in (value if isinstance(value, list) else [value] if value else [])
    ]


def with_ours(arg: str) -> str:
    """A search path of the command line stands in the place of conf/config.yaml's: it gets what is needed of that."""
    places = searched(arg)
    if not places:
        return arg
    places += [f"file://{verl_config().parent}", "machine://"]
    return f"{arg.partition('=')[0]}=[{','.join(repr(place) for place in places)}]"


def is_verls_choice(arg: str, known: dict) -> bool:
    """Whether an override chooses the file of verl's own groups that is chosen anyway (`engine=fsdp`).

    Raises Mistake for another file of such a group: this project has one kind of engine.
    """
    group, value = split(arg)
    if arg.startswith("~") or "." in group.partition("@")[0] or value in known.get(group, {}):
        return False
    for name, usual in verls_choices():
        if group in (name, name.partition("@")[0]) and "/" not in value:
            if value == usual:
                return True
            if (verl_config() / name.partition("@")[0] / f"{value}.yaml").is_file():
                raise Mistake(f"{arg} chooses a part of verl's config that this project has not: it has"
                              f" {group}={usual}. Leave it out.")  # fmt: skip
    return False


def verl_config() -> Path:
    """The folder of verl's own config tree."""
    from preflight.facts import verl_folder

    return verl_folder() / "trainer/config"


def verls_choices() -> list[tuple[str, str]]:
    """(group or group@place, its usual file) of verl's own config trees, for RL and for SFT."""
    found = []
    for tree in ("ppo_trainer", "sft_trainer_engine"):
        listed = yaml.safe_load((verl_config() / f"{tree}.yaml").read_text())["defaults"]
        pairs = [pair for line in listed if isinstance(line, dict) for pair in line.items()]
        plain = dict(pairs)
        for name, value in pairs:
            text = str(value)
            for other, chosen in plain.items():
                text = text.replace(f"${{{other}}}", str(chosen))
            found.append((name, text))
    return found


def with_sweeper_params(overrides: list[str]) -> list[str]:
    """`hydra.sweeper.params={KEY: "1,2"}` as overrides of the keys, as Hydra reads it in YAML; here it can't."""
    kept, given = [], {key_of(arg) for arg in overrides}
    for arg in overrides:
        value = parsed(arg) if key_of(arg) == "hydra.sweeper.params" else None
        if isinstance(value, dict):
            kept += [f"{key}={swept}" for key, swept in value.items() if str(key) not in given]
        else:
            kept.append(arg)
    return kept


def once(overrides: list[str], known: dict) -> list[str]:
    """Of a key that is given twice the last one, which counts; it is told. Two options of a group are a mistake."""
    last = {key_of(arg): arg for arg in overrides if not arg.startswith("~")}
    for key, number in Counter(
        key_of(arg) for arg in dict.fromkeys(overrides) if not arg.startswith("~")
    ).items():
        if number == 1:
            continue
        values = [split(arg)[1] for arg in overrides if key_of(arg) == key]
        if key in known and values[-1] != "none":  # which takes the choice back
            raise Mistake(f"{key}= is given twice, {' and '.join(values)}: leave one out.")
        print(
            f"note: {key} is given {number} times; the last one counts: {last[key]}",
            file=sys.stderr,
        )
    return [
        arg for arg in dict.fromkeys(overrides) if arg.startswith("~") or last[key_of(arg)] == arg
    ]
