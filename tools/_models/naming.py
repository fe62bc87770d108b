"""What stands for a model on a command line.

outputs/RUN            the last checkpoint of a run; RUN@best and RUN@STEP another one
path/to/folder         weights of Hugging Face (config.json, *.safetensors), or an adapter of PEFT
Qwen/Qwen2.5-0.5B      a hub id
tiny                   a name of conf/model
http://host:8000/v1    a server that speaks OpenAI's protocol; #NAME behind it: which of its models
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from launcher.checkpoints import CONFIG, NoCheckpoint, checkpoint
from preflight.mistakes import Mistake, unknown
from preflight.names import CONF
from preflight.resolvers import HUB_ID

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
INDEX = ".index.json"
ADAPTER = "adapter_config.json"
URLS = ("http://", "https://")


@dataclass(frozen=True)
class Model:
    """A model that can answer."""

    said: str  # as it was named
    kind: Literal["weights", "adapter", "hub", "server"]
    path: str  # a folder, a hub id, or a URL
    base: str | None = None  # of an adapter: a folder or a hub id
    name: str | None = None  # on a server: which of its models
    run: Path | None = None  # the run that made it
    step: int | None = None  # of that run

    @property
    def tokenizer(self) -> str:
        """Where its tokenizer lies; an adapter may have none of its own."""
        own = self.kind != "adapter" or (Path(self.path) / "tokenizer_config.json").is_file()
        return self.path if own else str(self.base)


def find(said: str) -> Model:
    """The model that a name stands for. Raises Mistake, with what is missing, if it can't answer."""
    if said.startswith(URLS):
        url, _, name = said.partition("#")
        return Model(said, "server", url.rstrip("/"), name=name or None)
    try:
        found = checkpoint(said)
    except NoCheckpoint as error:
        raise Mistake(str(error)) from None
    if found:
        folder = found.model
        if folder is None or not has_weights(folder):
            raise Mistake(f"{found.folder} has no Hugging Face weights, or not all of them. To make them from what the"
                          f" trainer saved: python -m tools.export {said} --to FOLDER")  # fmt: skip
        return Model(said, "weights", str(folder.absolute()), run=found.run, step=found.step)
    folder = Path(said).expanduser()
    if folder.is_dir():
        return local(said, folder.absolute())
    if file := conf(said):
        path = yaml.safe_load(file.read_text())["path"]
        if is_hub_id(path):
            return Model(said, "hub", path)
        if not Path(path).is_dir():
            raise Mistake(f"model={said} is not there yet: python -m data_prep {Path(path).name}")
        return local(said, Path(path).absolute())
    if folder.is_file():
        raise Mistake(
            f"{said} is a file, not a model's folder. A file of questions: --input {said}"
        )
    if is_hub_id(said):
        return Model(said, "hub", said)
    if "/" in said:
        raise Mistake(f"no model {said}: no such folder")
    raise Mistake(unknown("model", said, (file.stem for file in (CONF / "model").glob("*.yaml"))))


def short_names(names: list[str]) -> dict[str, str]:
    """Each name with as few of its folders as tell it from the others; a time or a number is never alone."""

    def short(name: str, depth: int) -> str:
        parts = name.rstrip("/").split("/")
        while depth < len(parts) and parts[-depth][:1].isdigit():
            depth += 1
        return "/".join(parts[-depth:])

    most = max((name.count("/") + 1 for name in names), default=1)
    for depth in range(1, most + 1):
        found = {name: short(name, depth) for name in names}
        if len(set(found.values())) == len(found):
            return found
    return {name: name for name in names}


def is_hub_id(name: str) -> bool:
    """Whether a name that is no folder may be one of the hub's."""
    here = ("data/", "outputs/", "multirun/")
    return bool(HUB_ID.fullmatch(name)) and not name.startswith(here)


def conf(name: str) -> Path | None:
    """The file of conf/model that has this name."""
    file = CONF / "model" / f"{name}.yaml"
    return file if name and "/" not in name and file.is_file() else None


def local(said: str, folder: Path) -> Model:
    """The model in a folder. Raises Mistake if something of it is missing."""
    if (folder / ADAPTER).is_file():
        base = told(folder / ADAPTER).get("base_model_name_or_path")
        if not base:
            raise Mistake(f"{folder / ADAPTER} names no base model (base_model_name_or_path)")
        if "/" in base and not Path(base).is_dir() and not is_hub_id(base):
            raise Mistake(f"{said} is an adapter of {base}, which is not there (base_model_name_or_path in"
                          f" {folder / ADAPTER})")  # fmt: skip
        return Model(said, "adapter", str(folder), base=base)
    if not (folder / "config.json").is_file() and (file := next(folder.glob("*.gguf"), None)):
        raise Mistake(f"{said} holds {file.name}, which llama.cpp reads: start its server (llama-server -m {file}), and"
                      " name its address, http://localhost:8080/v1")  # fmt: skip
    if not (folder / "config.json").is_file():
        depths = ("*", "*/*", "*/*/*")
        runs = [run for depth in depths for run in sorted(folder.glob(f"{depth}/{CONFIG}"))]
        if runs:
            names = (str(Path(said) / run.parent.relative_to(folder)) for run in runs[-6:])
            raise Mistake(f"{said} is no run, but has runs in it. Name one: {', '.join(names)}")
        raise Mistake(f"{said} is no model: neither a run's folder (resolved.yaml), nor weights (config.json), nor an"
                      f" adapter ({ADAPTER})")  # fmt: skip
    if not has_weights(folder):
        raise Mistake(
            f"{said} has a config.json, but no weights, or not all: {', '.join(WEIGHTS)} or its index"
        )
    return Model(said, "weights", str(folder))


def has_weights(folder: Path) -> bool:
    """Whether all files of its weights are there."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return True
        if (index := folder / f"{name}{INDEX}").is_file():
            files = set(told(index).get("weight_map", {}).values())
            return bool(files) and all((folder / file).is_file() for file in files)
    return False


def told(file: Path) -> dict:
    """What a JSON file says. Raises Mistake for a broken one, as a copy that was cut off leaves it."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Mistake(f"{file} is broken: {error}") from None
    if not isinstance(found, dict):
        raise Mistake(f"{file} is broken: no JSON object")
    return found
