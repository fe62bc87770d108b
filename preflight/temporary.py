"""The temporary folder of a run's processes: short and plain enough for Ray's sockets, wherever TMPDIR points."""

import contextlib
import getpass
import os
import re
import secrets
import sys
import tempfile
from pathlib import Path

# A socket's path has at most 107 bytes (103 on macOS), and Ray's end on /session_DATE_PID/sockets/plasma_store.
MOST = 43 if sys.platform == "linux" else 39  # bytes of the folder
PLAIN = re.compile(
    r"[\w/.+-]+", re.ASCII
)  # what no program takes for anything but a letter of a path
NAME = "verl-lab-"
SHORT = "/tmp"


def is_fit(folder: str) -> bool:
    """Whether Ray's sockets can lie in this folder."""
    return len(os.fsencode(folder)) <= MOST and PLAIN.fullmatch(folder) is not None


def compiled(folder: str) -> str:
    """Where torch keeps what it has compiled: for all runs where it always does, else in this run's folder.

    Its compiler's command line takes plain paths alone. Some of it (headers, compiled in ten seconds) torch 2.13 keeps
    beside TMPDIR's other files whatever it is told, so a link in this run's folder leads there.
    """
    with contextlib.suppress(KeyError, OSError):  # a user without a name: torch's own choice then
        base, name = tempfile.gettempdir(), f"torchinductor_{getpass.getuser()}"
        kept = os.path.join(base, name)
        if PLAIN.fullmatch(kept):
            os.makedirs(kept, mode=0o700, exist_ok=True)
            os.symlink(kept, os.path.join(folder, name))
            return kept
    return os.path.join(folder, "torchinductor")


def fault() -> str | None:
    """Why a run can have no temporary folder here, with the cure; None if it can."""
    base = tempfile.gettempdir()
    name = f"{NAME}12345678"
    if not os.access(base, os.W_OK | os.X_OK):
        return f"the temporary folder {base} can't be written: set TMPDIR to one that can."
    if is_fit(os.path.join(base, name)) or os.access(SHORT, os.W_OK | os.X_OK):
        return None
    return (f"TMPDIR={base} has {len(os.fsencode(base))} bytes, and Ray's sockets leave room for {MOST - len(name) - 1}"
            f" plain ones (no spaces or signs); a link to it would lie in {SHORT}, which can't be written. Set TMPDIR"
            " to a shorter folder.")  # fmt: skip


def made() -> list[str]:
    """A new one, by the path that processes can use, and behind that what it is a link to, if it is one.

    Raises OSError where nothing can be made; `fault` says so before.
    """
    folder = tempfile.mkdtemp(prefix=NAME)
    if is_fit(folder):
        return [folder]
    link = Path(SHORT) / f"{NAME}{secrets.token_hex(4)}"
    link.symlink_to(folder)
    return [str(link), folder]
