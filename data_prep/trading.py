"""Trading strategies as code with reasoning: your file, or `--demo N` for a sample set made here.

A row of the file (JSON, JSONL or parquet): id, name, description (JSON text), reasoning, source_code
(Python) and relevant_symbols (a list, a JSON list, or names with commas between; may be missing).
The prompt asks for a strategy with its reasoning and code; the ground truth is the reasoning and the
code in a fence. Writes RL and SFT rows.
Split by id. Rows with the same id, or with the same description or code (case and white space aside),
are on the same side. A row that belongs to both sides is left out and counted as in_both, a repeated row
as repeated. Code that is not Python is rejected. The rows of the demo are kept in demo.jsonl; its
strategies are not advice.
"""

import argparse
import ast
import json
import textwrap
import warnings
from functools import partial
from pathlib import Path

import pyarrow as pa

from data_prep import _dataset, _read, _trading_demo
from data_prep._split import digest
from preflight.mistakes import Mistake

PROMPT = (
    "Write a trading strategy in Python{symbols}: {name}.\n{description}\n"
    "First give the reasoning, then the code in a ```python block."
)
EXTRA = dict.fromkeys(("id", "name", "description", "relevant_symbols"), pa.string())


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this source."""
    parser.add_argument("source", type=Path, nargs="?", metavar="FILE", help="the file to read")
    parser.add_argument(
        "--demo", type=int, metavar="N", help="make N sample rows instead of reading a file"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the demo (%(default)s)")
    parser.add_argument(
        "--val-share",
        type=_dataset.val_share,
        default=0.1,
        help="share of rows for validation (%(default)s)",
    )
    _read.add_options(parser)
    _dataset.add_options(parser, "trading")


def text(row: dict, name: str) -> str:
    """A field's text. Raises ValueError if it is not a text, or blank."""
    value = row.get(name)
    if value is None:
        there = ", ".join(map(str, list(row)[:8])) or "nothing"
        raise ValueError(f"{name}: {'null' if name in row else f'missing, there is {there}'}")
    if not isinstance(value, str):
        raise ValueError(f"{name}: is of type {type(value).__name__}, not a text")
    if not value.strip():
        raise ValueError(f"{name}: empty")
    return value


def from_json(name: str, value: str) -> object:
    """A field's JSON. Raises ValueError."""
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: not JSON: {error}") from None


def described(row: dict) -> str:
    """The description's JSON as a text of lines: `key: value`, values of lists with commas between."""
    given = row.get("description")
    if not isinstance(given, dict | list):
        given = from_json("description", text(row, "description"))
    lines = given.items() if isinstance(given, dict) else [("", given)]
    texts = [(key, listed(value)) for key, value in lines]
    found = "\n".join(f"{key}: {value}" if key else value for key, value in texts if value)
    if not found.strip():
        raise ValueError("description: has no text")
    return found


def listed(value: object) -> str:
    """A value as text: "" for none, JSON for numbers and what is nested."""
    if isinstance(value, list):
        return ", ".join(filter(None, map(listed, value)))
    if value is None or isinstance(value, str):
        return (value or "").strip()
    return json.dumps(value, ensure_ascii=False, default=str)


def symbols(row: dict) -> str:
    """The symbols with commas between; "" for none. Raises ValueError."""
    given = row.get("relevant_symbols")
    if isinstance(given, str) and given.lstrip().startswith("["):
        given = from_json("relevant_symbols", given)
    if given is None or isinstance(given, str):
        given = (given or "").split(",")
    if not isinstance(given, list) or not all(isinstance(symbol, str) for symbol in given):
        raise ValueError("relevant_symbols: not a list of texts")
    return ", ".join(symbol.strip() for symbol in given if symbol.strip())


