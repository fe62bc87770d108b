"""Maps the fields of a user's rows to RL and SFT rows: what `jsonl` and `hf` share.

An option marked (text) takes a field's name, or a text with {{field}} in it for the field's value.
"""

import argparse
import json
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pyarrow as pa

from data_prep import _dataset
from data_prep._read import BadRow
from data_prep._split import Split
from preflight.mistakes import Mistake

SHAREGPT = {"human": "user", "gpt": "assistant"}


def add_options(parser: argparse.ArgumentParser, source: str) -> None:
    """The options of the map; `source`: what gives the data its name, in the help."""
    parser.add_argument("--prompt", required=True, help="the user's message (text)")
    parser.add_argument("--answer", help="the ground truth (text); empty without this option")
    parser.add_argument(
        "--response", help="the assistant's message in SFT rows (text; default: --answer)"
    )
    parser.add_argument(
        "--system", help="system message: a text, with {{field}} for the value of a field"
    )
    parser.add_argument(
        "--db", help="field that names a database: a URL, or a file relative to the source's folder"
    )
    parser.add_argument(
        "--extra",
        type=lambda names: names.split(","),
        default=[],
        metavar="A,B",
        help="fields to copy into extra_info",
    )
    parser.add_argument(
        "--data-source", help=f"name of the data in each row (default: the {source}'s name)"
    )
    parser.add_argument("--ability", default="general", help="kind of task (%(default)s)")


def text(value: object) -> str:
    """A field's value as text: JSON for numbers, lists and mappings."""
    if isinstance(value, bytes):
        return value.decode(errors="surrogateescape")
    if isinstance(value, bool | int | float | list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)  # text, and the dates and decimals of parquet


def field(row: dict, name: str) -> object:
    """A field's value (`a.b`: field b of a mapping a). Raises BadRow if it is missing, null or without a word."""
    value = row.get(name)
    if name not in row:
        value = row
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
    if value is None or (isinstance(value, str) and not value.strip()):
        there = f"there is {', '.join(map(str, list(row)[:8])) or 'nothing'}"
        raise BadRow(f"column {name} is {'blank' if name in row else f'missing, {there}'}")
    return value


def filled(spec: str, row: dict) -> str:
    """`spec` with every {{field}} replaced, in one pass: values are never expanded again."""
    return re.sub(r"\{\{\s*([^{}]+?)\s*\}\}", lambda m: text(field(row, m[1])), spec)


def text_of(spec: str, row: dict) -> str:
    """A field's value, or a text with fields in it."""
    return filled(spec, row) if "{{" in spec else text(field(row, spec))


def of_sharegpt(message: object) -> object:
    """{from, value}, as ShareGPT's files have it, as {role, content}; any other message as it is."""
    if not isinstance(message, dict) or not {"from", "value"} <= message.keys():
        return message
    return {"role": SHAREGPT.get(message["from"], message["from"]), "content": message["value"]}


def messages(args: argparse.Namespace, row: dict) -> list:
    """The prompt as messages. Raises BadRow."""
    prompt = None if "{{" in args.prompt else field(row, args.prompt)
    if not isinstance(prompt, list):
        prompt = [{"role": "user", "content": text_of(args.prompt, row)}]
    prompt = [of_sharegpt(message) for message in prompt]
    system = [{"role": "system", "content": filled(args.system, row)}] if args.system else []
    return system + prompt


def database(folder: Path, name: str) -> str:
    """A database's URL as it is, a file's absolute path. Raises FileNotFoundError, or BadRow for a password."""
    if "://" in name:
        if re.search(r"://[^/\s@]*:[^/\s@]*@", name):
            raise BadRow(
                "no password in a URL: it would be in the data (~/.pgpass, PGPASSWORD, MYSQL_PWD)"
            )
        return name
    file = (folder / name).resolve()
    if not file.is_file():
        raise FileNotFoundError(f"no database file {file}")
    return str(file)


class Mapper:
    """Maps rows as `args` say and adds them, each to its split.

    `name` is of the data, `folder` where its database files are.
    """

    def __init__(self, args: argparse.Namespace, name: str, folder: Path, share: float):
        self.args, self.name, self.folder, self.split = args, name, folder, Split(share)
        if taken := {"index", "split"} & set(args.extra):
            names = ",".join(sorted(taken))
            raise Mistake(f"--extra {names}: extra_info has its own field of that name")
        # the fields of extra_info
        self.extra = dict.fromkeys([*args.extra, *(["db"] if args.db else [])], pa.string())

    def add_all(self, rows: _dataset.Rows, source: Iterable, name: str, given: str = "") -> None:
        """Add what `source` yields; `given` is its split, if it is of one."""
        for number, row in rows.reading(source, name):
            rows.keep(number, row, partial(self.placed, given))

    def placed(self, given: str, number: int, row: dict) -> tuple[dict, dict | None, str]:
        """The row's forms, and its split. Raises BadRow, ValueError, OSError (--db may hold no file's name)."""
        rl, sft = self.mapped(number, row)
        return rl, sft, self.split.of(rl["prompt"], given)

    def mapped(self, number: int, row: dict) -> tuple[dict, dict | None]:
        """(RL row without its split, SFT row or None). Raises BadRow, ValueError and OSError."""
        args = self.args
        prompt = messages(args, row)
        answer = text_of(args.answer, row) if args.answer else ""
        response = text_of(args.response, row) if args.response else answer
        info = {"index": number} | {name: text(field(row, name)) for name in args.extra}
        if args.db:
            info["db"] = database(self.folder, text(field(row, args.db)))
        rl = {
            "data_source": args.data_source or self.name,
            "prompt": prompt,
            "ability": args.ability,
            "reward_model": {"style": "rule", "ground_truth": answer},
            "extra_info": info,
        }
        sft = {"messages": [*prompt, {"role": "assistant", "content": response}]}
        return rl, sft if response else None
