"""The terminal: questions of one or more lines, and answers that can't do anything to it."""

import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from rich.console import Console

from tools._models.engine import begun

OPEN, CLOSE = "<think>", "</think>"
BLOCK = '"""'
CONTROL = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t\r"}
# DEL; C1, whose \x9b begins a colour as ESC [ does; text that runs backwards; halves of a pair
OTHER = (0x7F, *range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000))  # fmt: skip
HARMLESS = CONTROL | dict.fromkeys(OTHER, "\ufffd") | {ord("\r"): None}


def harmless(text: str) -> str:
    """Text of a model or a file without what moves the cursor, clears the screen or changes its colours."""
    return text.translate(HARMLESS)


def spans(pieces: Iterable[str], thinks: bool) -> Iterator[tuple[str, bool]]:
    """Pieces of an answer, each with whether it belongs to the reasoning before it; the tags do.

    Args:
        pieces: <think> counts at the beginning only: later it is a word like others.
        thinks: whether the prompt has opened the reasoning already.
    """
    held, pieces = "", iter(pieces)
    for piece in () if thinks else pieces:
        held += piece
        start = held.lstrip()
        if start.startswith(OPEN):
            thinks = True
        elif OPEN.startswith(start):
            continue  # not told yet
        break
    while thinks:
        if CLOSE in held:
            thought, _, held = held.partition(CLOSE)
            yield thought + CLOSE, True
            thinks = False
        else:
            ready = held[: len(held) - begun(held, (CLOSE,))]
            if ready:
                yield ready, True
            held = held[len(ready) :]
            if (piece := next(pieces, None)) is None:
                break
            held += piece
    if held:
        yield held, thinks
    for piece in pieces:
        yield piece, thinks


def spoken(text: str, thinks: bool) -> str:
    """An answer without its reasoning; empty if that has no end."""
    if thinks or text.lstrip().startswith(OPEN):
        return text.partition(CLOSE)[2].lstrip()
    return text


class Typed(NamedTuple):
    """What a person typed."""

    text: str
    is_command: bool = False  # a single line that begins with a slash


class Terminal:
    """Where a person reads and writes; or a pipe."""

    def __init__(self, commands: Iterable[str] = ()):
        for stream in (sys.stdin, sys.stdout):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")
        self.screen = Screen(highlight=False)
        self.live = sys.stdin.isatty()
        if self.live:
            edit_lines(sorted(commands))

    def say(self, text: str = "", style: str | None = None, end: str = "\n") -> None:
        """Print text as it is, but for what would do something to the terminal."""
        self.screen.out(harmless(text), style=style, end=end, highlight=False)

    def note(self, text: str) -> None:
        """A remark of the program, told apart from what a model says."""
        self.say(text, "dim")

    def read(self) -> Typed | None:
        """What comes next; None at the end of the input. Ctrl-C takes back what was typed."""
        try:
            return self.lines()
        except KeyboardInterrupt:
            if not self.live:
                raise
            self.say()
            self.note("Ctrl-D or /quit ends")
            return Typed("")

    def lines(self) -> Typed | None:
        """One line; several, between lines of three quotes, or with a backslash at the end of each but the last."""
        first = self.line("> ")
        if first is None:
            return None
        if not first.lstrip().startswith(BLOCK):
            found = first
            while found.endswith("\\") and (more := self.line(". ")) is not None:
                found = f"{found[:-1]}\n{more}"
            return Typed(found.strip(), first.startswith("/"))
        block = first.lstrip().removeprefix(BLOCK)
        while not block.rstrip().endswith(BLOCK):
            more = self.line(". ")
            if more is None:
                self.say(f"a block that {BLOCK} begins was not ended by {BLOCK}: it was not asked")
                return None
            block += f"\n{more}"
        return Typed(block.rstrip().removesuffix(BLOCK).strip("\n"))

    def line(self, prompt: str) -> str | None:
        try:
            typed = input(prompt).rstrip("\r")
        except EOFError:
            self.say()
            return None
        if not self.live:
            self.say(typed)  # so that the output can be read by itself
        return typed


class Screen(Console):
    """rich's console; it would end the program by itself where nobody reads on."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def edit_lines(words: list[str]) -> None:
    """Arrow keys, the lines typed before, and Tab for commands."""
    with contextlib.suppress(ImportError):  # a Python that was built without it
        import readline

        def complete(text: str, number: int) -> str | None:
            return next(iter([word for word in words if word.startswith(text)][number:]), None)

        readline.set_completer_delims(" \t\n")
        readline.set_completer(complete)
        readline.parse_and_bind("tab: complete")
