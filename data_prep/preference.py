"""Preference pairs (for algo=dpo and algo=rm) from candidate answers, scored by a reward.

  python -m data_prep preference answers.jsonl --reward sql --set shaping=soft_f1
  python -m data_prep preference outputs/demo/RUN      (a run's answers, as it scored them)
A row is an answer: `prompt` (a text or messages), `response`, and what the reward needs
(`ground_truth`, `db`, `extra_info`, `data_source`); or `responses`, a list of them, and `scores`.
Without --reward, rows have a `score`; null, NaN or `masked` means that an answer could not be graded.
(In rollouts/ of a run, verl writes 0 for such an answer. If this matters, use --reward to score again.)

The best answer to a prompt is paired with the worst, the second best with the second worst, and so
on, up to --pairs; no answer is in two pairs. The same text twice counts once, with its mean score.
Only answers to the same prompt with the same ground truth and database are compared. Writes
pref_train and pref_val: a prompt is for validation if a row of it says so (extra_info.split), and so is a
share of the others. Answers that are in no pair are counted in the card: empty, not_graded, duplicate,
unpaired. The answers to one prompt at a time are in memory (1,000,000 answers: 0.2 GiB), all on disk.
"""

import argparse
import itertools
import json
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from data_prep import _answers, _dataset, _schema
from data_prep._ranking import best_with_worst
from data_prep._split import Split, digest
from preflight.mistakes import Mistake


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    _answers.add_options(parser, "preference")
    parser.add_argument(
        "--pairs",
        type=_positive,
        default=1,
        metavar="K",
        help="most pairs of a prompt (%(default)s)",
    )
    parser.add_argument(
        "--margin",
        type=_margin,
        default=0.0,
        help="the scores of a pair differ by more than this (%(default)s)",
    )


def _positive(text: str) -> int:
    """A number of pairs."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1")
    return int(text)


def _margin(text: str) -> float:
    """A difference of scores."""
    if not 0 <= float(text) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0")
    return float(text)


class Groups:
    """Scored answers by what they answer, on disk."""

    def __init__(self, folder: Path):
        self.stored = sqlite3.connect(folder / "groups.sqlite")
        self.stored.execute("PRAGMA journal_mode = OFF")  # a killed run begins anew
        self.stored.execute("PRAGMA synchronous = OFF")
        self.stored.execute("CREATE TABLE asked (id INTEGER PRIMARY KEY, key BLOB UNIQUE, prompt)")
        self.stored.execute(
            "CREATE TABLE answers (asked INTEGER, number INTEGER, text, score REAL)"
        )

    def add(self, number: int, answer: dict, score: float) -> None:
        """Keep an answer in normal form (_answers); `number` is its place in the source."""
        info = answer["extra_info"]
        same = [answer["prompt"], answer["ground_truth"], info.get("db"), info.get("extra_dbs")]
        prompt = json.dumps(answer["prompt"])
        self.stored.execute(
            "INSERT OR IGNORE INTO asked (key, prompt) VALUES (?, ?)", [digest(same), prompt]
        )
        self.stored.execute(
            "INSERT INTO answers SELECT id, ?, ?, ? FROM asked WHERE key = ?",
            [number, answer["response"], score, digest(same)],
        )

    def each(self) -> Iterator[tuple[list, list[tuple[str, float]]]]:
        """(prompt, [(text, score), ...]) in the order in which the prompts came first."""
        found = self.stored.execute("SELECT asked, text, score FROM answers ORDER BY asked, number")
        for asked, some in itertools.groupby(found, key=lambda row: row[0]):
            prompt = self.stored.execute("SELECT prompt FROM asked WHERE id = ?", [asked])
            yield json.loads(prompt.fetchone()[0]), [(text, score) for _, text, score in some]


def run(args: argparse.Namespace) -> None:
    """Make the pairs."""
    split = Split(args.val_share)

    def fill(rows: _dataset.Rows) -> None:
        with tempfile.TemporaryDirectory(dir=rows.folder.parent) as work:
            groups = Groups(Path(work))
            with closing(groups.stored):
                scored = _answers.graded(rows, args, split, Path(work))
                for number, (answer, score) in enumerate(tqdm(scored, "group", disable=None)):
                    groups.add(number, answer, score)
                for prompt, answers in tqdm(groups.each(), "pair", unit=" prompts", disable=None):
                    add(rows, prompt, answers)
            if rows.counts["unpaired"] and not rows.counts["train"] + rows.counts["val"]:
                raise Mistake(
                    f"no pairs: no two answers to any of {rows.notes['prompts']} prompts differ in"
                    f" their score by more than --margin {args.margin:g}"
                )

    def add(rows: _dataset.Rows, prompt: list, answers: list[tuple[str, float]]) -> None:
        pairs, texts = best_with_worst(answers, args.pairs, args.margin)
        rows.leave_out("duplicate", len(answers) - texts)
        rows.leave_out("unpaired", texts - 2 * len(pairs))
        rows.notes["prompts"] = rows.notes.get("prompts", 0) + 1
        rows.notes["prompts_without_pair"] = rows.notes.get("prompts_without_pair", 0) + (not pairs)
        side = split.of(prompt)
        for better, worse in pairs:
            row = _schema.preference_row(prompt, better, worse)
            rows.put("preference", side, row, side, reads=2)

    _dataset.make("preference", args, fill, inputs=_answers.inputs(args.source))
