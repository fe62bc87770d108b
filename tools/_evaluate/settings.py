"""What words on the command line (hw=, dataset=, reward=, KEY=VALUE) and a run's folder say to an evaluation."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from launcher.checkpoints import CONFIG
from preflight import names, reward_function
from preflight.checks.files import check_data_files
from preflight.facts import as_list, given
from preflight.mistakes import Mistake
from preflight.subject import Subject
from tools._models.engine import Settings
from tools._models.naming import Model

ALONE = 0.9  # share of a GPU's memory for vLLM: no trainer is beside it
LONGEST = 512  # tokens of an answer, where nothing says another number


class Words(NamedTuple):
    """The KEY=VALUE of a command line, by what they are for."""

    common: list[str]  # for every composition
    rewards: list[str]  # names or files of reward=
    own: dict[str, list[str]]  # reward → options of its own, from NAME:KEY=VALUE

    def has(self, group: str) -> bool:
        """Whether an option of the group is chosen."""
        return any(names.split(word)[0] == group for word in self.common)


class Reward(NamedTuple):
    """A reward that scores answers."""

    name: str
    subject: Subject


def sorted_words(words: list[str]) -> Words:
    """The words, with `reward=A,B` and `A:KEY=VALUE` taken apart. Raises Mistake."""
    common, rewards, own = [], [], []
    for word in words:
        key, value = names.split(word)
        head, colon, _ = key.partition(":")
        if key == "reward":
            rewards = [name.strip() for name in value.strip("[]").split(",") if name.strip()]
        elif colon:
            own.append((head, word.partition(":")[2]))
        else:
            common.append(word)
    if not any(names.split(word)[0] == "hw" for word in common):
        common.insert(0, "hw=auto")
    by_name: dict[str, list[str]] = {name: [] for name in rewards}
    for name, word in own:
        if name not in by_name:
            raise Mistake(names.unknown("reward", name, by_name) if by_name else
                          f"{name}:{word} is an option of a reward that is not chosen: reward={name}")  # fmt: skip
        by_name[name].append(word)
    return Words(common, rewards, by_name)


def compose(words: list[str]) -> DictConfig:
    """A config of RL from words, as launch.py composes it. Raises Mistake, and what Hydra raises."""
    return names.composed(names.check_argv(words))


def reward_words(name: str) -> list[str]:
    """The overrides that choose a reward by its name, or by its file: FILE.py or FILE.py:FUNCTION."""
    if name in names.groups()["reward"] or not (".py" in name or "/" in name):
        return [f"reward={name}"]
    file, _, function = name.partition(":")
    if not Path(file).is_file():
        raise Mistake(f"no reward file {file}")
    key = "reward.custom_reward_function"
    return [
        "reward=none",
        f"{key}.path={quoted(str(Path(file).absolute()))}",
        f"{key}.name={quoted(function or 'compute_score')}",
    ]


def quoted(text: str) -> str:
    """A text that Hydra takes as it is, whatever it holds."""
    return "'" + re.sub(r"(\\*)(?='|$)", r"\1\1", text).replace("'", "\\'") + "'"


def rewards_of(words: Words) -> list[Reward]:
    """The rewards that the words choose. Raises Mistake for one that can't score here."""
    found = []
    for name in words.rewards:
        config = compose([*words.common, *reward_words(name), *words.own[name]])
        short = Path(name.partition(":")[0]).stem if ".py" in name else name
        found.append(Reward(short, subject_of(config, name)))
    if len({one.name for one in found}) < len(found):
        raise Mistake(f"two rewards have one name: {', '.join(one.name for one in found)}")
    return found


def subject_of(config: DictConfig, name: str) -> Subject:
    """The reward of a config, ready to score. Raises Mistake."""
    wrong = reward_function.file_fault(config) or reward_function.options_fault(config)
    if wrong:
        raise Mistake(f"reward={name}: {wrong}")
    return Subject(config)


def run_config(run: Path) -> DictConfig:
    """The config of a run, as it ran."""
    try:
        return OmegaConf.load(run / CONFIG)
    except (YAMLError, ValueError, OSError) as error:
        raise Mistake(f"{run / CONFIG} is broken: {' '.join(str(error).split())[:200]}") from None


