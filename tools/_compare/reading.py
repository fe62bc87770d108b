"""Answers from files: evaluations (tools.evaluate) and validations of a run, in one form."""

import contextlib
import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from preflight.mistakes import Mistake
from tools._models.naming import short_names

KINDS = (".jsonl", ".json", ".csv", ".parquet", ".xlsx")
BESIDE = ".answers.jsonl"  # what tools.evaluate leaves beside a workbook
# of an evaluation's row: what is neither a category nor a part of the reward
FIXED = ("model", "row", "sample", "prompt", "answer", "ground_truth", "finish", "tokens")
# of a validation's row: the same, and what a run notes for itself
TEXTS = ("input", "output", "gts", "uid", "step", "reward")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a cell that begins so has an apostrophe before it
LONGEST = 10_000_000  # characters of a cell of a CSV


@dataclass(slots=True)
class Answer:
    """One answer of one model."""

    prompt: str  # as text: a line with the role before each message
    question: str  # the last message of the user
    truth: str
    text: str
    row: int | None  # the number of its question in the file that was asked from
    parts: dict[str, Any]  # of the reward; and `tokens`, or `characters`
    categories: dict[str, Any] = field(default_factory=dict)
    finish: str | None = None  # "length": cut off
    seed: int = 0  # which member of a group of seeds gave it


@dataclass
class Answers:
    """All answers of one side of a comparison."""

    name: str
    source: Path
    rows: list[Answer]
    seeds: list[str] = field(default_factory=list)  # of a group: what its members are
    model: str = ""  # as the evaluation names it


def read(file: Path) -> list[Answers]:
    """The evaluations in a file, one for each model; one of a validation. Raises Mistake."""
    rows = records(file)
    if not rows:
        raise Mistake(f"{file} is empty: it has no answers")
    models: dict[str, list[Answer]] = {}
    for number, row in enumerate(rows):
        try:
            model = str(row.get("model") or file.stem) if "answer" in row else file.stem
            models.setdefault(model, []).append(evaluated(row) if "answer" in row else validated(row))  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Mistake(
                f"{file}, row {number} (from 0): neither an answer of tools.evaluate (prompt, answer, ground_truth)"
                f" nor of a run's validation (input, output, gts): {error}"
            ) from None
    short = short_names(list(models))
    return [Answers(short[name], file, answers, model=name) for name, answers in models.items()]


