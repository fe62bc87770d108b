"""What the words of the command line stand for: evaluations, runs, groups of seeds, models, settings.

FILE            an evaluation (one for each of its models), or a validation
RUN, RUN@STEP   the last validation of a run's folder, or that of a step; RUN alone: its first and its last
NAME=...        a name for any of these; with several paths, or a glob, a group of seeds
MODEL           everything else that tools.evaluate can ask; where it is told what to ask, runs are models, too
KEY=VALUE       words for tools.evaluate
"""

import glob
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from preflight.mistakes import Mistake
from preflight.names import CONF
from tools._compare.reading import KINDS, Answers, read, validations

GLOB = set("*?[")


class Words(NamedTuple):
    """A command line, sorted."""

    sides: list[list[Answers]]  # of each word in its place; a model's has no answers yet
    models: dict[int, str]  # the models to ask: place → what was said
    settings: list[str]  # KEY=VALUE


class NoValidation(Exception):
    """A word that names no answers: a model, perhaps."""


def understood(words: list[str], ask: bool = False) -> Words:
    """The sides of a comparison; `ask`: there is an --input for models. Raises Mistake."""
    sides: list[list[Answers]] = []
    models: dict[int, str] = {}
    settings = [word for word in words if is_setting(word)]
    named = [word for word in words if word not in settings]
    for place, word in enumerate(named):
        name, paths = several(word)
        if name is not None and len(paths) > 1:
            sides.append([group(name, paths)])
            continue
        path = paths[0]
        try:
            if (ask or settings) and not is_file(path):
                raise NoValidation
            found = side(path, alone=len(named) == 1)
        except NoValidation:
            check_model(path)
            models[place] = path
            found = [Answers(Path(path).name if Path(path).exists() else path, Path(path), [])]
        if name is not None and len(found) == 1:
            found[0].name = name
        sides.append(found)
    return Words(sides, models, settings)


def check_model(word: str) -> None:
    """Raises Mistake, with what is missing, for a word that is neither answers nor a model."""
    from tools._models.naming import find

    try:
        find(word)
    except Mistake as error:
        path = Path(word.rpartition("@")[0] or word).expanduser()
        if not path.exists():
            raise
        raise Mistake(f"{word} has no validations (validation/STEP.jsonl, which a run of RL makes every"
                      f" trainer.test_freq steps), and no model to ask: {error}") from None  # fmt: skip


def is_setting(word: str) -> bool:
    """Whether a word is KEY=VALUE for tools.evaluate, not NAME=PATHS: its key is a group of conf/, or dotted."""
    key, equals, _ = word.partition("=")
    if not equals or "/" in key or Path(word).expanduser().exists():
        return False
    return bool(set(".:+~") & set(key)) or (CONF / key).is_dir()


def is_file(word: str) -> bool:
    """Whether a word is a file, or was meant as one."""
    path = Path(word).expanduser()
    return path.is_file() or (path.suffix.lower() in KINDS and not path.is_dir())


def several(word: str) -> tuple[str | None, list[str]]:
    """The name that a word gives (None: none) and its paths, globs spread out. Raises Mistake for an empty one."""
    name, equals, value = word.partition("=")
    if not equals or Path(word).expanduser().exists() or "/" in name or "://" in name:
        name, value = "", word
    paths = []
    for path in value.split(",") if not Path(value).exists() else [value]:
        if GLOB & set(path) and not Path(path).exists():
            found = sorted(glob.glob(str(Path(path).expanduser())))
            if not found:
                raise Mistake(f"nothing is called {path}")
            paths += found
        elif path:
            paths.append(path)
    if not paths:
        raise Mistake(f"{word}: a path was expected behind =")
    return name or (value if len(paths) > 1 else None), paths


def side(word: str, alone: bool) -> list[Answers]:
    """The answers that a word names. Raises NoValidation if it names none, Mistake if they can't be read."""
    path = Path(word).expanduser()
    if is_file(word):
        return read(path)
    run, _, step = word.rpartition("@")
    if not path.is_dir() and run and Path(run).expanduser().is_dir():
        return [validation(Path(run).expanduser(), step)]
    if not (files := validations(path)):
        raise NoValidation
    if not alone:
        return [validation(path, files[-1].stem)]
    if len(files) == 1:
        raise Mistake(f"{path} has one validation only, {files[0].name}: name something to compare it with. Its figures"
                      f" alone: python -m tools.report {path}")  # fmt: skip
    return [validation(path, files[0].stem), validation(path, files[-1].stem)]


def validation(run: Path, step: str) -> Answers:
    """The validation of a run at a step. Raises NoValidation if the run has none, or a checkpoint is meant;
    Mistake if it has others."""
    files = {file.stem: file for file in validations(run)}
    if not files or step in ("best", "last"):  # checkpoints
        raise NoValidation
    if step not in files:
        raise Mistake(f"{run} has no validation of step {step!r}. There is: {', '.join(files)}")
    [found] = read(files[step])
    found.name = f"{run.resolve().name}@{step}"
    return found


def group(name: str, paths: list[str]) -> Answers:
    """Several seeds of one setting: their answers together, each with the number of its seed."""
    members = []
    for path in paths:
        try:
            members += side(path, alone=False)
        except NoValidation:
            raise Mistake(f"{path} (of {name}) has no answers: a seed is an evaluation, or a run with"
                          " validations") from None  # fmt: skip
    for number, member in enumerate(members):
        for row in member.rows:
            row.seed = number
    rows = [row for member in members for row in member.rows]
    return Answers(name, members[0].source, rows, labels(members))


def labels(sides: list[Answers]) -> list[str]:
    """Their names, as long as is needed to tell them apart: with folders, with a number."""
    names = [side.name for side in sides]
    for depth in range(1, 6):
        repeated = {name for name, times in Counter(names).items() if times > 1}
        if not repeated:
            return names
        names = [
            longer(side, depth) if name in repeated else name
            for side, name in zip(sides, names, strict=True)
        ]
    return [f"{name} ({i})" for i, name in enumerate(names, 1)]


def longer(side: Answers, depth: int) -> str:
    """A name with so many folders before it."""
    run = side.source.parent.name == "validation"
    folder = side.source.absolute().parent.parent.parent if run else side.source.absolute().parent
    before = [*folder.parts[max(1, len(folder.parts) - depth + (0 if run else 1)) :]]
    own = (
        side.name.rpartition("/")[2]
        if run
        else f"{side.source.stem}:{side.name.rpartition(':')[2]}"
    )
    return "/".join([*before, own])