def run_rewards(run: Path) -> list[Reward]:
    """The reward of a run; none if it has none that can score here (SFT, a served model)."""
    config = run_config(run)
    if reward_function.chosen(config) is None or config.reward.reward_model.enable:
        return []
    subject = subject_of(config, str(run))
    path = subject.path
    return [Reward(path.rpartition(".")[2] if "://" in path else Path(path).stem, subject)]


def run_files(run: Path) -> list[Path]:
    """The validation rows of a run. Raises Mistake if they are gone."""
    files = [Path(file) for file in as_list(run_config(run).data.val_files)]
    for file in files:
        if not file.is_file():
            raise Mistake(
                f"the validation rows of {run} are gone ({file}): name others, --input FILE or dataset=NAME"
            )
    return files


def dataset_files(config: DictConfig) -> list[Path]:
    """The validation rows of dataset=. Raises Mistake, with the command that makes them."""
    if wrong := check_data_files(config):
        raise Mistake(wrong)
    return [Path(file) for file in as_list(config.data.val_files)]


def settings_of(
    config: DictConfig,
    model: Model,
    template: str | None = None,
    dtype: str | None = None,
    context: int | None = None,
) -> Settings:
    """How a model is loaded and asked: by hw= and the words, and by the run that made it."""
    hw, rollout = config.lab.hw, config.actor_rollout_ref.rollout
    source = run_config(model.run) if model.run else config
    kwargs = OmegaConf.select(source, "data.apply_chat_template_kwargs") or {}
    on_cpu = hw.device == "cpu"
    key = "actor_rollout_ref.rollout.gpu_memory_utilization"
    memory = rollout.gpu_memory_utilization if given(key) or on_cpu else ALONE
    vllm: dict[str, Any] = {
        "enforce_eager": rollout.enforce_eager,
        "max_num_seqs": rollout.max_num_seqs,
        "max_num_batched_tokens": rollout.max_num_batched_tokens,
        "tensor_parallel_size": rollout.tensor_model_parallel_size,
        "gpu_memory_utilization": memory,
        **plain(hw.vllm_kwargs),
    }
    return Settings(
        dtype=dtype or str(rollout.dtype),
        context=context,
        template=template,
        template_kwargs=plain(kwargs),
        trust_remote_code=bool(OmegaConf.select(config, "lab.model.trust_remote_code")),
        attention=hw.attention if on_cpu else None,
        device="cpu" if on_cpu else None,
        tokens_at_once=hw.tokens_per_gpu,
        vllm=vllm,
        env={name: str(v) for name, v in config.lab.env.items() if name.startswith("VLLM_")},
    )


def longest_answer(config: DictConfig, words: Words, run: Path | None) -> int:
    """Tokens that an answer may have: as in the run, or in dataset=."""
    if words.has("dataset"):
        return int(config.data.max_response_length)
    found = OmegaConf.select(run_config(run), "lab.dataset.max_response_length") if run else None
    return int(found) if found else LONGEST


def plain(value) -> dict:
    """A part of a config as a dict of plain values."""
    return (
        OmegaConf.to_container(value, resolve=True)
        if OmegaConf.is_config(value)
        else dict(value or {})
    )


def fingerprint(path: str) -> str:
    """What tells whether files are the same: the place, and a digest of names, sizes and times of all of them."""
    place = Path(path)
    if not place.exists():
        return path  # a hub id, a URL
    files = sorted(place.iterdir()) if place.is_dir() else [place]
    stats = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()]
    return f"{place.absolute()} {hashlib.sha256(json.dumps(stats).encode()).hexdigest()[:12]}"


def identity(subject: Subject) -> dict:
    """What a reward is: its function, its options, and what its file says."""
    text = hashlib.sha256(Path(str(subject.module.__file__)).read_bytes()).hexdigest()[:12]
    return {
        "path": subject.path,
        "function": subject.name,
        "options": subject.options,
        "file": text,
    }
