"""Names on the command line: what there is, what is near, and what must not stand there."""

import re
from collections.abc import Iterable
from pathlib import Path

import yaml
from hydra.errors import HydraException
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from preflight import hydra_words, reward_keys
from preflight.hydra_words import split
from preflight.mistakes import Mistake, unknown

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
IN_URL = re.compile(r"://[^/\s:@]*:[^/\s@]+@")  # user:password
NO_PRESET = ("experiment=none", "experiment=null", "sweep=none", "sweep=null")  # as without them
FORMER = {"logger=file": "logger=console"}  # options that old runs have in their saved overrides
MODEL = ("actor_rollout_ref.model.path", "model.path")  # verl's keys for what `model=` chooses
MULTIRUN = frozenset(("-m", "--multirun"))
PLAIN = re.compile(r"[\w.@-]*/[\w./@-]*", re.ASCII)  # a path that is no number and no null to Hydra
SECRET = re.compile(r"(api_?key|secret|password|credential|auth|(^|_)token)$", re.IGNORECASE)


def groups(more: Iterable[Path] = ()) -> dict[str, dict[str, str]]:
    """Each group of conf/, and of `more` folders, with its options; an option with what its first comment says."""
    found: dict[str, dict[str, str]] = {}
    places = [CONF, *(folder for folder in more if folder.is_dir())]
    for folder in sorted(path for place in places for path in place.iterdir() if path.is_dir()):
        options = found.setdefault(folder.name, {})
        for file in sorted(folder.glob("*.yaml")):
            lines = file.read_text().splitlines()
            comments = [line for line in lines if line.startswith("#") and "@package" not in line]
            options[file.stem] = comments[0].lstrip("# ") if comments else ""
    return found


def describe() -> str:
    """All groups and options, for --help."""
    lines = []
    for group, options in groups().items():
        lines.append(f"{group}=")
        lines += [f"    {name:<20} {text}" for name, text in options.items()]
    return "\n".join(lines)


def check_argv(argv: list[str]) -> list[str]:
    """Check the command line before Hydra reads it (and writes it down).

    Returns:
        the arguments for Hydra: `resume=RUN` becomes the overrides of that run and its folder.
    """
    for arg in argv:
        key, value = split(arg)
        named = SECRET.search(key.rpartition(".")[2]) and value not in ("null", "''")
        if value and (named or IN_URL.search(value)):
            raise Mistake(f"{key}: no secret on the command line: it would be written into the run's folder."
                          " Put it into the environment.")  # fmt: skip
    run = resumed(argv)
    switches, overrides = hydra_words.sorted_out(argv)
    overrides = reward_keys.short(arg for arg in overrides if not arg.startswith("resume="))
    overrides = [hydra_words.at_home(hydra_words.in_environment(arg)) for arg in overrides]
    overrides = [with_path(arg) for arg in overrides]
    if run:
        if MULTIRUN.intersection(argv):
            raise Mistake(
                f"resume={run} goes on with one run, and -m starts several: leave out -m."
            )
        overrides = saved_overrides(run, overrides)
    known = groups(hydra_words.own_folders(switches, overrides))
    overrides = [arg for arg in overrides if arg not in NO_PRESET]
    overrides = [arg for arg in overrides if not hydra_words.is_verls_choice(arg, known)]
    overrides = with_model(hydra_words.with_sweeper_params(overrides))
    for arg in overrides:
        check_options(arg, known)
        if split(arg)[0] == "hydra.job.chdir" and split(arg)[1].lower() not in ("false", "null"):
            raise Mistake("hydra.job.chdir=true would look for the data and the model in the run's folder: leave it"
                          " out. All that a run writes goes there anyway.")  # fmt: skip
    return switches + [hydra_words.with_ours(arg) for arg in hydra_words.once(overrides, known)]


def with_model(overrides: list[str]) -> list[str]:
    """verl's key of the model as this project's: `model=NAME` if it has that model, else `lab.model.path`.

    The critic and the plan of memory follow from these, and a model's learning rates come with its name.
    """
    names = {} if any(split(arg)[0] == "model" for arg in overrides) else models()
    found = []
    for arg in overrides:
        value = split(arg)[1] if split(arg)[0] in MODEL and arg[0] != "~" else ""
        path = unquoted(value)
        if path:
            value = value if path == value else quoted(path)
            arg = f"model={names[path]}" if path in names else f"lab.model.path={value}"
        found.append(arg)
    return found


def models() -> dict[str, str]:
    """Hub id, or path, of each option of model=, with its name."""
    files = {
        file.stem: yaml.safe_load(file.read_text()) for file in (CONF / "model").glob("*.yaml")
    }
    return {content["path"]: name for name, content in files.items() if "path" in content}


def check_options(arg: str, known: dict) -> None:
    """The options of a group that an argument chooses must be there."""
    key, value = split(arg)
    group = key.removeprefix("lab.")
    if group in known and group != key and "=" in arg and re.fullmatch(r"[\w.-]+", value):
        raise Mistake(f"{key} holds single keys: `{group}={value}` chooses an option of {group}=.")
    if key in known and value.startswith("{"):
        raise Mistake(
            f"{key}= chooses one of {', '.join(known[key])}; set single keys as {key}.NAME=VALUE."
        )
    if "=" not in arg or key not in known or re.search(r"[(\[{$]", value):
        return  # choice(...), glob(*), lists: Hydra's grammar, and Hydra's errors
    if arg in FORMER:
        raise Mistake(f"{arg} is gone: {FORMER[arg]} does the same.")
    for name in value.split(","):
        if name.strip("'\" ") not in known[key]:
            raise Mistake(unknown(f"{key}=", name, known[key]))


