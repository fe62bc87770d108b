"""The processes below this one: which they are, what memory they take, and how all of them are ended.

A process that declares itself a reaper adopts the orphans among its descendants, so that killing every descendant needs
no name to guess and hits nobody else's process. Linux; elsewhere orphans of a crashed parent may be missed.
"""

import contextlib
import ctypes
import os
import shutil
import sys
import time
from dataclasses import dataclass, field

import psutil

PR_SET_CHILD_SUBREAPER = 36
spared: set[int] = set()  # pids of descendants that outlive a run (nursery.py)


@dataclass
class Memory:
    """Of a run's processes. shared: files in /dev/shm that they have mapped; peak: bytes of all together, at most."""

    shared: set[str] = field(default_factory=set)
    peak: int = 0

    def look(self) -> None:
        """Note what is in use now."""
        processes = descendants()
        self.shared.update(shared_memory_of(processes))
        self.peak = max(self.peak, sum(map(memory_of, processes)))


def become_reaper() -> None:
    """Adopt orphaned descendants from now on."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants() -> list[psutil.Process]:
    """All processes below this one."""
    return psutil.Process().children(recursive=True)


def lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):  # its parent may wait for it at any time
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def shared_memory_of(processes: list[psutil.Process]) -> set[str]:
    """Files in /dev/shm that the processes have mapped."""
    found = set()
    for process in processes:
        with contextlib.suppress(OSError), open(f"/proc/{process.pid}/maps") as maps:
            lines = (line.split(maxsplit=5) for line in maps if "/dev/shm/" in line)
            found.update(fields[5].strip() for fields in lines if len(fields) == 6)
    return found


def memory_of(process: psutil.Process) -> int:
    """Bytes of a process's memory, of what it shares with others its part; 0 where the system doesn't say."""
    with contextlib.suppress(psutil.Error, OSError):
        return getattr(process.memory_full_info(), "pss", 0)
    return 0


def is_tracker(process: psutil.Process) -> bool:
    """Whether it is multiprocessing's resource tracker, which unlinks semaphores as its last act."""
    with contextlib.suppress(psutil.Error):
        return "multiprocessing.resource_tracker" in " ".join(process.cmdline())
    return False


def stop_all() -> None:
    """Kill every descendant but those that are spared, until none is left (a dying parent may still fork)."""
    for attempt in range(50):
        left = [one for one in descendants() if one.pid not in spared and lives(one)]
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                if attempt > 20 or not is_tracker(process):  # trackers end when all others have
                    process.kill()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:  # reap the orphans that came to this process
                pass
        if not left:
            return
        time.sleep(0.1)


def clear_up(memory: Memory, *folders: str) -> None:
    """End every descendant, and remove the shared memory that they leave and these folders (or links to one)."""
    memory.look()
    stop_all()
    for file in memory.shared:
        with contextlib.suppress(OSError):
            os.remove(file)
    remove(*folders)


def remove(*folders: str) -> None:
    """Remove these, or links to them."""
    for folder in folders:
        with contextlib.suppress(OSError):
            os.remove(folder)  # a link
        shutil.rmtree(folder, ignore_errors=True)
