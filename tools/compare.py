"""Which model is better, by how much, and whether these rows can tell: two sides or more, question by question.

    python -m tools.compare outputs/demo/TIME/grpo                 a run: its first against its last validation
    python -m tools.compare RUN RUN@8 OTHER_RUN                    validations; RUN alone is its last
    python -m tools.compare base.jsonl trained.jsonl --by db_id    evaluations of tools.evaluate
    python -m tools.compare old=a,b,c new='outputs/new_*/grpo'     groups of seeds
    python -m tools.compare tiny RUN@best dataset=sql_demo reward=sql      models: they are evaluated first

Writes compare.html, compare.png and compare.json. What the figures mean: docs/compare.md.
"""

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from preflight.mistakes import Mistake
from tools import Parser, guarded
from tools._compare import arguments, figures, page, plots, text
from tools._compare.arguments import Words
from tools._compare.figures import Comparison, Options
from tools._compare.reading import read

FOLDER = Path("outputs/compare")
FILES = ("compare.html", "compare.png", "compare.json")
EVALUATION = "evaluation.jsonl"
LONGEST = 60  # characters of a folder's name


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser(
        prog="python -m tools.compare",
        description=__doc__,
    )
    parser.add_argument(
        "sides",
        nargs="+",
        metavar="SIDE",
        help="file, run, group of seeds or model; KEY=VALUE for models",
    )
    parser.add_argument(
        "--metric", metavar="PART", help="acc, score, any number of the reward (acc, else score)"
    )
    parser.add_argument("--by", metavar="COLUMN", help="a table by category")
    parser.add_argument(
        "--cluster",
        metavar="COLUMN",
        help="questions with the same value here depend on each other",
    )
    parser.add_argument(
        "--all-pairs", action="store_true", help="every pair, not each against the first"
    )
    parser.add_argument("--input", metavar="FILE", help="for models: what to ask them")
    parser.add_argument(
        "--evaluate", metavar="OPTIONS", default="", help='for models: --evaluate="--n 8 --seed 1"'
    )
    parser.add_argument(
        "--examples", type=int, default=3, metavar="N", help="questions to print (%(default)s)"
    )
    parser.add_argument(
        "--page-examples", type=int, default=25, metavar="N", help="and on the page (%(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help=f"where the page goes ({FOLDER}/A-vs-B)"
    )
    args = parser.parse_intermixed_args(argv)
    return guarded(lambda: run(args), OSError)


def run(args: argparse.Namespace) -> int:
    """Compare, print, write."""
    words = arguments.understood(args.sides, ask=args.input is not None)
    sides = [side for some in words.sides for side in some]
    if len(sides) < 2:
        raise Mistake(
            "a comparison needs two sides: two files, two runs, or a run with two validations"
        )
    names = arguments.labels(sides)
    same = [(s.name, s.model, s.source.expanduser().resolve()) for s in sides if not s.seeds]
    if twice := next((one for one in same if same.count(one) > 1), None):
        raise Mistake(f"{twice[0]} is named twice, and would be compared with itself")
    folder = own(args.out or FOLDER / folder_name(names))
    if words.models and (status := evaluate(words, folder, args)):
        return status
    found = figures.compare(
        sides, names, Options(args.metric, args.by, args.cluster, args.all_pairs)
    )
    show(found, args.examples)
    picture, svg = plots.draw(found)
    folder.mkdir(parents=True, exist_ok=True)
    html, png, numbers = (folder / name for name in FILES)
    html.write_text(page.page(found, svg, args.page_examples), encoding="utf-8")
    png.write_bytes(picture)
    numbers.write_text(page.as_json(found), encoding="utf-8")
    Console(highlight=False, soft_wrap=True).print(
        f"\n{html}, {png.name}, {numbers.name}", markup=False
    )
    return 0


def evaluate(words: Words, folder: Path, args: argparse.Namespace) -> int:
    """Ask the models; their answers are put into their sides. Returns the exit status of tools.evaluate.

    A process of its own: an engine keeps its memory until its process ends. The same command asks nothing twice.
    """
    file = folder / EVALUATION
    command = [sys.executable, "-m", "tools.evaluate", *dict.fromkeys(words.models.values()), *words.settings,
               "--output", str(file), *shlex.split(args.evaluate)]  # fmt: skip
    if args.input:
        command += ["--input", args.input]
    try:
        status = subprocess.run(command, check=False).returncode
    except KeyboardInterrupt:  # tools.evaluate had it as well, and has said what is kept
        return 130
    if status:
        return status
    answered = {one.model: one for one in read(file)}
    for place, said in words.models.items():
        [side] = words.sides[place]
        side.rows, side.source = answered[said].rows, file
    return 0


def folder_name(names: list[str]) -> str:
    """A folder for these sides."""
    plain = [re.sub(r"[^\w.@-]+", "_", name).strip("._") or "side" for name in names]
    return "-vs-".join(plain)[: LONGEST * 2].rstrip("._-")


def own(folder: Path) -> Path:
    """The folder, if it is new or from an earlier comparison. Raises Mistake if others' files are in it."""
    if folder.is_file():
        raise Mistake(f"--out {folder} is a file; a folder is needed")
    there = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
    if others := sorted(there - {*FILES} - {n for n in there if n.startswith("evaluation")}):
        raise Mistake(f"{folder} holds other files ({', '.join(others[:3])}): give the comparison a folder of its own"
                      " with --out")  # fmt: skip
    return folder


def show(found: Comparison, most: int) -> None:
    """Print the tables, some questions, and the verdicts last: there they are read."""
    console = Console(highlight=False, soft_wrap=True)

    def put(lines: object) -> None:
        console.print(f"\n{lines}".rstrip(), markup=False)

    for table in text.made(found).values():
        put(table)
    for name, examples in (("won", found.won), ("lost", found.lost)):
        if examples and most > 0:
            put(f"{name} by {found.names[1]} against {found.names[0]}: {len(examples)} questions")
            for one in examples[:most]:
                put(text.example(found.names, one, found.metric))
    put("\n".join(f"{note}." for note in found.notes))
    for warning in found.parts.warnings:
        put(f"look at it: {warning}")
    put("\n".join(found.verdicts))


if __name__ == "__main__":
    sys.exit(main())
