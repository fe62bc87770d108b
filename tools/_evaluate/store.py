"""Answers on disk: a line of JSON each, appended as they come, so that nothing is asked twice.

    NAME.answers.jsonl     (NAME.jsonl, if that is what was asked for) the answers, in the order in which they came
    NAME.settings.json     what was asked, and of whom; at the end the summary

All answers to a question are written at once. What a killed program has left half-written is cut off; a file that
was changed in another way is left as it is. One process at a time writes it.
"""

import contextlib
import fcntl
import json
import os
from array import array
from collections.abc import Iterator
from pathlib import Path

from launcher.results import write_json
from preflight.mistakes import Mistake

FIXED = (
    "model",
    "row",
    "sample",
    "prompt",
    "answer",
    "ground_truth",
    "finish",
    "tokens",
)  # columns of every line


def answer_in(line: bytes) -> dict | None:
    """The answer that a line holds; None if it holds none, or is not whole."""
    try:
        found = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    if not isinstance(found, dict) or not isinstance(found.get("model"), str):
        return None
    return found if all(isinstance(found.get(name), int) for name in ("row", "sample")) else None


class Store:
    """The answers of one evaluation.

    Args:
        output: the file that the user asked for.
        settings: what must be the same for answers to stand in one file.
        force: begin anew, and lose what is there.

    Raises Mistake if the file holds something else.
    """

    def __init__(self, output: Path, settings: dict, force: bool = False):
        stem = output.with_suffix("")
        self.file = output if output.suffix == ".jsonl" else Path(f"{stem}.answers.jsonl")
        self.settings_file = Path(f"{stem}.settings.json")
        self.output, self.settings = output, json.loads(json.dumps(settings, default=str))
        self.columns: list[
            str
        ] = []  # of the questions themselves; all others are parts of a reward
        self.done: dict[str, bytearray] = {}  # model → 1 at each row that has its answers
        self.rows = 0
        known = None if force else self.known()
        # an empty file is what a full disk left of a first try: nothing is lost with it
        there = [f for f in (output, self.file) if f.exists() and (f.is_dir() or f.stat().st_size)]
        if there and not force and known is None:
            raise Mistake(
                f"{there[0]} is there already, and no evaluation of this kind: another --output, or --force"
            )
        self.file.parent.mkdir(parents=True, exist_ok=True)
        # what no file can hold, half of a surrogate pair, becomes a question mark; `close` closes it
        self.out = open(self.file, "a", encoding="utf-8", errors="replace")  # noqa: SIM115
        try:
            fcntl.flock(self.out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Mistake(
                f"{self.file}: another process is writing it: wait for it, or another --output"
            ) from None
        if known:
            self.check(known)
            self.columns = known["columns"]
            self.read_back()
        else:
            for file in {output, self.settings_file} - {self.file}:
                file.unlink(missing_ok=True)
            self.out.truncate(0)
            self.write_settings()

    def known(self) -> dict | None:
        """The settings of what is there. Raises Mistake for a broken file."""
        if not self.settings_file.is_file():
            return None
        with contextlib.suppress(ValueError):
            known = json.loads(self.settings_file.read_text())
            if isinstance(known, dict) and "asked" in known and "columns" in known:
                return known
        raise Mistake(f"{self.settings_file} is broken, and says no more of whom the answers in {self.file.name} are:"
                      " another --output, or --force to lose them")  # fmt: skip

    def check(self, known: dict) -> None:
        """Raises Mistake if what is there came of other settings."""
        old, new = known["asked"], self.settings
        models = old.get("models", {}) | new["models"]  # one more model may join them
        same = {name: mark for name, mark in new["models"].items() if name in old.get("models", {})}
        old, new = (
            old | {"models": {name: old["models"][name] for name in same}},
            new | {"models": same},
        )
        for key in dict.fromkeys([*old, *new]):
            if old.get(key) != new.get(key):
                was, now = (
                    said(of.get(key), other.get(key)) for of, other in ((old, new), (new, old))
                )
                raise Mistake(f"{self.output} holds answers of another evaluation: {key} was {was}, is {now}."
                              " Another --output, or --force to lose them")  # fmt: skip
        self.settings["models"] = models

    def read_back(self) -> None:
        """Find what is there, and cut off a question that was never finished. Raises Mistake if more is wrong."""
        end = pending = sample = (
            0  # bytes of whole questions, and of one whose last answer was not seen yet
        )
        with open(self.file, "rb") as file:
            for number, line in enumerate(file, 1):
                found = answer_in(line)
                if found is None or found["sample"] != sample:
                    if file.read(1):
                        raise Mistake(f"{self.file}, line {number}: not the answer that was written there. Mend what"
                                      " was changed; or another --output, or --force to lose all")  # fmt: skip
                    break
                pending, sample = pending + len(line), sample + 1
                if sample == self.settings["n"]:
                    self.mark(found["model"], found["row"])
                    end, pending, sample = end + pending, 0, 0
        self.out.truncate(end)

    def mark(self, model: str, row: int) -> None:
        """Note that a question has its answers."""
        done = self.done.setdefault(model, bytearray())
        if len(done) <= row:
            done.extend(bytes(max(row + 1 - len(done), len(done))))
        done[row] = 1
        self.rows += 1

    def has(self, model: str, row: int) -> bool:
        """Whether a question has been answered."""
        done = self.done.get(model, b"")
        return row < len(done) and bool(done[row])

    def add(self, lines: list[dict], columns: list[str]) -> None:
        """All answers to one question; `columns`: those of the question itself."""
        if new := [name for name in columns if name not in self.columns]:
            self.columns += new
            self.write_settings()
        made = (json.dumps(line, ensure_ascii=False, default=str) + "\n" for line in lines)
        self.out.write("".join(made))
        self.out.flush()
        self.mark(lines[0]["model"], lines[0]["row"])

    def write_settings(self, **more: object) -> None:
        """The settings file: what was asked, and what came of it."""
        self.settings_file.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.settings_file, {"asked": self.settings, "columns": self.columns, **more})

    def close(self) -> None:
        with contextlib.suppress(
            OSError
        ):  # a full disk was told by `add`; its half line is cut off the next time
            self.out.flush()
        os.fsync(self.out.fileno())
        with contextlib.suppress(OSError):
            self.out.close()
        if not self.rows:  # nothing is worth keeping, and another try may ask in another way
            self.file.unlink()
            self.settings_file.unlink()

    def questions(self) -> Iterator[list[dict]]:
        """The answers to each question together: model by model in the order asked, rows in the order of the input.

        Only where each line begins is held in memory.
        """
        places: dict[str, tuple[array, array]] = {}
        with open(self.file, "rb") as file:
            at = 0
            for line in file:
                head = json.loads(line)
                if head["sample"] == 0:
                    rows, begins = places.setdefault(head["model"], (array("q"), array("q")))
                    rows.append(head["row"])
                    begins.append(at)
                at += len(line)
            for model in self.settings["models"]:
                rows, begins = places.get(model, (array("q"), array("q")))
                for i in sorted(range(len(rows)), key=rows.__getitem__):
                    file.seek(begins[i])
                    yield [json.loads(file.readline()) for _ in range(self.settings["n"])]


def said(value: object, other: object) -> str:
    """A setting, short; of one with parts those in which the other differs: `exact`, `options.where=all`."""
    if not isinstance(value, dict) or not isinstance(other, dict):
        return json.dumps(value)[:120]
    if value.keys() != other.keys():
        return ", ".join(value) or "none"
    parts = ((name, said(value[name], other[name])) for name in value if value[name] != other[name])
    return ", ".join(f"{name}: {part}" for name, part in parts)[:120]