def records(file: Path) -> list[dict]:
    """The rows of a file of any kind. Raises Mistake with the line that can't be read."""
    if not file.is_file():
        raise Mistake(f"no such file: {file}")
    kind = file.suffix.lower()
    if kind == ".xlsx":
        beside = file.with_name(file.stem + BESIDE)
        if not beside.is_file():
            raise Mistake(
                f"{file}: its answers should lie beside it, in {beside.name}, where tools.evaluate puts them"
            )
        return list(lines(beside))
    if kind == ".csv":
        return list(table(file))
    if kind == ".parquet":
        import pyarrow.parquet  # 0.2 s

        try:
            return pyarrow.parquet.read_table(file).to_pylist()
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise Mistake(f"{file} is no parquet file: {error}") from None
    if kind == ".json":
        try:
            rows = parsed(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise Mistake(f"{file} is not JSON: {error}") from None
        if not isinstance(rows, list):
            raise Mistake(f"{file}: a list of answers was expected, as tools.evaluate writes it")
        return rows
    if kind != ".jsonl":
        raise Mistake(f"{file}: answers are read from {', '.join(KINDS)}")
    return list(lines(file))


def lines(file: Path) -> Iterator[dict]:
    """The objects of a file with one on each line. Raises Mistake with the number of a broken one."""
    with open(file, encoding="utf-8", errors="replace") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                row = parsed(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise Mistake(f"{file}, line {number}: not a JSON object. A program that was killed leaves half a line"
                              " behind: let it finish its work, or remove the line")  # fmt: skip
            yield row


def parsed(text: str) -> Any:
    """What JSON says; half of a surrogate pair, which JSON can say and no file can hold, is a question mark."""
    found = json.loads(text)
    if "\\ud" in text.lower():
        found = json.loads(json.dumps(found, ensure_ascii=False).encode(errors="replace"))
    return found


def table(file: Path) -> Iterator[dict]:
    """The rows of a CSV; numbers are numbers, and an empty cell is None. Raises Mistake for text that is not UTF-8.

    Excel puts semicolons between cells, and a comma into numbers, where a person's language does.
    """
    csv.field_size_limit(LONGEST)
    with open(file, newline="", encoding="utf-8-sig") as stream:
        try:
            heads = stream.readline()
            stream.seek(0)
            semicolons = heads.count(";") > heads.count(",")
            for row in csv.DictReader(stream, delimiter=";" if semicolons else ","):
                texts = {name: unquoted(row[name]) for name in FIXED if row.get(name) is not None}
                others = {
                    name: cell(value, semicolons)
                    for name, value in row.items()
                    if name and name not in FIXED
                }
                yield texts | others
        except UnicodeDecodeError:
            raise Mistake(f"{file} is not UTF-8: save it as UTF-8 (in Excel: CSV UTF-8)") from None


def unquoted(value: str) -> str:
    """A text without the apostrophe that tools.evaluate puts before what a spreadsheet would run."""
    return value[1:] if value[:1] == "'" and value[1:2] in FORMULA else value


def cell(value: str | None, comma: bool = False) -> Any:
    """What a cell of a CSV holds; `comma`: numbers have one."""
    if value is None or value == "":
        return None
    if value in ("True", "False", "true", "false"):
        return value.lower() == "true"
    plain = value.replace(",", ".") if comma else value
    for kind in (int, float):
        try:
            return kind(plain)
        except ValueError:
            continue
    return unquoted(value)


def evaluated(row: dict) -> Answer:
    """A row of tools.evaluate. What stands before the first score is a category of the question."""
    names = [name for name in row if name not in FIXED]
    first = next((i for i, name in enumerate(names) if is_score(name)), len(names))
    parts = {name: number(row[name]) for name in names[first:]}
    answer = str(row["answer"] or "")
    if row.get("tokens") not in (None, ""):
        parts["tokens"] = float(row["tokens"])
    else:
        parts["characters"] = float(len(answer))
    prompt, question = prompt_text(row["prompt"])
    place = row.get("row")
    return Answer(
        prompt,
        question,
        canonical(row.get("ground_truth")),
        answer,
        None if place in (None, "") else int(float(place)),
        parts,
        {name: row[name] for name in names[:first]},
        row.get("finish"),
    )


def validated(row: dict) -> Answer:
    """A row of RUN/validation/STEP.jsonl."""
    parts = {name: number(value) for name, value in row.items() if name not in TEXTS}
    parts["characters"] = float(len(row["output"]))
    prompt, question = prompt_text(row["input"])
    truth = row["gts"]
    if isinstance(truth, list) and len(truth) == 1:
        truth = truth[0]
    return Answer(prompt, question, canonical(truth), row["output"], None, parts)


def is_score(part: str) -> bool:
    """Whether a part is a reward's score: `score`, or `NAME/score` where there are several rewards."""
    return part == "score" or part.endswith("/score")


def number(value: Any) -> Any:
    """A part of a reward: a number as float, NaN and what is beyond a float as None, everything else as it is."""
    if isinstance(value, bool | int | float):
        try:
            return float(value) if math.isfinite(value) else None
        except OverflowError:
            return None
    return value


def prompt_text(prompt: Any) -> tuple[str, str]:
    """A prompt as a decoded chat has it, ROLE and message on lines of their own, and the user's last message."""
    if isinstance(prompt, str) and prompt.lstrip().startswith("[{"):
        with contextlib.suppress(ValueError):
            prompt = json.loads(prompt)
    if isinstance(prompt, str):
        return prompt.strip(), last_message(prompt)
    messages = [(str(m["role"]), said(m["content"])) for m in prompt]
    text = "\n".join(f"{role}\n{content}" for role, content in [*messages, ("assistant", "")])
    users = [content for role, content in messages if role == "user"]
    return text.strip(), (users or [text])[-1].strip()


def said(content: Any) -> str:
    """The text of a message; of one in parts (text and pictures), the text."""
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content or [])


def last_message(decoded: str) -> str:
    """The user's last message in a decoded chat, with the roles on lines of their own; all of it if there are none."""
    found = decoded.strip().split("\n")
    if found[-1] == "assistant":
        found.pop()
    starts = [i for i, line in enumerate(found) if line == "user"]
    return "\n".join(found[starts[-1] + 1 :] if starts else found).strip()


def canonical(truth: Any) -> str:
    """A ground truth as text: the same from JSON, where it may be an object, and from a cell of a table."""
    if isinstance(truth, str):
        if truth[:1] not in ("{", "["):
            return truth.strip()
        try:
            truth = json.loads(truth)
        except ValueError:
            return truth.strip()
    return "" if truth is None else json.dumps(truth, sort_keys=True, ensure_ascii=False)


def validations(run: Path) -> list[Path]:
    """The validation files of a run, first to last."""
    files = (run / "validation").glob("*.jsonl")
    return sorted((f for f in files if f.stem.isdigit()), key=lambda file: int(file.stem))
