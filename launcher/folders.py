"""The folders of a run: one start alone has them, and one that is refused leaves none behind.

Hydra makes a run's folder before the run is judged, so here stands which folders this process has made itself: those
of them that stay empty go again, and nothing else does.
"""

import contextlib
import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig

from preflight.mistakes import Mistake, near

LOCK = ".run.lock"
OF_HYDRA = ["multirun.yaml"]  # it writes this into the folder of a sweep before the first job
made: list[str] = []  # by this process, since `note_new_ones`
until_the_end = contextlib.ExitStack()  # folders of a whole command line: of a sweep
held: set[int] = set()  # descriptors of locks: verl's process gets them, too


def note_new_ones() -> None:
    """From now on, remember each folder that this process makes."""

    def look(event: str, args: tuple) -> None:
        if event == "os.mkdir" and not os.path.lexists(args[0]):
            made.append(os.path.abspath(os.fsdecode(args[0])))

    sys.addaudithook(look)


def remove_unused() -> None:
    """Remove those folders that this process has made and nobody has put anything into; what it has ends here."""
    until_the_end.close()
    for folder in reversed(made):  # a folder comes after the one that it lies in
        with contextlib.suppress(OSError):
            if os.listdir(folder) == OF_HYDRA:
                os.remove(os.path.join(folder, *OF_HYDRA))
            os.rmdir(folder)  # refuses one that isn't empty
    made.clear()


def of_checkpoints(config: DictConfig, run_dir: Path) -> Path | None:
    """The folder of a run's checkpoints; None if it lies in the run's own."""
    folder = Path(config.trainer.default_local_dir).absolute()
    return None if folder.is_relative_to(run_dir) else folder


@contextlib.contextmanager
def taken(folder: Path | None) -> Iterator[None]:
    """Have a folder for this start alone, until the block ends. Raises Mistake if another start has it.

    The kernel holds the lock for this process and for verl's, and lets it go when both have ended, however that
    comes about: no stale lock can be left. A file system without locks (ENOLCK) is trusted to have one user.
    """
    if folder is None:
        yield
        return
    file = folder / LOCK
    lock = _locked(file)
    os.truncate(lock, 0)
    os.write(lock, f"process {os.getpid()} on {socket.gethostname()}".encode())
    held.add(lock)
    try:
        yield
    finally:
        held.discard(lock)
        file.unlink(missing_ok=True)
        os.close(lock)


def _locked(file: Path) -> int:
    """A descriptor of the file, with its lock."""
    while True:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = ", ".join(_holders(file)) or os.read(lock, 200).decode(errors="replace")
            os.close(lock)
            raise Mistake(
                f"{near(file.parent)} belongs to a run that has not ended ({who or 'it has just begun'}):"
                " wait for it or stop it, or take another folder."
            ) from None
        except OSError:
            return lock
        # the one who had it may have removed the file meanwhile
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), os.stat(file)):
                return lock
        os.close(lock)


def _holders(file: Path) -> list[str]:
    """The processes of this machine that have the file open, as far as one may see."""
    import psutil  # a start that is alone doesn't wait for it

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and str(file) in (f.path for f in process.open_files()):
                found.append(f"process {process.pid}, {process.name()}")
    return found
