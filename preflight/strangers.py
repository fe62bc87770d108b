"""Keys that the composed config has not: what they are called now, who has them, which one is near."""

import re
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf

from preflight import renamed
from preflight.declared import verls_tree
from preflight.hydra_words import first_of_sweep, key_of
from preflight.mistakes import MAX_LINES, Mistake, nearest
from preflight.names import CONF, composed, groups, keys_of


def unknown_keys(overrides: list[str]) -> list[str]:
    """A line for all keys that the composed config has not; below it what the checks say of the other overrides."""
    from preflight import prepare

    overrides = [first_of_sweep(arg) for arg in overrides if "=glob(" not in arg]
    chosen = [arg for arg in overrides if key_of(arg) in groups() and "{" not in arg]
    config = composed(chosen)
    keys = [arg for arg in overrides if arg not in chosen and arg[0] not in "+~"]
    strange = [
        arg
        for arg in keys
        if not has(config, key_of(arg)) or key_of(arg).partition(".")[0] in renamed.LEGACY
    ]
    if not strange:
        return []  # a key inside of a value
    known = keys_of(config)
    lines = [strangers([key_of(arg) for arg in strange], known, overrides)]
    try:
        prepare(composed([arg for arg in overrides if arg not in strange]))
    except Mistake as mistake:
        lines += str(mistake).splitlines()
    except Exception:  # of a sweep, or of a value: they are told when the keys are right
        pass
    return lines[:MAX_LINES]


def has(config: DictConfig, key: str) -> bool:
    """Whether a config has a key; below an interpolation, or in an open dict, nobody knows before it is set."""
    if key.startswith("hydra.") or "/" in key or "@" in key:
        return True
    node = config
    for name in key.split("."):
        if not OmegaConf.is_dict(node) or node._is_none() or node._is_interpolation():
            return True
        if name not in node:
            return False
        node = node._get_node(name)
    return True


def strangers(keys: list[str], known: list[str], overrides: list[str]) -> str:
    """The line for keys that are unknown, each with what may have been meant."""
    told = {key: meant(key, known, overrides) for key in keys}
    if len(keys) == 1:
        (key, hint), *_ = told.items()
        said = hint or f"`--cfg job` shows all keys; `+{key}=...` adds one."
        return f"unknown key {key!r}. {said}"
    each = "; ".join(f"{key}{hint and f' ({hint.rstrip(chr(46))})'}" for key, hint in told.items())
    return f"{len(keys)} unknown keys: {each}. `--cfg job` shows all keys."


def meant(key: str, known: list[str], overrides: list[str]) -> str:
    """What an unknown key is called now, who has it, or which one is near; "" if nobody knows."""
    read = [other for other in known if other.partition(".")[0] not in renamed.LEGACY]
    if new := renamed.renamed(key, read):
        return f"It is {new} now."
    if (why := renamed.why_gone(key)) is not None:
        return f"It has no equivalent{why and f': {why}'}."
    if owner := owner_of(key):
        return f"It is a key of {owner}."
    if not key.startswith("lab.") and (new := renamed.moved(key, read)):
        return f"It is {new} now."
    near = nearest(key, read).strip()
    return (
        f"{near} `--cfg job` shows all keys; `+{key}=...` adds one."
        if near and len(overrides) == 1
        else near
    )


def owner_of(key: str) -> str:
    """Who has a key that this run has not: another kind of trainer, or an option of a group, as `reward=model`."""
    for rl, trainer in ((True, "rl"), (False, "sft")):
        if key.partition(".")[0] not in renamed.LEGACY and has(verls_tree(rl), key):
            algos = [algo for algo in groups()["algo"] if trainer_of(algo) == trainer]
            return (
                f"{'RL' if rl else 'SFT'} (algo={', '.join(algos[:4])}{', ...' * (len(algos) > 4)})"
            )
    for group, options in groups().items():
        for option in options:
            if group != "experiment" and key in written_by(CONF / group / f"{option}.yaml"):
                return f"{group}={option}"
    return ""


def trainer_of(algo: str) -> str:
    """The option of the group trainer that an algorithm's file picks."""
    listed = (yaml.safe_load((CONF / "algo" / f"{algo}.yaml").read_text()) or {}).get(
        "defaults", ()
    )
    return next(
        (
            line["override /trainer"]
            for line in listed
            if isinstance(line, dict) and "override /trainer" in line
        ),
        "rl",
    )


def written_by(file: Path) -> set[str]:
    """Dotted keys that a file of conf/ writes itself."""
    text = file.read_text()
    package = re.search(r"# @package (\S+)", text)
    place = package[1].replace("_global_", "") if package else file.parent.name
    content = yaml.safe_load(text) or {}
    content.pop("defaults", None)
    return set(keys_of(OmegaConf.create(content), f"{place}." if place else ""))
