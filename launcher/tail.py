"""The lines that come to a file while it is being written."""

import os
from pathlib import Path


class Tail:
    """What is new in a growing text file, in whole lines.

    Args:
        file: may come into being later.
        at: the byte to begin at; None: the end of what is there now.
    """

    def __init__(self, file: Path, at: int | None = 0):
        self.file, self.begun_anew = file, False
        self.inode: int | None = None
        size = file.stat().st_size if file.exists() else 0
        self.at = size if at is None else at

    def lines(self) -> list[str]:
        """The lines since the last call; a half-written last one is left for the next.

        `begun_anew` is then true if another file lies there, or a shorter one: what was read before
        is no longer so, and the lines are those from its begin.
        """
        self.begun_anew = False
        try:
            stream = open(self.file, "rb")  # noqa: SIM115 (closed below; only its opening may fail)
        except OSError:
            return []
        with stream:
            found = os.fstat(stream.fileno())
            if self.inode not in (None, found.st_ino) or found.st_size < self.at:
                self.at, self.begun_anew = 0, True
            self.inode = found.st_ino
            if found.st_size == self.at:
                return []
            stream.seek(self.at)
            whole, newline, _half = stream.read().rpartition(b"\n")
        self.at += len(whole) + len(newline)
        return whole.decode(errors="replace").splitlines() if newline else []
