"""Your own data: JSONL, JSON, CSV, TSV or parquet, with a map of its fields.

Options marked (text) take a field's name, or a text with {{field}} in it for the field's value:
  --prompt question            --prompt 'Schema: {{schema}}\\nQuestion: {{question}}'
Single braces stay as they are. A prompt field may hold messages ({role, content}) instead.
Writes RL rows, and SFT rows where there is an answer. Rows with the same prompt land on the same
side of the split.
"""

import argparse
import hashlib
import json
import re
from pathlib import Path

import pyarrow as pa

from data_prep import UserError, _rows
from data_prep._read import Broken, read


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this source."""
    parser.add_argument("source", type=Path, metavar="FILE", help="the file to read")
    parser.add_argument("--prompt", required=True, help="the user's message (text)")
    parser.add_argument("--answer", help="the ground truth (text); without it, it is empty")
    parser.add_argument("--response", help="SFT: the assistant's message (text); default --answer")
    parser.add_argument("--system", help="system message (text; a bare word is no field here)")
    parser.add_argument("--db", help="field with a database file, relative to the source's folder")
    parser.add_argument(
        "--extra",
        type=lambda names: names.split(","),
        default=[],
        metavar="A,B",
        help="fields to carry into extra_info",
    )
    parser.add_argument("--data-source", help="name for the reward; default the file's name")
    parser.add_argument("--ability", default="general", help="kind of task (%(default)s)")
    parser.add_argument("--val", type=Path, help="file of validation rows")
    parser.add_argument(
        "--val-share", type=_rows.val_share, default=0.05, help="without --val (%(default)s)"
    )
    _rows.add_options(parser, "jsonl")


class Bad(ValueError):
    """A row that can't be mapped; the text says which field and why."""


def text(value: object) -> str:
    """A field's value as text: JSON for numbers, lists and mappings."""
    if isinstance(value, bytes):
        return value.decode(errors="surrogateescape")
    if isinstance(value, bool | int | float | list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)  # text, and the dates and decimals of parquet


def field(row: dict, name: str) -> object:
    """A field's value. Raises Bad if it is missing, null or empty."""
    value = row.get(name)
    if value is None or value == "":
        there = f"missing, there is {', '.join(map(str, list(row)[:8])) or 'nothing'}"
        raise Bad(f"{name}: {'empty' if name in row else there}")
    return value


def filled(spec: str, row: dict) -> str:
    """`spec` with every {{field}} replaced, in one pass: values are never expanded again."""
    return re.sub(r"\{\{\s*([^{}]+?)\s*\}\}", lambda m: text(field(row, m[1])), spec)


def said(spec: str, row: dict) -> str:
    """A field's value, or a text with fields in it."""
    return filled(spec, row) if "{{" in spec else text(field(row, spec))


def messages(args: argparse.Namespace, row: dict) -> list:
    """The prompt as messages. Raises Bad."""
    prompt = None if "{{" in args.prompt else field(row, args.prompt)
    if not isinstance(prompt, list):
        prompt = [{"role": "user", "content": said(args.prompt, row)}]
    system = [{"role": "system", "content": filled(args.system, row)}] if args.system else []
    return system + prompt


def digest(prompt: list) -> bytes:
    """16 bytes that tell prompts apart."""
    return hashlib.sha256(json.dumps(prompt, default=str).encode()).digest()[:16]


def mapped(args: argparse.Namespace, number: int, row: dict) -> tuple[dict, dict | None]:
    """(RL row without its split, SFT row or None). Raises Bad."""
    prompt = messages(args, row)
    answer = said(args.answer, row) if args.answer else ""
    response = said(args.response, row) if args.response else answer
    info = {"index": number} | {name: text(field(row, name)) for name in args.extra}
    if args.db:
        file = (args.source.parent / text(field(row, args.db))).resolve()
        if not file.is_file():
            raise Bad(f"{args.db}: no database file {file}")
        info["db"] = str(file)
    rl = {
        "data_source": args.data_source or args.source.stem,
        "prompt": prompt,
        "ability": args.ability,
        "reward_model": {"style": "rule", "ground_truth": answer},
        "extra_info": info,
    }
    sft = {"messages": [*prompt, {"role": "assistant", "content": response}]}
    return rl, sft if response else None


def run(args: argparse.Namespace) -> None:
    """Make the dataset."""
    sources = [("val", args.val), ("train", args.source)] if args.val else [("", args.source)]
    for _, file in sources:
        if not file.is_file():
            raise UserError(f"no file {file}")
    if taken := {"index", "split"} & set(args.extra):
        raise UserError(f"--extra {','.join(taken)}: extra_info has its own field of that name")
    in_val: set[bytes] = set()

    def split_of(given: str, prompt: list) -> str:
        key = digest(prompt)
        if given == "val":
            in_val.add(key)
        if given:
            return "in_val" if given == "train" and key in in_val else given
        return "val" if int.from_bytes(key[:8], "big") < args.val_share * 2**64 else "train"

    def keep(rows: _rows.Rows, given: str, number: int, row: dict | Broken) -> None:
        if isinstance(row, Broken):
            rows.reject(number, row.text, row.why)
            return
        try:
            rl, sft = mapped(args, number, row)
        except (ValueError, OSError) as error:  # not only Bad: --db may hold no name for a file
            rows.reject(number, row, str(error))
            return
        split = split_of(given, rl["prompt"])
        if split == "in_val":
            rows.leave_out(split)
            return
        rl["extra_info"]["split"] = split
        rows.add(number, row, rl, sft)

    def fill(rows: _rows.Rows) -> None:
        for given, file in sources:
            for number, row in rows.reading(read(file), file.name):
                keep(rows, given, number, row)

    extra = dict.fromkeys([*args.extra, *(["db"] if args.db else [])], pa.string())
    _rows.make("jsonl", args, fill, extra, [file for _, file in sources])
