"""Writes a dataset: checked rows into parquet files in row groups, bad rows counted and kept.

Every row that a source reads ends in exactly one count of the card: train, val, rejected, or a
reason for which it was left out. The sum is checked when the files are closed.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from data_prep import _folder, _schema
from data_prep._lengths import Lengths, load_tokenizer
from data_prep._read import Broken
from preflight.mistakes import Mistake

PREFIXES = {"rl": "", "sft": "sft_", "preference": "pref_", "process": "prm_"}  # of files
GROUP_ROWS, GROUP_CHARACTERS = 4096, 1 << 24  # a row group is full at one of them
SHOWN = 10
NOT_TEXT = re.compile(r"not valid UTF-8|surrogates not allowed|\\udc[89a-f]")
OTHER_ENCODING = (
    "A file in another encoding: name that with --encoding (cp1252, latin-1, big5, gb18030, ...), an option of"
    " `data_prep` jsonl, convert, finance, trading and econ\n"
)


def add_options(parser: argparse.ArgumentParser, name: str, rejects: bool = True) -> None:
    """The options of every dataset; `rejects` for those that read what a user brings."""
    group = parser.add_argument_group("output")
    group.add_argument("--out", type=Path, default=Path("data") / name, help="folder (%(default)s)")
    group.add_argument("--force", action="store_true", help="replace what is in the folder")
    group.add_argument("--tokenizer", help="model folder, for lengths in tokens in the card")
    if rejects:
        group.add_argument(
            "--on-bad",
            choices=("fail", "skip"),
            default="fail",
            help="bad rows: end with an error that shows the first ten, or write them to rejected.jsonl (%(default)s)",
        )


def val_share(text: str) -> float:
    """An option's value between 0 and 1, both excluded."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def demo_sources(
    rows: Iterable[Mapping], args: argparse.Namespace, folder: Path
) -> list[tuple[str, str, Iterable]]:
    """`args.demo` rows as (split, name, rows), first those for validation.

    They are also written to demo.jsonl in `folder`, as a user's file would be.
    """
    made = list(islice(rows, args.demo))
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in made)
    (folder / "demo.jsonl").write_text("".join(lines), encoding="utf-8")
    held = max(1, round(args.val_share * args.demo))
    return [("val", "demo", made[:held]), ("train", "demo", made[held:])]


class _File:
    """One parquet file of one kind of rows, written in row groups."""

    def __init__(self, path: Path, kind: str, extra: Mapping[str, pa.DataType], tokenizer):
        self.schema = _schema.arrow(kind, extra if kind == "rl" else None)
        self.writer = pq.ParquetWriter(path, self.schema)
        self.lengths = Lengths(kind, tokenizer)
        self.waiting: list[Mapping] = []
        self.characters = self.rows = 0

    def write(self, row: Mapping) -> None:
        self.waiting.append(row)
        self.rows += 1
        self.characters += len(str(row))
        if len(self.waiting) >= GROUP_ROWS or self.characters >= GROUP_CHARACTERS:
            self.flush()

    def flush(self) -> None:
        self.writer.write_table(pa.Table.from_pylist(self.waiting, self.schema))
        self.lengths.add(self.waiting)
        self.waiting, self.characters = [], 0

    def close(self) -> None:
        if self.waiting or not self.rows:
            self.flush()
        self.writer.close()


