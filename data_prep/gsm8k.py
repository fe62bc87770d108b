"""GSM8K (arXiv:2110.14168): word problems of primary school, from a local copy or from the hub.

SOURCE is a folder with train.jsonl and test.jsonl (the authors' repository), a folder with the parquet
files of the hub's dataset (`main`), or one such file, which --val-share then splits. Without SOURCE,
openai/gsm8k is read from the hub. The test rows are the validation rows; a training row with the same
question as one of them is left out.
The ground truth is the number after `####`, without commas; a row without one is bad. The prompt asks
for an answer in this form, which `reward=math` and verl's own reward (`reward=none`, for the data source
openai/gsm8k) can both read. SFT rows have the official answer without its calculator annotations
(<<48/2=24>>).
"""

import argparse
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from data_prep import _dataset, _hub
from data_prep._read import Broken, read
from data_prep._split import Split
from preflight.mistakes import Mistake

NAME, CONFIG = "openai/gsm8k", "main"
SPLITS = {
    "test": "val",
    "train": "train",
}  # validation first: its questions are kept out of the rest
ASK = "Think step by step, then end with a line that holds #### and the answer, a bare number."
ANNOTATION = re.compile(r"<<[^<>]*>>")
NUMBER = re.compile(r"-?(\d+\.?\d*|\.\d+)")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this source."""
    parser.add_argument(
        "source", type=Path, nargs="?", metavar="SOURCE", help="folder or file (default: the hub)"
    )
    parser.add_argument(
        "--val-share",
        type=_dataset.val_share,
        default=0.05,
        help="share of a single file for validation (%(default)s)",
    )
    _dataset.add_options(parser, "gsm8k")


def find(source: Path) -> dict[str, list[Path]]:
    """The files of each split; {"": [the file]} for a single one. Raises Mistake."""
    if source.is_file():
        return {"": [source]}
    found = {}
    for name, split in SPLITS.items():
        lines = sorted(source.rglob(f"{name}.jsonl"), key=lambda file: len(file.parts))
        # the hub has the config "socratic" beside "main": the same questions once more
        parquet = [f for f in source.rglob(f"{name}*.parquet") if "socratic" not in f.parts]
        if files := lines[:1] or sorted(parquet):
            found[split] = files
    if len(found) < len(SPLITS):
        wanted = "train.jsonl and test.jsonl, or train*.parquet and test*.parquet"
        raise Mistake(f"{source} does not hold {wanted}")
    return found


def reference(answer: str) -> str | None:
    """The number after the last `####` of an official answer."""
    _, mark, number = answer.rpartition("####")
    number = number.strip().replace(",", "")
    return number if mark and NUMBER.fullmatch(number) else None


def add(rows: _dataset.Rows, number: int, row: dict | Broken, split: Split, given: str) -> None:
    """Add a row, or reject it with the reason."""
    if isinstance(row, Broken):
        rows.reject(number, row.text, row.why)
        return
    question, answer = row.get("question"), row.get("answer")
    if not isinstance(question, str) or not question.strip():
        rows.reject(number, row, "question: missing or empty")
        return
    truth = reference(answer) if isinstance(answer, str) else None
    if truth is None:
        rows.reject(number, row, "answer: no #### with a number after it")
        return
    prompt = [{"role": "user", "content": f"{question.strip()}\n{ASK}"}]
    side = split.of(prompt, given)
    if side == "in_val":
        rows.leave_out(side)
        return
    rl = {
        "data_source": NAME,
        "prompt": prompt,
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": truth},
        "extra_info": {"index": number, "split": side},
    }
    solution = {"role": "assistant", "content": ANNOTATION.sub("", answer).strip()}
    rows.add(number, row, rl, {"messages": [*prompt, solution]})


def run(args: argparse.Namespace) -> None:
    """Make the dataset."""
    files = find(args.source) if args.source else {}
    split = Split(args.val_share)

    def fill(rows: _dataset.Rows) -> None:
        parts: Iterable[tuple[str | None, str, Iterable[Iterator]]]
        if args.source:
            parts = [(given, some[0].name, map(read, some)) for given, some in files.items()]
        else:
            parts = [(SPLITS[n], f"{NAME} {n}", [_hub.stream(NAME, CONFIG, n)]) for n in SPLITS]
        for given, name, sources in parts:
            for number, row in rows.reading(chain.from_iterable(sources), name):
                add(rows, number, row, split, given)

    _dataset.make("gsm8k", args, fill, inputs=chain.from_iterable(files.values()))
