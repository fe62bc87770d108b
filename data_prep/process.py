"""Process labels (for algo=prm) from answers: which of their steps a reward finds right.

  python -m data_prep process answers.jsonl --reward sql_process
  python -m data_prep process answers.jsonl --reward sql --outcome
Rows are those of `preference`. Blank lines separate the steps of an answer, as for `reward=prm` in a
run, so that the model is trained on what it will see. The reward scores parts of the answer (`steps` of
its result: start, end, score). A part is right if its score is above --threshold. A step is right (1) if
all parts that it touches are right, else wrong (0). A step without a part has the label of the next step
that has one (a thought is as good as what it leads to). After the last part, a step has the label of the
answer: right if the reward's `acc` is above 0.5, or without `acc`, if its score is above --threshold.
With --outcome, every step has the label of the answer, and any reward will do. Writes prm_train and
prm_val, split as by `preference`. Answers without a label are counted in the card: empty, not_graded,
no_steps (the reward found no parts: SQL without CTEs has none).
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from data_prep import _answers, _dataset
from data_prep._split import Split
from rewards._steps import split_steps


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    _answers.add_options(parser, "process")
    parser.add_argument(
        "--outcome", action="store_true", help="give each step the label of the whole answer"
    )
    parser.add_argument(
        "--threshold", type=float, default=0.0, help="a score above this is right (%(default)s)"
    )


def labels(
    steps: Sequence[tuple[int, int]], parts: Sequence[tuple[int, int, bool]], outcome: bool
) -> list[float]:
    """A label for each step; `parts` are (start, end, right). All places are characters of the answer."""
    found: list[float] = []
    after = outcome
    for start, end in reversed(steps):
        inside = [right for begin, stop, right in parts if begin < end and start < stop]
        after = all(inside) if inside else after
        found.append(float(after))
    return found[::-1]


def run(args: argparse.Namespace) -> None:
    """Make the labelled steps."""
    split = Split(args.val_share)

    def fill(rows: _dataset.Rows) -> None:
        with tempfile.TemporaryDirectory(dir=rows.folder.parent) as work:
            scored = _answers.graded(rows, args, split, Path(work), steps=not args.outcome)
            for answer, score in tqdm(scored, "label", unit=" rows", disable=None):
                add(rows, answer, score)

    def add(rows: _dataset.Rows, answer: dict, score: float) -> None:
        text, result, parts = answer["response"], answer["result"], []
        acc = _answers.number(result.get("acc"))
        right = score > args.threshold if acc != acc else acc > 0.5
        if not args.outcome:
            parts = [(begin, stop, part > args.threshold) for begin, stop, part in result["steps"]]
            if not parts:
                rows.leave_out("no_steps")
                return
        steps = split_steps(text)
        side = split.of(answer["prompt"])
        row = {
            "prompt": answer["prompt"],
            "steps": [text[start:end] for start, end in steps],
            "labels": labels(steps, parts, right),
        }
        rows.put("process", side, row, side)
        for label in row["labels"]:
            name = "steps_right" if label else "steps_wrong"
            rows.notes[name] = rows.notes.get(name, 0) + 1

    _dataset.make("process", args, fill, inputs=_answers.inputs(args.source))
