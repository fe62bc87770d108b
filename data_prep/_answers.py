"""Scored answers, for `preference` and `process`: read, checked, scored by a reward, one at a time.

A row holds `prompt` (a text or messages), `response` (or `output`, `solution_str`), and what its
scoring needs: `ground_truth` (or `gts`, `reward_model.ground_truth`), `data_source`, `extra_info`,
`db`. Or `responses`, a list of texts (with a list `scores`, if they have some) or of mappings
{response, score, ...}: then every one of them counts as a row.
Without --reward a row must have its `score`, itself or in `result` as `python -m rewards --out`
writes it. No number (null, NaN), or `masked`, is an answer that could not be graded.
A folder stands for the files in it; a run's folder, for the answers it dumped (`_dumps`).
"""

import argparse
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_prep import _dataset, _dumps, _schema, _scoring
from data_prep._read import BadRow, Broken
from data_prep._split import Split
from preflight.mistakes import Mistake
from rewards._rows import RESPONSE_KEYS, RowError, ground_truth_of, info_of


def add_options(parser: argparse.ArgumentParser, name: str) -> None:
    """The options of both commands."""
    parser.add_argument("source", type=Path, metavar="ANSWERS", help="a file, or a run's folder")
    parser.add_argument(
        "--reward", help="reward that scores the answers (default: the rows have a score)"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="options of the reward",
    )
    parser.add_argument(
        "--val-share",
        type=_dataset.val_share,
        default=0.05,
        help="share for validation, of the prompts that are not for validation already (%(default)s)",
    )
    _dataset.add_options(parser, name)


def messages(value: object) -> list:
    """A prompt as messages; a text is the user's."""
    return value if isinstance(value, list) else [{"role": "user", "content": value}]


def candidates(source: Iterator) -> Iterator[tuple[int, dict | Broken]]:
    """(number of the row, one answer) for every answer of every row."""
    for number, row in enumerate(source):
        if isinstance(row, Broken) or "responses" not in row:
            yield number, row
            continue
        some, scores = row["responses"], row.get("scores")
        rest = {k: v for k, v in row.items() if k not in ("responses", "scores")}
        if not isinstance(some, list) or not some:
            yield number, Broken(json.dumps(row, default=str), "responses: not a list of answers")
        elif scores is not None and (not isinstance(scores, list) or len(scores) != len(some)):
            why = f"scores: not a list of {len(some)} numbers, one for each response"
            yield number, Broken(json.dumps(row, default=str), why)
        else:
            for i, one in enumerate(some):
                own = {"score": scores[i]} if scores is not None else {}
                yield number, rest | own | (one if isinstance(one, dict) else {"response": one})


def normal(row: dict, scored: bool, steps: bool) -> dict:
    """An answer in the one form that rewards and the commands read. Raises BadRow.

    scored: a reward will score it; if not, it must have a score, and where wanted, `steps`.
    """
    prompt = messages(row.get("prompt"))
    response = next((row[key] for key in RESPONSE_KEYS if row.get(key) is not None), None)
    try:
        reference, missing = ground_truth_of(row), ""
    except RowError as error:
        reference, missing = None, str(error)
    info = info_of(row) | {"messages": prompt}
    empty = isinstance(response, str) and not response.strip()  # which is counted apart
    form = {"prompt": prompt, "steps": ["-" if empty else response], "labels": [0]}
    problems = [p.replace("steps[0]", "response") for p in _schema.check("process", form)]
    result = row["result"] if isinstance(row.get("result"), Mapping) else row
    if not scored and "score" not in result:
        problems.append("score: missing; use --reward NAME to score the answers")
    if not scored and steps and not parts(result.get("steps")):
        problems.append(
            "steps: not a list of [start, end, score]; use --reward NAME, which makes them, or --outcome"
        )
    if scored and missing:
        problems.append(missing)
    if problems:
        raise BadRow("; ".join(problems))
    made = {"prompt": prompt, "response": response, "ground_truth": reference, "extra_info": info}
    made["data_source"] = row.get("data_source") or ""
    if not scored:
        made["result"] = {k: result[k] for k in ("score", "acc", "masked", "steps") if k in result}
    return made


def parts(steps: object) -> bool:
    """Whether `steps` is a list of (start, end, score), as a reward gives it."""
    return isinstance(steps, list) and all(
        isinstance(step, list) and len(step) == 3 and all(map(is_number, step)) for step in steps
    )


def is_number(value: object) -> bool:
    """Whether a value from JSON is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def collect(
    rows: _dataset.Rows, args: argparse.Namespace, split: Split, folder: Path, steps: bool
) -> Path:
    """Write the good answers to a file, in normal form; the others are rejected or left out."""
    file = folder / "answers.jsonl"
    with file.open("w") as out, _dumps.open_answers(args.source, folder) as source:
        for _, (number, row) in rows.reading(candidates(source), args.source.name):
            if isinstance(row, Broken):
                rows.reject(number, row.text, row.why)
                continue
            try:
                answer = normal(row, bool(args.reward), steps)
            except BadRow as error:
                rows.reject(number, row, str(error))
                continue
            if not answer["response"].strip():
                rows.leave_out("empty")
                continue
            if answer["extra_info"].get("split") == "val":
                split.of(answer["prompt"], "val")
            out.write(json.dumps(answer, default=str) + "\n")
    return file


def inputs(source: Path) -> list[Path]:
    """The files whose state tells whether what is there is made of the same."""
    return _dumps.files_of(source)


def number(value: Any) -> float:
    """A score as a number; NaN for infinity and for what is not a number."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return found if math.isfinite(found) else math.nan


def graded(
    rows: _dataset.Rows, args: argparse.Namespace, split: Split, folder: Path, steps: bool = False
) -> Iterator[tuple[dict, float]]:
    """(answer in normal form with its `result`, its score) of every answer that could be graded.

    `folder` is for work, `split` learns which prompts are for validation. With `steps`, every result
    has `steps`. Raises Mistake.
    """
    _scoring.check_reward(args, folder)
    file = collect(rows, args, split, folder, steps)
    if args.on_bad == "fail":
        rows.settle()  # before what takes long
    if args.reward and file.stat().st_size:
        file = _scoring.score(file, args)
    with file.open() as lines:
        for line in lines:
            answer = json.loads(line)
            result = answer["result"]
            value = math.nan if number(result.get("masked")) == 1 else number(result.get("score"))
            if math.isnan(value):
                rows.leave_out("not_graded")
            elif steps and not parts(result.get("steps")):
                raise Mistake(
                    f"--reward {args.reward} gives no steps; --outcome does not need them"
                )
            else:
                yield answer, value
