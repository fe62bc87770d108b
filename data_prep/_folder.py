"""Writes a folder of made files so that none is ever half there and nothing is lost unasked.

Files are written under `OUT/.partial` and renamed at the end; `card.json`, which says what they
were made of, comes last. A folder with the same card is left alone ("already there"), a folder
that holds anything else is an error that names `--force`.
"""

import fcntl
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from data_prep._code import code_of
from preflight.mistakes import Mistake

CARD = "card.json"


def sha256(file: Path) -> str:
    """The hex SHA-256 of a file."""
    digest = hashlib.sha256()
    with file.open("rb") as f:
        while piece := f.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def state_of(inputs: Iterable[Path]) -> str:
    """A hash of the paths, sizes and times of the input files."""
    stats = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in inputs]
    return hashlib.sha256(repr(sorted(stats)).encode()).hexdigest()[:16]


def versions(*packages: str) -> dict[str, str]:
    """Installed versions for a card; a package that isn't installed is left out."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _read_card(out: Path) -> dict | None:
    try:
        card = json.loads((out / CARD).read_text())
        inside = all(".." not in Path(f).parts and not Path(f).is_absolute() for f in card["files"])
        known = all("sha256" in facts for facts in card["files"].values())
        return card if inside and known and isinstance(card["made"]["options"], dict) else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _differences(out: Path, card: dict, made: dict) -> list[str]:
    """What keeps the folder from being what `made` would give."""
    found = []
    old, new = card["made"], made
    if old.get("name") != new["name"]:
        return [f"it holds {old.get('name')}, not {new['name']}"]
    for option in sorted({*old["options"], *new["options"]}):
        was, now = old["options"].get(option), new["options"].get(option)
        if was != now:
            found.append(f"{option} was {was!r}, is {now!r}")
    if isinstance(old.get("code"), dict):
        if old.get("inputs") != new["inputs"]:
            found.append("the input files have changed")
        if changed := _changed(old["code"], new["code"]):
            found.append(f"the code that makes it has changed: {changed}")
    else:
        found.append("its card is of an earlier version of data_prep and does not list the code that made it (the data"
                     " can still be used)")  # fmt: skip
    for file, facts in card["files"].items():
        if not (out / file).is_file():
            found.append(f"{file} is gone")
        elif sha256(out / file) != facts["sha256"]:
            found.append(f"{file} was changed by hand")
    return found


def _changed(old: dict[str, str], new: dict[str, str]) -> str:
    """The first files whose hashes differ, or that only one of both has."""
    files = sorted(file for file in {*old, *new} if old.get(file) != new.get(file))
    return ", ".join(files[:3] + ["..."] * (len(files) > 3))


def build(
    name: str,
    out: Path,
    options: dict,
    fill: Callable[[Path], dict],
    inputs: Iterable[Path] = (),
    force: bool = False,
) -> dict:
    """Have `fill(folder)` write files and return the card's content; put them into `out`.

    Returns the card. `options` (JSON values) and the state of `inputs` decide whether what is there
    is the same; `force` replaces what is there, file by file. Raises Mistake if `out` holds
    something else, or another run is writing it.
    """
    made = {"name": name, "options": options, "inputs": state_of(inputs), "code": code_of(name)}
    old = _read_card(out)
    if not force and out.is_dir() and any(p.name != ".partial" for p in out.iterdir()):
        found = _differences(out, old, made) if old else ["it holds files without a card.json"]
        if found:
            why = "; ".join(found[:3] + ["..."] * (len(found) > 3))
            raise Mistake(f"{out} is there, but not the same: {why}. Use --force to replace it")
        print(f"{out}: already there")
        return old

    partial = out / ".partial"
    partial.mkdir(parents=True, exist_ok=True)
    with (partial / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Mistake(f"another run is writing {out}") from None
        try:
            work = partial / "files"
            shutil.rmtree(work, ignore_errors=True)  # what a killed run left
            work.mkdir()
            card = {"made": made, **_filled(fill, work, out)}
            files = sorted(p for p in work.rglob("*") if p.is_file())
            card["files"] = {
                str(p.relative_to(work)): {"bytes": p.stat().st_size, "sha256": sha256(p)}
                for p in files
            }
            text = json.dumps(card, indent=2, ensure_ascii=False)
            (work / CARD).write_text(text + "\n")
            _commit(work, out, card, old)
        finally:
            shutil.rmtree(partial)
            if not any(out.iterdir()):
                out.rmdir()
    return card


def _filled(fill: Callable[[Path], dict], work: Path, out: Path) -> dict:
    """`fill(work)`; a full disk is a Mistake whichever library met it."""
    try:
        return fill(work)
    except Mistake:
        raise
    except Exception as error:
        # pyarrow's OSError names no file; sqlite3, tokenizers and safetensors have their own errors
        nameless = isinstance(error, OSError) and not error.filename
        if nameless or re.search(r"disk|os error \d+", str(error)):
            raise Mistake(f"can't write {out}: {error}") from error
        raise


def _commit(work: Path, out: Path, card: dict, old: dict | None) -> None:
    """Rename the finished files into place; a kill in between leaves a folder without a card."""
    (out / CARD).unlink(missing_ok=True)
    for stale in set(old["files"] if old else ()) - set(card["files"]):
        (out / stale).unlink(missing_ok=True)
    for file in card["files"]:
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        (work / file).replace(out / file)
    (work / CARD).replace(out / CARD)
