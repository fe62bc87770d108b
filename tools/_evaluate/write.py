"""Stored answers as a file that a person opens: .xlsx .csv .html .parquet; .jsonl is the store itself.

An answer is a model's text: in a spreadsheet it is never a formula, in a page never HTML.
"""

import csv
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from preflight.mistakes import Mistake
from tools._evaluate.store import FIXED, Store
from tools._evaluate.summary import Mean

SHEET_ROWS = 1_048_575  # below the heads
CELL = 32_767  # characters, all that a cell of a spreadsheet holds
SHOWN = 1000  # questions of a page
FORMULA = ("=", "+", "-", "@", "\t", "\r")
LONG = {"prompt": 50, "answer": 70, "ground_truth": 40}  # width of columns with long text
NOT_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
LARGEST = 2**63  # of whole numbers in a column


class Table(NamedTuple):
    """Figures: numbers, means with their margins, texts."""

    title: str
    heads: list[str]
    rows: list[list]


class View(NamedTuple):
    """What is written: the stored answers, and tables of figures."""

    store: Store
    columns: list[str]
    tables: list["Table"]
    settings: dict

    def lines(self) -> Iterator[dict]:
        """Every answer, in order."""
        for several in self.store.questions():
            yield from several


def columns_of(store: Store) -> list[str]:
    """The columns of all answers: those that every one has, then the others as they come."""
    seen = dict.fromkeys(FIXED)
    for lines in store.questions():
        for line in lines:
            seen.update(dict.fromkeys(line))
    return list(seen)


