"""`python -m data_prep NAME [options]`: make the dataset or model NAME under `data/NAME`.

Exit codes: 0 made or already there, 1 problems found by `inspect`, 2 a user's mistake (one or two
lines on standard error), 130 interrupted.
"""

import argparse
import ast
import importlib
import os
import sys
from pathlib import Path

from preflight.mistakes import Mistake, unknown


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, without the usage."""

    def error(self, message: str):
        raise Mistake(f"{message} (see `{self.prog} --help`)")


def names() -> dict[str, str]:
    """Every NAME with the first line of its docstring; found by folder, nothing is imported."""
    files = sorted(Path(__file__).parent.glob("[!_]*.py"))
    return {
        f.stem: (ast.get_docstring(ast.parse(f.read_text())) or "").split("\n")[0] for f in files
    }


def overview() -> str:
    """The help text: every name with its line."""
    width = max(map(len, names()))
    lines = [f"  {name:{width}}  {line}" for name, line in names().items()]
    return "\n".join(["python -m data_prep NAME [options]   (options: NAME --help)", "", *lines])


def prepare(argv: list[str]) -> int:
    """Run the source that `argv` names; returns the exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        print(overview())
        return 0 if argv else 2
    name, known = argv[0], names()
    if name not in known:
        raise Mistake(unknown("name", name, known))
    source = importlib.import_module(f"data_prep.{name}")
    parser = Parser(
        prog=f"python -m data_prep {name}",
        description=source.__doc__,
        allow_abbrev=False,
    )
    source.add_options(parser)
    return source.run(parser.parse_args(argv[1:])) or 0


def main(argv: list[str] | None = None) -> int:
    """`prepare`, with a user's mistake turned into a line on standard error and exit code 2."""
    try:
        return prepare(sys.argv[1:] if argv is None else argv)
    except BrokenPipeError:  # `... inspect FILE | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("data_prep: interrupted; nothing was written", file=sys.stderr)
        return 130
    except (Mistake, OSError) as error:  # OSError: full disk, no permission, no such file
        print(f"data_prep: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