class Rows:
    """The files of a dataset while they are written."""

    def __init__(self, folder: Path, extra: Mapping[str, pa.DataType], on_bad: str, tokenizer):
        self.folder, self.extra, self.on_bad, self.tokenizer = folder, extra, on_bad, tokenizer
        self.counts: Counter[str] = Counter(read=0, train=0, val=0, rejected=0)
        self.notes: dict[str, Any] = {}
        self._files: dict[str, _File] = {}
        self._bad: list[str] = []  # the first ones, as lines of an error
        self._name = ""
        self._rejected: TextIO | None = None

    def reading(self, source: Iterable, name: str, total: int | None = None) -> Iterator:
        """The rows of `source`, called `name`, as (number, row): counted, with a progress bar."""
        self._name = name
        bar = tqdm(source, desc=name, total=total, unit=" rows", disable=None)
        for number, row in enumerate(bar):
            self.counts["read"] += 1
            yield number, row

    def add(
        self, number: int, raw: object, rl: Mapping, sft: Mapping | None = None, **more: Mapping
    ) -> None:
        """Keep a row in the files of its split, or reject it if one of its forms is bad.

        `more`: forms of other kinds (_schema.KINDS), by kind.
        """
        forms = {"rl": rl, "sft": sft, **more}
        forms = {kind: row for kind, row in forms.items() if row is not None}
        problems = [p for kind, row in forms.items() for p in _schema.check(kind, row)]
        if problems:
            self.reject(number, raw, "; ".join(problems))
            return
        split = rl["extra_info"]["split"]
        self.counts[split] += 1
        for kind, row in forms.items():
            self._file(f"{PREFIXES[kind]}{split}", kind).write(row)

    def put(self, kind: str, split: str, row: Mapping, count: str, reads: int = 1) -> None:
        """Keep a row of one kind that has no RL row beside it, made of `reads` rows, counted as `count`."""
        if problems := _schema.check(kind, row):
            raise ValueError(f"{'; '.join(problems)} in {row}")
        self.counts[count] += reads
        self._file(f"{PREFIXES[kind]}{split}", kind).write(row)

    def keep(self, number: int, row: object, placed: Callable) -> None:
        """Add what `placed(number, row)` makes of a row that was read, or say why not.

        placed: gives the RL row without its split, the SFT row or None, and the split, or the count
            under which a row that isn't wanted is left out. Raises ValueError or OSError for a bad row.
        """
        if isinstance(row, Broken):
            self.reject(number, row.text, row.why)
            return
        try:
            rl, sft, split = placed(number, row)
        except (ValueError, OSError) as error:
            self.reject(number, row, str(error))
            return
        if split not in ("train", "val"):
            self.leave_out(split)
            return
        rl["extra_info"]["split"] = split
        self.add(number, row, rl, sft)

    def add_sft(self, split: str, row: Mapping) -> None:
        """Keep an SFT row that has no RL row beside it."""
        self.put("sft", split, row, "sft")

    def reject(self, number: int, raw: object, why: str) -> None:
        """Count a bad row, and keep it with its reason (or remember it for the error)."""
        self.counts["rejected"] += 1
        if self.on_bad == "skip":
            if self._rejected is None:
                self._rejected = (self.folder / "rejected.jsonl").open("w")
            line = {"source": self._name, "row": number, "reason": why, "data": raw}
            self._rejected.write(json.dumps(line, default=str) + "\n")
        if len(self._bad) < SHOWN:
            why = why[:300].encode(errors="backslashreplace").decode()
            self._bad.append(f"  {self._name} row {number}: {why}")

    def leave_out(self, why: str, reads: int = 1) -> None:
        """Count good rows that are not wanted, under the name `why`."""
        self.counts[why] += reads

    def abandon(self) -> None:
        """Have the unfinished files say nothing: closing them would try to write what is left."""
        for file in self._files.values():
            file.writer.is_open = False

    def _file(self, name: str, kind: str) -> _File:
        if name not in self._files:
            path = self.folder / f"{name}.parquet"
            self._files[name] = _File(path, kind, self.extra, self.tokenizer)
        return self._files[name]

    def settle(self) -> dict[str, int]:
        """The counts, when everything is read. Raises Mistake for bad rows, or if there was none."""
        if self._rejected:
            self._rejected.close()
        counts, bad = dict(self.counts), "\n".join(self._bad)
        if not counts["read"]:
            raise Mistake(f"{self._name} has no rows")
        if bad and self.on_bad == "fail":
            raise Mistake(
                f"{counts['rejected']} of {counts['read']} rows are bad (row 0 is the first of the file):\n{bad}\n"
                f"{OTHER_ENCODING if NOT_TEXT.search(bad) else ''}"
                "Nothing was written; --on-bad skip leaves them out and keeps them aside"
            )
        return counts

    def close(self) -> dict:
        """Finish the files; returns the card's content. Raises Mistake for bad rows."""
        for file in self._files.values():
            file.close()
        counts, bad = self.settle(), "\n".join(self._bad)
        if counts["read"] != sum(n for name, n in counts.items() if name != "read"):
            raise RuntimeError(f"rows were lost without being counted: {counts}")
        if not counts["train"] or not counts["val"]:
            empty = "val" if counts["train"] else "train"
            found = ", ".join(f"{n} {name}" for name, n in counts.items())
            why = f". The first that are bad:\n{bad}" if bad else "; see --val-share"
            raise Mistake(f"no rows for {empty} ({found}){why}")
        written = {f"{name}.parquet": file for name, file in self._files.items()}
        return {
            "counts": counts,
            "rows": {name: file.rows for name, file in written.items()},
            "tokenizer": getattr(self.tokenizer, "name_or_path", None),
            "lengths": {name: file.lengths.summary() for name, file in written.items()},
            **self.notes,
            "versions": _folder.versions("verl-lab", "pyarrow", "transformers", "tokenizers"),
        }


def make(
    name: str,
    args: argparse.Namespace,
    fill: Callable[[Rows], None],
    extra: Mapping[str, pa.DataType] | None = None,
    inputs: Iterable[Path] = (),
) -> None:
    """Make the dataset `name`: `fill(rows)` reads the source and adds every row.

    `extra` are the fields of extra_info beyond index and split. The options in `args` go into the
    card; the folder's place does too, because rows name database files by absolute path.
    """
    options: dict[str, Any] = {
        k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()
    }
    options["out"] = str(args.out.resolve())
    force = options.pop("force")

    def write(folder: Path) -> dict:
        tokenizer = load_tokenizer(args.tokenizer) if args.tokenizer else None
        rows = Rows(folder, extra or {}, getattr(args, "on_bad", "fail"), tokenizer)
        try:
            fill(rows)
            return rows.close()
        except BaseException:
            rows.abandon()
            raise

    card = _folder.build(name, args.out, options, write, inputs, force)
    counts = ", ".join(f"{n} {rows}" for n, rows in card["rows"].items())
    rejected = card["counts"]["rejected"]
    print(f"{args.out}: {counts}" + (f"; {rejected} rejected" if rejected else ""))
