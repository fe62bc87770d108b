"""A "run" that leaves behind all that a run can, for tests of the launcher."""

import time
from pathlib import Path

import psutil

from launcher.processes import lives

# A "run" that does what Ray does at its worst: a block of shared memory that nobody unlinks, and a
# child in its own session whose parent ends at once.
BLOCK = """
import os, subprocess, sys, time
from multiprocessing import resource_tracker, shared_memory
block = shared_memory.SharedMemory(create=True, size=4096)
block.buf[0] = 1
resource_tracker.unregister(block._name, "shared_memory")
print("block", block.name, flush=True)
"""
MESS = (
    BLOCK
    + """
orphan = "import os, time; os.setsid(); print(os.getpid(), flush=True); time.sleep(300)"
middle = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {orphan!r}])"
subprocess.run([sys.executable, "-c", middle])
"""
)

# And one that says where its temporary folder is.
TMP = "print('folder', __import__('tempfile').mkdtemp(), flush=True)\n"


def mess(folder: Path) -> tuple[int, Path]:
    """The orphan's pid and the shared memory's file, once both are there."""
    for _ in range(200):
        words = (folder / "log.txt").read_text().split() if (folder / "log.txt").exists() else []
        numbers = [int(word) for word in words if word.isdigit()]
        if "block" in words[:-1] and numbers:
            return numbers[0], Path("/dev/shm") / words[words.index("block") + 1]
        time.sleep(0.05)
    raise AssertionError((folder / "log.txt").read_text())


def folder_of(run_dir: Path) -> Path:
    """The run's temporary folder, in which a process of it has made one."""
    words = (run_dir / "log.txt").read_text().split()
    return Path(words[words.index("folder") + 1]).parent


def gone(*pids: int) -> bool:
    """Whether the processes end within half a minute."""
    for _ in range(300):
        alive = [pid for pid in pids if psutil.pid_exists(pid) and lives(psutil.Process(pid))]
        if not alive:
            return True
        time.sleep(0.1)
    return False
