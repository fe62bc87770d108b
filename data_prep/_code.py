"""Which code makes a dataset, so that a card can say it: NAME.py and what it imports of this project.

Found by the import statements, those in functions too, of each file that is imported in its turn;
and for a module, the YAML of the same name beside it. Not seen: what runs in another process, such as
the reward that `preference` and `process` ask.
"""

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def imported(file: Path, root: Path) -> Iterator[Path]:
    """The files below `root` that the import statements of a Python file name."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:  # a name in it may be a module, too
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            place = root.joinpath(*name.split("."))
            found = (place.with_suffix(".py"), place / "__init__.py")
            yield from (path for path in found if path.is_file())


def files_of(name: str, root: Path = ROOT) -> list[Path]:
    """The files that make NAME, sorted."""
    found: set[Path] = set()
    waiting = [root / "data_prep" / f"{name}.py"]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        if file.suffix == ".py":
            waiting += imported(file, root)
            words = file.with_suffix(".yaml")
            waiting += [words] if words.is_file() else []
    return sorted(found)


def code_of(name: str, root: Path = ROOT) -> dict[str, str]:
    """A hash of each file that makes NAME, by its path in the project."""
    return {
        file.relative_to(root).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        for file in files_of(name, root)
    }