def resumed(argv: list[str]) -> Path | None:
    """The folder of the run that a command line goes on with; None for a new one."""
    runs = [split(arg)[1] for arg in argv if arg.startswith("resume=")]
    return Path(runs[-1]) if runs else None


def saved_overrides(run: Path, more: list[str]) -> list[str]:
    """The arguments that go on with the run in folder `run`; those in `more` win."""
    file = run / ".hydra" / "overrides.yaml"
    if not file.is_file():
        raise Mistake(f"resume={run}: no run there (no {file})")
    try:
        words = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError):
        words = None
    if not (isinstance(words, list) and all(isinstance(word, str) for word in words)):
        raise Mistake(f"resume={run}: {file} is damaged, it must be a list of KEY=VALUE ([] if there were none):"
                      f" `command` in {run}/run.json has them.")  # fmt: skip
    if any(split(arg)[0] == "hydra.run.dir" for arg in more):
        raise Mistake(f"resume={run} goes on in its own folder: leave out hydra.run.dir. A new run that begins with"
                      f" its model: lab.model.path={run}")  # fmt: skip
    saved = {split(arg)[0]: arg for arg in reward_keys.short(words)}
    more = [  # a key that the run has added is there
        f"++{arg}" if saved.get(split(arg)[0], "").startswith("+") and arg[0] not in "+~" else arg
        for arg in more
    ]
    again = {split(arg)[0] for arg in more}
    kept = [FORMER.get(arg, arg) for key, arg in saved.items() if key not in again]
    return [*kept, f"hydra.run.dir={quoted(run)}", *more]


def quoted(value: str | Path) -> str:
    """A text as Hydra's command line takes it, whatever characters it has: in quotes, if it needs any."""
    from hydra.core.override_parser.types import Quote, QuotedString

    if PLAIN.fullmatch(text := str(value)):
        return text
    return QuotedString(text.replace("${", "\\${"), Quote.single).with_quotes()


def unquoted(value: str) -> str:
    """What `quoted` was given, or a person's own quotes are around."""
    if value[:1] not in ("'", '"'):
        return value
    from hydra.core.override_parser.overrides_parser import OverridesParser

    text = OverridesParser.create().parse_override(f"x={value}").value()
    return str(getattr(text, "text", text)).replace("\\${", "${")


def with_path(override: str) -> str:
    """An override whose value is a path that Hydra's grammar has no word for, with that in quotes: `a (1)/größe`."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, equals, value = override.partition("=")
    if "/" not in value and not key.endswith(("dir", "path")):
        return override
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return f"{key}{equals}{quoted(value)}"
    return override


def keys_of(config, prefix: str = "") -> list[str]:
    """All dotted keys of a config."""
    keys = []
    for key in config:
        keys.append(f"{prefix}{key}")
        child = config._get_node(key)
        if hasattr(child, "_get_node") and hasattr(child, "keys"):
            keys += keys_of(child, f"{prefix}{key}.")
    return keys


def composed(overrides: list[str]) -> DictConfig:
    """The config of a run, as launch.py composes it, for tools. Raises what Hydra raises."""
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig

    overrides = reward_keys.short(overrides)
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("config", overrides=overrides, return_hydra_config=True)
    except HydraException as error:
        if any("is not in struct" in str(cause) for cause in (error, error.__cause__)):
            raise Mistake(explain(error, overrides)) from error
        raise
    HydraConfig.instance().set_config(config)
    with open_dict(config):
        del config["hydra"]
    reward_keys.gather(config, overrides)
    return config


def explain(error: Exception, argv: Iterable[str] = ()) -> str:
    """One to three lines for a person's mistake, or an error of Hydra, OmegaConf or the disk.

    Args:
        argv: the arguments that Hydra got. With them all unknown keys are told at once, and what the checks say of
            the rest.
    """
    if isinstance(error, Mistake):
        return str(error)
    if isinstance(error, OSError) and not isinstance(
        error, HydraException
    ):  # a folder that can't be written, a full disk
        return f"{error.filename or 'disk'}: {error.strerror}"
    causes: list[BaseException] = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    omega = next((c for c in causes if isinstance(c, OmegaConfBaseException)), None)
    key = getattr(omega, "full_key", None)
    if key and "is not in struct" in str(omega):
        overrides = [arg for arg in argv if "=" in arg and not arg.startswith("-")]
        from preflight.strangers import unknown_keys  # which composes

        lines = unknown_keys(overrides or [f"{key}=null"])
        return (
            "\n".join(lines)
            or f"unknown key {key!r}: set keys that are there one by one, as KEY.NAME=VALUE."
        )
    if "does not support sweep type" in str(error):  # BasicSweeper's word for an interval
        return ("interval(a,b) is of a search: add hydra/sweeper=search (docs/sweeps.md), or name the values, as"
                " KEY=1,2 or KEY=range(a,b,step).")  # fmt: skip
    text = re.sub(r"\s*\n\s*", " ", str(causes[-1] if omega is None else omega)).strip()
    return text.replace(
        "Set the environment variable HYDRA_FULL_ERROR=1 for a complete stack trace.", ""
    )
