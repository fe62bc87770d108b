"""A shell script of verl, in this project's words: which groups and keys make the same run.

preflight/shell.py says with which overrides the script starts verl. A key that conf/ derives from one of `lab.*`
becomes that one; a value that the chosen options have anyway is not repeated; an old key becomes the new one. What has
no equivalent is told, each thing in a line.
"""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import yaml
from omegaconf import DictConfig, OmegaConf

from preflight import hydra_words, names, renamed, strangers
from preflight.checks import knobs
from preflight.checks.names import OURS
from preflight.declared import verls_tree
from preflight.engines import has_critic
from preflight.mistakes import Mistake
from preflight.shell import UNKNOWN, CantRead, Command, Script
from preflight.values import written

SWITCH = "--from-script"
WIDTH = 110  # of a printed line
GPU_GIB = 80  # of the GPUs that verl's scripts are written for; they don't say so
DERIVED = re.compile(r"\$\{(?:lab\.(?:path|model_path|epochs):\$\{)?(lab\.[\w.]+)\}(?:[,}].*)?")
FOLDERS = ("trainer.default_local_dir", "trainer.rollout_data_dir", "trainer.validation_data_dir")
OF_A_FOLDER = "the run's own folder has them (hydra.run.dir=FOLDER)"
ENGINES = {"actor_rollout_ref.rollout.name": "vllm", "trainer.device": "cuda"}  # what conf/ has
NEEDED = re.compile(r"critic\.|.*micro_batch_size|.*use_dynamic_bsz")
ELSEWHERE = ("files", "machine", "ray")  # checks of what this machine has


class Translation(NamedTuple):
    """Of one start of verl in a script.

    Args:
        line: of the script, from 1.
        words: arguments of launch.py.
        told: what is different, or left out, and why; a line each.
        complaints: of the checks about `words`, but for files and this machine.
    """

    line: int
    words: list[str]
    told: list[str]
    complaints: list[str]

    def __str__(self) -> str:
        """A command for a shell, with all that is to be told as comments."""
        lines, row = ["python launch.py"], ""
        for word in map(shlex.quote, self.words):
            if row and len(row) + len(word) > WIDTH:
                lines, row = [*lines, row], ""
            row = f"{row} {word}".strip()
        command = " \\\n    ".join([*lines, row] if row else lines)
        wrong = [f"# the checks: {line}" for line in self.complaints]
        return "\n".join(
            [
                f"# line {self.line} of the script:",
                command,
                *(f"# {line}" for line in self.told),
                *wrong,
            ]
        )


def show(argv: list[str]) -> str:
    """What `launch.py --from-script FILE [WORD...]` prints; `-` reads standard input. Raises Mistake."""
    at = next(at for at, arg in enumerate(argv) if is_switch(arg))
    _, equals, file = argv[at].partition("=")
    rest = argv[:at] + argv[at + 1 :]
    if not equals:
        file, rest = (argv[at + 1], argv[:at] + argv[at + 2 :]) if argv[at + 1 :] else ("", rest)
    if not file:
        raise Mistake(f"{SWITCH} needs a file: {SWITCH} run_qwen.sh (or - for standard input)")
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(
            f"{SWITCH} {file}: {getattr(error, 'strerror', None) or 'no text'}"
        ) from error
    return "\n\n".join(map(str, translate(text, rest)))


def is_switch(arg: str) -> bool:
    """Whether an argument is --from-script, with its file or without."""
    return arg.partition("=")[0] == SWITCH


def translate(text: str, more: list[str]) -> list[Translation]:
    """All starts of verl in a script.

    Args:
        text: of the script; nothing of it is run.
        more: arguments of launch.py that win, as `hw=rtx4090`; others are the script's own `"$@"`.

    Raises Mistake if it can't be read, or starts nothing of verl.
    """
    groups = names.groups()
    ours = [arg for arg in more if names.split(arg)[0] in groups or arg.startswith("lab.")]
    try:
        script = Script(text, tuple(arg for arg in more if arg not in ours))
    except CantRead as error:
        raise Mistake(f"the script can't be read: {error}") from error
    started = [
        (command, at) for command in script.commands if (at := entry(command.words)) is not None
    ]
    found = [Start(command, at, ours, script.doubts).translation() for command, at in started]
    if not found:
        doubts = "".join(f"; {doubt}: nobody can say without running it" for doubt in script.doubts)
        raise Mistake(
            f"no command of the script starts a trainer of verl (-m verl.trainer.main_ppo){doubts}."
        )
    return found


