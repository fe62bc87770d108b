"""Tables as plain text: no colours, no borders, the same in a terminal, a file and a pipe. Any room may import this."""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from rich.table import Table

NUMBER = re.compile(
    r"[-+]?\d[\d.,:]*(e[-+]?\d+)?%?|-|"
)  # also what stands for a number that is missing
GAP = 2  # spaces between two columns
WIDEST = 100_000  # characters: more than any line has


class Titled(NamedTuple):
    """A table with a title; its first column is text."""

    title: str
    columns: list[str]
    rows: list[list[str]]

    def __str__(self) -> str:
        return f"{self.title}\n\n{text(self.columns, self.rows)}\n"


def text(
    columns: Sequence[object], rows: Iterable[Sequence[object]], width: int | None = None
) -> str:
    """A table by rich: a line of heads, then a line a row; no newline at the end, and no cell is wrapped or cut.

    Args:
        columns: the heads.
        rows: cells, in each row as many as there are columns. A column of numbers (or "-" or "") is set to the right.
        width: characters. Where the lines are longer, each head is broken between its words. None: never.
    """
    from rich.console import Console  # at the first table: 40 ms

    heads, cells = [str(head) for head in columns], [[str(c) for c in row] for row in rows]
    console = Console(width=WIDEST, color_system=None, force_terminal=False)
    table = made(heads, cells)
    if width and console.measure(table).maximum > width:
        table = made([head.replace(" ", "\n") for head in heads], cells)
    with console.capture() as printed:
        console.print(table)
    return "\n".join(line.rstrip() for line in printed.get().splitlines())


def made(heads: list[str], rows: list[list[str]]) -> "Table":
    """The table as rich has it."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for number, head in enumerate(heads):
        numbers = bool(rows) and all(NUMBER.fullmatch(row[number]) for row in rows)
        side: Literal["right", "left"] = "right" if numbers else "left"
        table.add_column(Text(head), justify=side, vertical="bottom", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))  # Text: a bracket in a cell is no markup
    return table