def text_of(value: object) -> str:
    """A cell's text."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(m, dict) and "content" in m for m in value):
        return "\n\n".join(f"[{m.get('role')}] {m['content']}" for m in value)
    return json.dumps(value, ensure_ascii=False, default=str)


def cell(value: object) -> object:
    """A number as it is, all else as text."""
    return value if is_number(value) and not isinstance(value, bool) else text_of(value)


def is_number(value: object) -> bool:
    """Whether a column of numbers can hold it."""
    return isinstance(value, int | float) and abs(value) < LARGEST


def fitting(value: str) -> str:
    """A text that a cell of a workbook takes: no more than CELL units of UTF-16, and nothing that XML forbids."""
    value = NOT_XML.sub("\ufffd", value)
    if len(value) <= CELL // 2 or len(wide := value.encode("utf-16-le")) <= 2 * CELL:
        return value
    start = wide[: 2 * (CELL - 60)].decode("utf-16-le", errors="ignore")  # half a pair at its end
    return f"{start}... (cut: {len(value)} characters)"


def xlsx(view: View, file: Path) -> None:
    """Sheets: answers, summary, settings."""
    import xlsxwriter

    options = {
        "constant_memory": True,
        "strings_to_formulas": False,
        "strings_to_urls": False,
        "nan_inf_to_errors": True,
    }
    with xlsxwriter.Workbook(str(file), options) as book:
        wrap = book.add_format({"text_wrap": True, "valign": "top"})
        top = book.add_format({"valign": "top"})
        head = book.add_format({"bold": True, "bg_color": "#DDE6F0", "bottom": 1})

        def sheet(name: str, heads: list[str], widths: list[int]):
            made = book.add_worksheet(name)
            for i, width in enumerate(widths):
                made.set_column(i, i, width)
            made.write_row(0, 0, map(fitting, heads), head)
            made.freeze_panes(1, 0)
            return made

        widths = [LONG.get(name, max(9, min(20, len(name) + 2))) for name in view.columns]
        page, at = None, SHEET_ROWS
        number = 0
        for line in view.lines():
            if at == SHEET_ROWS:
                number += 1
                page, at = (
                    sheet(f"answers {number}" if number > 1 else "answers", view.columns, widths),
                    0,
                )
                page.autofilter(0, 0, SHEET_ROWS, len(view.columns) - 1)
                colours(page, view.columns)
            at += 1
            for i, name in enumerate(view.columns):
                value = None if line.get(name) is None else cell(line[name])
                if isinstance(value, str):
                    page.write_string(at, i, fitting(value), wrap if name in LONG else top)
                elif value is not None:
                    page.write_number(at, i, value, top)
        three = book.add_format({"num_format": "0.###"})
        summary = book.add_worksheet("summary")
        summary.set_column(0, 0, 32)
        summary.set_column(1, 20, 14)
        at = 0
        title = book.add_format({"bold": True, "font_size": 13})
        for table in view.tables:
            summary.write_string(at, 0, table.title, title)
            wide = {
                i for row in table.rows for i, value in enumerate(row) if isinstance(value, Mean)
            }
            heads = [
                h
                for i, name in enumerate(table.heads)
                for h in ([name, "±"] if i in wide else [name])
            ]
            summary.write_row(at + 1, 0, map(fitting, heads), head)
            for number, row in enumerate(table.rows, at + 2):
                values = [
                    v for i, value in enumerate(row)
                    for v in (value if isinstance(value, Mean) else [value, ""] if i in wide else [value])
                ]  # fmt: skip
                for i, value in enumerate(values):
                    if isinstance(value, str):
                        summary.write_string(number, i, fitting(value))
                    elif value == value:
                        summary.write_number(number, i, value, three)
            at += len(table.rows) + 3
        settings = sheet("settings", ["setting", "value"], [28, 110])
        for i, (name, value) in enumerate(view.settings.items(), 1):
            settings.write_string(i, 0, name, top)
            settings.write_string(i, 1, fitting(text_of(value)), wrap)


def colours(page, columns: list[str]) -> None:
    """Scores from red over yellow to green."""
    for i, name in enumerate(columns):
        if name.rpartition("/")[2] in ("score", "acc"):
            page.conditional_format(1, i, SHEET_ROWS, i, {
                "type": "3_color_scale", "min_color": "#F4B6B6", "mid_color": "#FFF3C4", "max_color": "#B7E1B5",
            })  # fmt: skip


def csv_file(view: View, file: Path) -> None:
    """Text that a spreadsheet would take for a formula gets an apostrophe before it."""
    with open(file, "w", encoding="utf-8-sig", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(map(no_formula, view.columns))
        for line in view.lines():
            rows.writerow(no_formula(cell(line.get(name))) for name in view.columns)


def no_formula(value: object) -> object:
    """A cell of a CSV that no spreadsheet runs."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def parquet(view: View, file: Path) -> None:
    """Numbers as numbers, all else as text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    numeric = dict.fromkeys(view.columns, True)
    whole = dict.fromkeys(view.columns, True)
    for line in view.lines():
        for name, value in line.items():
            if value is not None:
                numeric[name] &= is_number(value)
                whole[name] &= isinstance(value, int) and not isinstance(value, bool)
    kinds = {
        n: (pa.int64() if whole[n] else pa.float64()) if numeric[n] else pa.string()
        for n in view.columns
    }
    schema = pa.schema(list(kinds.items()))

    def typed(name: str, value: object) -> Any:
        if value is None or not numeric[name]:
            return None if value is None else text_of(value)
        return value if whole[name] else float(value)  # type: ignore[arg-type]

    with pq.ParquetWriter(file, schema) as out:
        some: list[dict] = []
        for line in view.lines():
            some.append({name: typed(name, line.get(name)) for name in view.columns})
            if len(some) == 4096:
                out.write_table(pa.Table.from_pylist(some, schema))
                some = []
        out.write_table(pa.Table.from_pylist(some, schema))


def html(view: View, file: Path) -> None:
    """One page: figures, then the first answers."""
    from itertools import islice

    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    template = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("page.html.jinja")
    groups = list(islice(view.store.questions(), SHOWN + 1))
    names = [n for n in view.columns if n not in FIXED]
    shown = [
        {
            "model": lines[0]["model"],
            "row": lines[0]["row"],
            "prompt": (asked := text_of(lines[0]["prompt"])),
            "question": (asked.strip().splitlines() or [""])[-1],
            "truth": text_of(lines[0]["ground_truth"]),
            "answers": [
                {
                    "text": line["answer"],
                    "finish": line["finish"],
                    "score": next(
                        (line[n] for n in names if n.endswith("score") and line.get(n) is not None),
                        None,
                    ),
                    "parts": {n: text_of(line[n]) for n in names if line.get(n) is not None},
                }
                for line in lines
            ],
        }
        for lines in groups[:SHOWN]
    ]
    page = template.render(
        title=view.store.output.stem, tables=view.tables, questions=shown,
        more=len(groups) > SHOWN, shown=SHOWN, store=view.store.file.name,
        settings={name: text_of(value) for name, value in view.settings.items()},
    )  # fmt: skip
    file.write_text(page, encoding="utf-8")


WRITERS: dict[str, Callable[[View, Path], None]] = {
    ".xlsx": xlsx,
    ".csv": csv_file,
    ".html": html,
    ".parquet": parquet,
}
SUFFIXES = (*WRITERS, ".jsonl")


def check(output: Path, files: list[Path]) -> None:
    """Raises Mistake if nobody can write such a file, or if it would take the place of the questions."""
    if output.is_dir():
        raise Mistake(f"--output {output} is a folder: name a file in it, {output}/results.xlsx")
    stem = output.with_suffix("")
    for file in files:
        if file.absolute() in [p.absolute() for p in (output, Path(f"{stem}.answers.jsonl"))]:
            raise Mistake(
                f"--output {output} would take the place of the questions in {file}: give it another name"
            )
    if output.suffix not in SUFFIXES:
        raise Mistake(f"--output {output}: it must end with one of {' '.join(SUFFIXES)}")


def write(view: View) -> None:
    """The file that was asked for, whole or not at all."""
    output = view.store.output
    if output.suffix not in WRITERS:
        return
    part = output.with_name(f".{output.stem}.part{output.suffix}")
    try:
        WRITERS[output.suffix](view, part)
        os.replace(part, output)
    finally:
        part.unlink(missing_ok=True)
