"""Questions on investments: your file, or `--demo N` for a sample set made here.

Each row of the file (JSONL, JSON, CSV, TSV or parquet) has one of these two forms:
  {"query": "分析台積電的投資價值", "context": "台股投資分析", "reference": "..."}
  {"instruction": "評估風險", "input": "鴻海科技", "output": "..."}
Only the first field is required, and it must not be empty. The user's message is the query and, on
the next line, the context. Writes RL rows with the reference as ground truth, and SFT rows where there
is a reference. Rows with the same prompt are on the same side of the split. The companies and figures
of the demo are invented; its rows are kept in demo.jsonl.
"""

import argparse
from functools import partial
from pathlib import Path

import pyarrow as pa

from data_prep import _dataset, _finance_demo, _read
from data_prep._split import Split
from preflight.mistakes import Mistake

SYSTEM = "You are a careful investment analyst."


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this source."""
    parser.add_argument("source", type=Path, nargs="?", metavar="FILE", help="the file to read")
    parser.add_argument(
        "--demo", type=int, metavar="N", help="make N sample rows instead of reading a file"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the demo (%(default)s)")
    parser.add_argument(
        "--system", default=SYSTEM, help="system message, '' for none (%(default)s)"
    )
    parser.add_argument("--val", type=Path, help="file of validation rows")
    parser.add_argument(
        "--val-share",
        type=_dataset.val_share,
        default=0.1,
        help="share for validation, without --val (%(default)s)",
    )
    _read.add_options(parser)
    _dataset.add_options(parser, "finance")


def fields_of(row: dict) -> tuple[str, str, str]:
    """(query, context, reference) of a row. Raises ValueError, which says what is wrong."""
    names = next((n for n in _finance_demo.FORMATS if row.get(n[0]) is not None), None)
    if names is None:
        there = ", ".join(map(str, list(row)[:8])) or "nothing"
        raise ValueError(f"neither query nor instruction, there is {there}")
    values = ["" if row.get(name) is None else row[name] for name in names]
    for name, value in zip(names, values, strict=True):
        if not isinstance(value, str):
            raise ValueError(f"{name}: is of type {type(value).__name__}, not a text")
    if not values[0].strip():
        raise ValueError(f"{names[0]}: empty")
    query, context, reference = values
    return query, context, reference


def forms_of(row: dict, number: int, system: str) -> tuple[dict, dict | None]:
    """(RL row without its split, SFT row or None). Raises ValueError."""
    query, context, reference = fields_of(row)
    asked = f"{query}\n{context}" if context.strip() else query
    prompt = [{"role": "system", "content": system}] if system else []
    prompt.append({"role": "user", "content": asked})
    rl = {
        "data_source": "finance",
        "prompt": prompt,
        "ability": "finance",
        "reward_model": {"style": "rule", "ground_truth": reference},
        "extra_info": {"index": number, "query": query, "context": context},
    }
    sft = {"messages": [*prompt, {"role": "assistant", "content": reference}]}
    return rl, sft if reference.strip() else None


def run(args: argparse.Namespace) -> None:
    """Make the dataset."""
    if (args.source is None) == (args.demo is None):
        raise Mistake("finance takes a FILE or --demo N (see --help)")
    if args.demo is not None and (args.demo < 2 or args.val):
        raise Mistake("--demo takes a number of rows from 2, and makes its own validation rows")
    files = [("val", args.val), ("train", args.source)] if args.val else [("", args.source)]
    files = [] if args.demo else files
    read = _read.reader(args, there=bool(files))
    for _, file in files:
        if not file.is_file():
            raise Mistake(f"no file {file}")
    split = Split(args.val_share)

    def placed(given: str, number: int, row: dict) -> tuple[dict, dict | None, str]:
        rl, sft = forms_of(row, number, args.system)
        return rl, sft, split.of(rl["prompt"], given)

    def fill(rows: _dataset.Rows) -> None:
        sources = [(given, file.name, read(file)) for given, file in files]
        for given, name, source in sources or _dataset.demo_sources(
            _finance_demo.rows(args.seed), args, rows.folder
        ):
            for number, row in rows.reading(source, name):
                rows.keep(number, row, partial(placed, given))

    extra = dict.fromkeys(("query", "context"), pa.string())
    _dataset.make("finance", args, fill, extra, [file for _, file in files])
