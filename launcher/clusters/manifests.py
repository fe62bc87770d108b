"""YAML files for engines that take a run as one."""

from pathlib import Path
from typing import Any

import yaml

NOT_RUN = "Made by launch.py. Files like this pass the checks of their format; none was run by this project."


class Dumper(yaml.SafeDumper):
    """Writes a text of several lines as lines, not in quotes."""


Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)


def write(file: Path, tree: dict[str, Any], *comments: str) -> None:
    """Write a file with comments above, a line each."""
    head = "".join(f"# {line}\n" for line in (NOT_RUN, *comments))
    file.write_text(head + yaml.dump(tree, Dumper=Dumper, sort_keys=False, allow_unicode=True))
