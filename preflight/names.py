"""Names on the command line: what there is, what is near, and what must not stand there."""

import re
from pathlib import Path

import yaml
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from preflight import reward_keys
from preflight.mistakes import Mistake, nearest, unknown

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
IN_URL = re.compile(r"://[^/\s:@]*:[^/\s@]+@")  # user:password
NO_PRESET = ("experiment=none", "experiment=null", "sweep=none", "sweep=null")  # as without them
FORMER = {"logger=file": "logger=console"}  # options that old runs have in their saved overrides
MULTIRUN = frozenset(("-m", "--multirun"))
SECRET = re.compile(r"(api_?key|secret|password|credential|auth|(^|_)token)$", re.IGNORECASE)


def groups() -> dict[str, dict[str, str]]:
    """Each group of conf/ with its options; an option with what its first comment says."""
    found: dict[str, dict[str, str]] = {}
    for folder in sorted(path for path in CONF.iterdir() if path.is_dir()):
        options = {}
        for file in sorted(folder.glob("*.yaml")):
            lines = file.read_text().splitlines()
            comments = [line for line in lines if line.startswith("#") and "@package" not in line]
            options[file.stem] = comments[0].lstrip("# ") if comments else ""
        found[folder.name] = options
    return found


def describe() -> str:
    """All groups and options, for --help."""
    lines = []
    for group, options in groups().items():
        lines.append(f"{group}=")
        lines += [f"    {name:<20} {text}" for name, text in options.items()]
    return "\n".join(lines)


def split(override: str) -> tuple[str, str]:
    """Key and value of `key=value`, without Hydra's `+`, `++`, `~`."""
    key, _, value = override.partition("=")
    return key.lstrip("+~"), value


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
    argv = reward_keys.short(arg for arg in argv if not arg.startswith("resume="))
    if run:
        if MULTIRUN.intersection(argv):
            raise Mistake(
                f"resume={run} goes on with one run, and -m starts several: leave out -m."
            )
        argv = saved_overrides(run, argv)
    else:
        for arg in argv:
            key, value = split(arg)
            jobs = {"hydra.run.dir": ".", "hydra.sweep.dir": "*"}.get(key)
            for there in sorted(Path(value).glob(f"{jobs}/resolved.yaml")) if jobs else []:
                raise Mistake(f"{there.parent} holds a run already: `resume={there.parent}` goes on with it,"
                              " another folder keeps it as it is.")  # fmt: skip
    known = groups()
    argv = [arg for arg in argv if arg not in NO_PRESET]
    for arg in argv:
        check_options(arg, known)
    # Hydra's parser takes no switch behind an override, but people write them where they like.
    switches, overrides, rest = [], [], iter(argv)
    for arg in rest:
        if arg in ("--cfg", "-c", "--info", "-i"):  # those with a value
            switches += [arg, next(rest, "")]
        else:
            (switches if arg.startswith("-") else overrides).append(arg)
    return switches + overrides


def check_options(arg: str, known: dict) -> None:
    """The options of a group that an argument chooses must be there."""
    key, value = split(arg)
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
    saved = {split(arg)[0]: arg for arg in reward_keys.short(yaml.safe_load(file.read_text()))}
    more = [  # a key that the run has added is there
        f"++{arg}" if saved.get(split(arg)[0], "").startswith("+") and arg[0] not in "+~" else arg
        for arg in more
    ]
    again = {split(arg)[0] for arg in more}
    kept = [FORMER.get(arg, arg) for key, arg in saved.items() if key not in again]
    return [*kept, f"hydra.run.dir={run}", *more]


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
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    with open_dict(config):
        del config["hydra"]
    reward_keys.gather(config, overrides)
    return config


def explain(error: Exception) -> str:
    """One or two lines for an error of Hydra or OmegaConf while composing."""
    causes: list[BaseException] = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    omega = next((c for c in causes if isinstance(c, OmegaConfBaseException)), None)
    key = getattr(omega, "full_key", None)
    if key and "is not in struct" in str(omega):
        from hydra import compose, initialize_config_dir

        with initialize_config_dir(str(CONF), version_base="1.3"):
            known = keys_of(compose("config", return_hydra_config=False))
        return f"unknown key {key!r}.{nearest(key, known)} `--cfg job` shows all keys; `+{key}=...` adds one."
    text = re.sub(r"\s*\n\s*", " ", str(causes[-1] if omega is None else omega)).strip()
    return text.replace(
        "Set the environment variable HYDRA_FULL_ERROR=1 for a complete stack trace.", ""
    )
