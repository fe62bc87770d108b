"""A user's mistake, and the words for a name that doesn't exist. A leaf: any room may import it."""

import difflib
from collections.abc import Iterable


class Mistake(Exception):
    """A user's mistake: a line or two for standard error, exit status 2, no traceback.

    Raised by a check, it is the last word: the others could make no sense of this config.
    """


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