def entry(words: list[str]) -> int | None:
    """Where the words name a trainer of verl, as a module or a file; None if they don't."""
    for at, word in enumerate(words):
        module = word.removesuffix(".py").replace("/", ".")
        if re.search(r"(^|\.)(main_ppo|main_\w+|\w*sft_trainer\w*)$", module) and "=" not in word:
            return at
    return None


class Start:
    """One start of verl, and what becomes of it."""

    def __init__(self, command: Command, at: int, ours: list[str], doubts: list[str]):
        self.command, self.ours = command, ours
        self.module = command.words[at].removesuffix(".py").replace("/", ".")
        self.is_rl = "sft" not in self.module
        self.before, self.after = command.words[:at], command.words[at + 1 :]
        self.told = [
            f"{doubt}: nobody can say without running it; the other way was taken"
            for doubt in doubts
        ]
        self.given = self.overrides()
        self.chosen: dict[str, str] = {}

    def tell(self, key: str, why: str) -> None:
        """A line about a key of the script; those with one reason share it."""
        for number, line in enumerate(self.told):
            if line.endswith(f": {why}"):
                self.told[number] = f"{line.removesuffix(f': {why}')}, {key}: {why}"
                return
        self.told.append(f"{key}: {why}")

    def overrides(self) -> dict[str, str]:
        """Keys and values of the script, by today's names; of a key that is given twice the last one."""
        tree = verls_tree(self.is_rl)
        known = [key for key in names.keys_of(tree) if key.partition(".")[0] not in renamed.LEGACY]
        there, given = set(known), {}
        for word in self.after:
            key, value = names.split(word)
            if word.startswith("-"):
                if word.partition("=")[0] in ("--config-name", "-cn") and "ppo_trainer" not in word:
                    self.tell(
                        word,
                        "this project trains with FSDP, by verl's ppo_trainer; keys of it alone are left out",
                    )
                continue
            if "=" not in word:
                continue
            if word.startswith("~"):
                self.tell(word, "takes away what conf/ has not")
                continue
            if ".megatron." in key or value.strip("'\"") == "megatron":
                self.tell(word, "Megatron has no equivalent, this project trains with FSDP2")
                continue
            if key in FOLDERS:
                self.tell(key, OF_A_FOLDER)
                continue
            if UNKNOWN in value:
                value = value.replace(UNKNOWN, "").strip("-_ .")
                known_part = key in ("trainer.experiment_name", "trainer.project_name") and value
                self.tell(
                    key,
                    "a program makes a part of it when the script runs"
                    + ("" if known_part else ": left out"),
                )
                if not known_part:
                    continue
            if self.is_choice(word, key):
                continue
            if key not in there and not any(other.startswith(f"{key}.") for other in there):
                key, value = self.todays(key, value, known)
            if key:
                given[key] = value
        return given

    def is_choice(self, word: str, key: str) -> bool:
        """Whether a word chooses a file of verl's own config tree; another than the usual one is told."""
        if "." in key.partition("@")[0]:
            return False
        try:
            return hydra_words.is_verls_choice(word, {})
        except Mistake as mistake:
            self.told.append(str(mistake))
            return True

    def todays(self, key: str, value: str, known: list[str]) -> tuple[str, str]:
        """An old key by its new name; ("", "") for one that is gone or unknown, which is told."""
        if any(key == root or key.startswith(f"{root}.") for root in OURS):
            return key, value
        new = renamed.renamed(key, known)
        why = renamed.why_gone(key)
        if not new and why is None:
            new = renamed.moved(key, known)
        if new and new.startswith("reward.custom_reward_function.reward_kwargs"):
            return new, value
        if new:
            if not key.startswith("custom_reward_function"):
                self.tell(f"{key} → {new}", "its name now")
            return new, value
        open_dict = is_open(verls_tree(self.is_rl), key)
        if why is None and (open_dict or key.startswith("algorithm.")):
            return key, value  # below a dict without keys of its own
        self.tell(
            key,
            f"verl 0.9.1 has it no more{f': {why}' if why else ''}"
            if why is not None
            else "verl 0.9.1 has no such key",
        )
        return "", ""

    # The groups.

    def value(self, key: str) -> Any:
        """What the script means by a key: its own value, else verl's default."""
        if key in self.given:
            return parsed(self.given[key])
        return OmegaConf.select(verls_tree(self.is_rl), key)

    def choose(self) -> None:
        """An option of each group."""
        self.chosen["algo"] = self.algo()
        self.model()
        self.chosen["hw"] = self.hw()
        self.dataset()
        self.reward()
        wanted = {"console", "file", *self.loggers()}
        for option in names.groups()["logger"]:
            if (
                set(
                    yaml.safe_load((names.CONF / "logger" / f"{option}.yaml").read_text())[
                        "loggers"
                    ]
                )
                == wanted
            ):
                self.chosen["logger"] = option
                self.given.pop("trainer.logger", None)
        for arg in self.ours:
            key, value = names.split(arg)
            if key in names.groups():
                self.chosen[key] = value

    def loggers(self) -> list[str]:
        """Where metrics go."""
        named = self.value("trainer.logger")
        return (
            [str(name) for name in named]
            if isinstance(named, list) or OmegaConf.is_list(named)
            else [str(named)]
        )

    def algo(self) -> str:
        """The algorithm whose file has the same estimator and loss, and the fewest other values than the script."""
        kind = "rl" if self.is_rl else "sft"
        options = [name for name in names.groups()["algo"] if strangers.trainer_of(name) == kind]
        if not self.is_rl:
            return next(name for name in options if not settings("algo", name))
        keys = ("algorithm.adv_estimator", "actor_rollout_ref.actor.policy_loss.loss_mode")
        usual = {key: OmegaConf.select(verls_tree(True), key) for key in keys}
        best = {}
        for name in options:
            has = settings("algo", name)
            same = [has.get(key, usual[key]) == self.value(key) for key in keys]
            others = [key for key, value in has.items() if key not in keys and "${" not in str(value)
                      and not key.startswith("lab.") and value != self.value(key)]  # fmt: skip
            best[name] = (-same[0], -same[1], len(others), len(has), name)
        return min(best, key=best.__getitem__)

    def model(self) -> None:
        """`model=NAME` by the hub id, or by the last part of a path; `lab.model.path` for any other."""
        key = "actor_rollout_ref.model.path" if self.is_rl else "model.path"
        path = str(self.given.pop(key, "")).strip("'\"")
        known = {hub: name for hub, name in names.models().items() if "/" in hub}
        by_name = {PurePath(hub).name.lower(): name for hub, name in known.items()}
        name = known.get(path) or by_name.get(PurePath(path).name.lower())
        if name:
            self.chosen["model"] = name
        if path and path not in known:
            self.given["lab.model.path"] = path
            if not name:
                self.tell(
                    key,
                    "no option of model= is this one; `python launch.py --help` lists them",
                )
        critic = self.given.get("critic.model.path", "").strip("'\"")
        if critic == path:
            self.given.pop("critic.model.path", None)

    def hw(self) -> str:
        """A profile with as many GPUs a node; the script doesn't say of which kind."""
        if self.value("trainer.device") == "cpu":
            return "cpu"
        named = [
            names.split(word)[1]
            for word in self.before
            if word.startswith(("--nproc_per_node=", "--nproc-per-node="))
        ]
        nodes = [names.split(word)[1] for word in self.before if word.startswith("--nnodes=")]
        for key, said in (("trainer.n_gpus_per_node", named), ("trainer.nnodes", nodes)):
            if said:  # a number that only a run could tell: as many as most scripts of verl have
                usual = "8" if said is named else "1"
                self.given.setdefault(key, said[-1] if said[-1].isdigit() else usual)
        if self.value("trainer.n_gpus_per_node") is None:
            self.given["trainer.n_gpus_per_node"] = "8"
        wanted = self.value("trainer.n_gpus_per_node")
        profiles = {name: settings("hw", name) for name in names.groups()["hw"]}
        size = 1 if wanted == 1 else 8
        fitting = {
            name: abs((has["lab.hw.memory_gib"] or 0) - GPU_GIB)
            for name, has in profiles.items()
            if has.get("lab.hw.device") == "cuda"
            and has["lab.hw.gpus_per_node"] == size
            and has["lab.hw.memory_gib"]
        }
        best = min(
            fitting, key=lambda name: (round(fitting[name]), -profiles[name]["lab.hw.bf16_tflops"])
        )
        if not any(arg.startswith("hw=") for arg in self.ours):
            self.tell(
                f"hw={best}",
                f"the script does not name the GPUs; these have {GPU_GIB} GB. hw=NAME behind the file is yours",
            )
        return best

    def dataset(self) -> None:
        """`dataset=NAME` by a folder of the files; they stay where they are."""
        files = str(self.value("data.train_files"))
        options = names.groups()["dataset"]
        fitting = [
            name for name in options if re.search(rf"(^|[/_-]){re.escape(name)}([/_.-]|$)", files)
        ]
        self.chosen["dataset"] = fitting[0] if fitting else "jsonl"
        if not self.is_rl:
            self.tell(
                "data",
                "SFT reads rows of conversations (data.messages_key): `python -m data_prep` makes them",
            )

    def reward(self) -> None:
        """verl's own functions, a function of the user's, or a reward model."""
        if not self.is_rl:
            return
        self.chosen["reward"] = "none"
        if self.value("reward.reward_model.enable"):
            self.chosen["reward"] = "model"
            self.tell(
                "reward=model",
                "scores by a model that vLLM serves, a reward model with one number a token (algo=rm)",
            )
        path = self.given.get("reward.custom_reward_function.path", "").strip("'\"")
        if path in ("null", "None", ""):
            self.given.pop("reward.custom_reward_function.path", None)
        manager = self.given.pop("reward.reward_manager.name", "naive").strip("'\"")
        if manager not in ("naive", "dapo"):
            self.tell(
                "reward.reward_manager.name",
                f"{manager}: this project's own manager takes its place",
            )

    # The rest.

    def translation(self) -> Translation:
        """What becomes of it."""
        self.choose()
        base = [f"{group}={option}" for group, option in self.chosen.items()]
        config = names.composed(base)
        lab, verl, same = {}, {}, {}
        copies: dict[str, list[str]] = {}  # key of lab → keys of the script that conf/ makes of it
        for key, text in self.given.items():
            value = parsed(text)
            if self.is_left_out(key, text, value, config):
                continue
            if place := next((p for p in hydra_words.OPEN if key.startswith(f"{p}.")), None):
                ours = f"{hydra_words.OPEN[place]}{key.removeprefix(place)}"
                lab[ours if strangers.has(config, ours) else f"+{ours}"] = text
            elif (long := reward_option(key)) or key.startswith("lab."):
                lab[long or key] = text
            elif not strangers.has(config, key):
                verl[f"+{key}"] = text
            elif derived := self.derived(config, key, value):
                copies.setdefault(derived, []).append(key)
            elif plain(OmegaConf.select(config, key)) == plain(value):
                same[key] = text
            else:
                verl[key] = in_brackets(value) or text
        for derived, keys in copies.items():
            first, *others = sorted(keys, key=lambda key: ".actor." not in key)
            values = {key: parsed(self.given[key]) for key in keys}
            if OmegaConf.select(config, derived) != values[first]:
                lab[derived] = self.given[first]
            else:
                same[first] = self.given[first]
            for key in others:
                (same if values[key] == values[first] else verl)[key] = self.given[key]
        if variables := [name for name in self.command.variables if not names.SECRET.search(name)]:
            self.told.append(f"variables of the script: {', '.join(sorted(variables))}. Those of your shell count here;"
                             " +lab.env.NAME=VALUE brings one to all processes")  # fmt: skip
        own = {key for arg in self.ours for key in (names.split(arg)[0], f"+{names.split(arg)[0]}")}
        mine = [arg for arg in self.ours if names.split(arg)[0] not in self.chosen]
        chosen = [at_once(f"{key}={text}") for key, text in lab.items() if key not in own]
        config = names.composed([*base, *chosen, *mine])
        follow = [  # verl's or conf/'s own formulas give the same
            key
            for key, text in verl.items()
            if key[0] != "+" and plain(OmegaConf.select(config, key)) == plain(parsed(text))
        ]
        same |= {key: verl.pop(key) for key in follow}
        words = [
            *chosen,
            *(at_once(f"{key}={text}") for key, text in verl.items() if key not in own),
        ]
        config = names.composed([*base, *words, *mine])
        changed = [  # by another word of the script
            f"{key}={text}"
            for key, text in same.items()
            if plain(OmegaConf.select(config, key)) != plain(parsed(text))
        ]
        if there := len(same) - len(changed):
            self.told.append(f"{there} values of the script are those of the chosen options anyway")
        words, complaints = self.checked([*base, *words, *changed, *mine])
        told = [*self.told, *self.unsaid(names.composed(words))]
        return Translation(self.command.line, words, told, complaints)

    def is_left_out(self, key: str, text: str, value: Any, config: DictConfig) -> bool:
        """Whether a key has nothing to say here; it is told if somebody could miss it."""
        if key.startswith("critic.") and not has_critic(config):
            self.tell(key, f"algo={self.chosen['algo']} has no critic")
        elif (known := ENGINES.get(key)) and value not in (known, "cpu"):
            self.tell(f"{key}={text}", f"this project has {known}")
        elif key.startswith(
            (
                "actor_rollout_ref.rollout.engine_kwargs.sglang",
                "actor_rollout_ref.rollout.engine_kwargs.trtllm",
            )
        ):
            self.tell(key, "this project samples with vLLM")
        elif key == knobs.KL_LOSS and not self.value(f"{knobs.ACTOR}.use_kl_loss"):
            pass  # as in the script
        elif key == knobs.KL_REWARD and not self.value("algorithm.use_kl_in_reward"):
            pass
        elif key.endswith("strategy") and value == "fsdp":
            pass  # its second version does the same
        elif (
            key.startswith("reward.reward_model.")
            and self.chosen.get("reward") == "model"
            and "model_path" not in key
        ):
            self.tell(
                key, "reward=model has its own settings: lab.reward_model.*"
            ) if "enable" not in key else None
        elif (re.search(r"use_dynamic_bsz$", key) and value is False) or re.search(
            r"micro_batch_size(_per_gpu)?$", key
        ):
            self.tell(key, "batches are dynamic here: lab.hw.tokens_per_gpu is their size")
        else:
            return False
        return True

    def derived(self, config: DictConfig, key: str, value: Any) -> str | None:
        """The key of `lab` that conf/ makes this one of; None if it is more than a copy, or the value is a list."""
        parent, _, name = key.rpartition(".")
        node = OmegaConf.select(config, parent)._get_node(name)
        text = node._value() if node is not None and node._is_interpolation() else ""
        match = DERIVED.fullmatch(text)
        return match[1] if match and not isinstance(value, list) else None

    def checked(self, words: list[str]) -> tuple[list[str], list[str]]:
        """The words without settings that do nothing, which are told; and what the checks say of the rest."""
        from preflight import checks
        from preflight.preparation import Preparation

        dead: dict[str, str] = {}
        config = names.composed(words)
        tables = (
            (knobs.UNREAD, knobs.HARMLESS)
            if self.is_rl
            else (knobs.UNREAD_BY_SFT, knobs.HARMLESS_TO_SFT)
        )
        for table in tables:
            dead |= dict(knobs.unread(config, table))
        dead |= dict(knobs.fixed_sizes(config))
        usual = {key for table in tables for key in table} - dead.keys()
        for key, why in dead.items():
            self.tell(key, f"does nothing{f': {why}' if why else ''}")
        gone = usual | dead.keys()
        words = [word for word in words if names.split(word)[0] not in gone]
        here = {*checks.checks(ELSEWHERE), "check_checkpoint_space"}
        while True:
            found = Preparation(names.composed(words)).findings(checks.DEFAULT)
            wrong = [
                one.message
                for one in found
                if one.is_wrong and one.name not in here and one.message
            ]
            idle = {line.split(" ")[0]: line for line in wrong if " does nothing" in line}
            kept = [word for word in words if names.split(word)[0] not in idle]
            if kept == words:
                return words, wrong
            for word in words:
                if word not in kept:
                    key = names.split(word)[0]
                    self.tell(key, idle[key].removeprefix(f"{key} ").removesuffix("."))
            words = kept

    def unsaid(self, config: DictConfig) -> Iterator[str]:
        """What the chosen algorithm sets, the script leaves to verl, and verl sets otherwise."""
        different = []
        for key in settings("algo", self.chosen["algo"]):
            usual = OmegaConf.select(verls_tree(self.is_rl), key)
            mine = OmegaConf.select(config, key)
            if (
                not key.startswith("lab.")
                and key not in self.given
                and usual is not None
                and plain(mine) != plain(usual)
            ):
                different.append(f"{key}={written(usual)}")
        if different:
            algo = self.chosen["algo"]
            yield f"algo={algo} sets what the script leaves out; verl's own values: {' '.join(different)}"


