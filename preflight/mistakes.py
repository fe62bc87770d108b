"""A user's mistake, and the words for a name that doesn't exist. A leaf: any room may import it."""

import difflib
import os
from collections.abc import Iterable
from pathlib import Path

MAX_LINES = 3  # of a refusal


class Mistake(Exception):
    """A user's mistake: a line or two for standard error, exit status 2, no traceback.

    Raised by a check, it is the last word: the others could make no sense of this config.
    """


def near(path: str | Path) -> str:
    """A path as a message says it: relative inside of the working folder, else whole."""
    relative = os.path.relpath(path)
    return str(os.path.abspath(path)) if relative.startswith("..") else relative


def nearest(name: str, known: Iterable, cutoff: float = 0.6) -> str:
    """ " Did you mean X?" if something is near, else nothing."""
    known = [str(k) for k in known]
    close = [k for k in known if k.lower() == name.lower()] or difflib.get_close_matches(
        name, known, 1, cutoff
    )
    return f" Did you mean {close[0]}?" if close else ""


def unknown(what: str, name: str, known: Iterable) -> str:
    """The line for a name that does not exist."""
    known = sorted(map(str, known))
    return f"unknown {what} {name!r}.{nearest(name, known)} There is: {', '.join(known)}"