def python(row: dict) -> str:
    """The source code without a fence around it. Raises ValueError if it is not Python."""
    code = textwrap.dedent(text(row, "source_code")).strip()
    lines = code.split("\n")
    if lines[0].startswith("```") and lines[-1].strip() == "```":
        code = "\n".join(lines[1:-1])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of "\d" in somebody's code
            tree = ast.parse(code)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        why = str(error).replace("<unknown>, ", "") or type(error).__name__
        raise ValueError(f"source_code: not Python: {why}") from None
    if not tree.body:
        raise ValueError("source_code: only comments")
    if "```" in code:
        raise ValueError("source_code: holds ```, which would end its fence")
    return code


def forms_of(row: dict, number: int) -> tuple[dict, dict, list[int]]:
    """(RL row without its split, SFT row, the keys that hold it to one side). Raises ValueError."""
    identity = row.get("id")
    name, description = text(row, "name").strip(), described(row)
    info = {
        "index": number,
        "id": text(row | {"id": str(identity)} if type(identity) is int else row, "id").strip(),
        "name": name,
        "description": description,
        "relevant_symbols": symbols(row),
    }
    traded = f" for {info['relevant_symbols']}" if info["relevant_symbols"] else ""
    content = PROMPT.format(symbols=traded, name=name, description=description)
    prompt = [{"role": "user", "content": content}]
    code = python(row)
    answer = f"{text(row, 'reasoning').strip()}\n\n```python\n{code}\n```"
    rl = {
        "data_source": "trading",
        "prompt": prompt,
        "ability": "trading",
        "reward_model": {"style": "rule", "ground_truth": answer},
        "extra_info": info,
    }
    sft = {"messages": [*prompt, {"role": "assistant", "content": answer}]}
    same = [("id", info["id"]), ("description", plain(description)), ("code", plain(code))]
    return rl, sft, [number_of(key) for key in same]


def number_of(value: object) -> int:
    """64 bits that tell JSON values apart: millions of them fit into memory."""
    return int.from_bytes(digest(value)[:8], "big")


def plain(words: str) -> str:
    """What stays of a text without case and white space."""
    return "".join(words.casefold().split())


class Sides:
    """Deals rows into train and val by their ids, and keeps what belongs together on one side."""

    def __init__(self, share: float):
        self.share = share
        self.side: dict[int, str] = {}  # by key
        self.rows: set[int] = set()

    def of(self, keys: list[int], row: int, given: str) -> str:
        """`train`, `val`, `in_both`, or `repeated` for a row that was there before."""
        sides = {self.side[key] for key in keys if key in self.side}
        if len(sides) > 1:
            return "in_both"
        by_id = "val" if keys[0] < self.share * 2**64 else "train"
        side = sides.pop() if sides else given or by_id
        self.side.update(dict.fromkeys(keys, side))
        if row in self.rows:
            return "repeated"
        self.rows.add(row)
        return side


def run(args: argparse.Namespace) -> None:
    """Make the dataset."""
    if (args.source is None) == (args.demo is None):
        raise Mistake("trading takes a FILE or --demo N (see --help)")
    if args.demo is not None and not 2 <= args.demo <= _trading_demo.MOST:
        raise Mistake(f"--demo takes a number of rows from 2 to {_trading_demo.MOST}")
    if args.source and not args.source.is_file():
        raise Mistake(f"no file {args.source}")
    sides = Sides(args.val_share)
    files = [args.source] if args.source else []
    read = _read.reader(args, there=bool(files))

    def placed(given: str, number: int, row: dict) -> tuple[dict, dict | None, str]:
        rl, sft, keys = forms_of(row, number)
        return rl, sft, sides.of(keys, number_of(sft), given)

    def fill(rows: _dataset.Rows) -> None:
        sources = [("", file.name, read(file)) for file in files]
        for given, name, source in sources or _dataset.demo_sources(
            _trading_demo.rows(args.seed), args, rows.folder
        ):
            for number, row in rows.reading(source, name):
                rows.keep(number, row, partial(placed, given))

    _dataset.make("trading", args, fill, EXTRA, files)