def settings(group: str, option: str) -> dict[str, Any]:
    """Dotted keys and values that an option writes, with those of the files below it."""
    found: dict[str, Any] = {}
    place = names.CONF / group / f"{option}.yaml"
    text = place.read_text() if place.is_file() else ""  # what hw=auto finds is in no file
    content = yaml.safe_load(text) or {}
    package = re.search(r"# @package (\S+)", text)
    prefix = package[1].replace("_global_", "") if package else group
    for line in content.pop("defaults", ()):
        if isinstance(line, str) and line != "_self_":
            found |= settings(group, str(PurePath(option).parent / line))
    node = OmegaConf.create(content)
    for key in names.keys_of(node):
        value = OmegaConf.to_container(node)
        for name in key.split("."):
            value = value[name] if isinstance(value, dict) else None
        if not isinstance(value, dict):
            found[f"{prefix}.{key}".strip(".")] = value
    return found


def is_open(tree: DictConfig, key: str) -> bool:
    """Whether a key stands in a dict that verl's tree leaves empty, for anybody's keys (`engine_kwargs.vllm`)."""
    node = tree
    for name in key.split(".")[:-1]:
        if name not in node:
            return False
        node = node._get_node(name)
        if node._is_none() or not OmegaConf.is_dict(node) or not len(node):
            return node._is_none() or OmegaConf.is_dict(node)
    return False


def reward_option(key: str) -> str | None:
    """`lab.reward.NAME` for verl's long key of a reward's option."""
    from preflight import reward_keys

    short = reward_keys.short([f"{key}=x"])[0]
    return None if short == f"{key}=x" else short.partition("=")[0]


def parsed(text: str) -> Any:
    """A value of the command line, as Hydra reads it; text that it can't read stays text."""
    value = hydra_words.parsed(f"x={text}")
    return text if value is None and text not in ("null", "") else value


def in_brackets(value: Any) -> str | None:
    """A list of plain words as a command line writes it; None for another value."""
    is_plain = isinstance(value, list) and all(
        re.fullmatch(r"[\w./~-]+", str(item)) for item in value
    )
    return f"[{','.join(map(str, value))}]" if is_plain else None


def plain(value: Any) -> Any:
    """A value to compare: containers as Python's, numbers by value."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def at_once(word: str) -> str:
    """A word that Hydra can parse: a value with other signs gets quotes."""
    if hydra_words.parsed(word) is not None or word.endswith("=null"):
        return word
    key, _, value = word.partition("=")
    return f"{key}='{value}'" if value else f"{key}=''"
