"""Whatever a run starts, and however it ends: nothing is left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from helpers import ROOT, heed_ctrl_c

from launcher import supervisor

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
SUPERVISE = """
import os, sys, time
from pathlib import Path
from launcher import supervisor
start = time.time()
folder = Path(sys.argv[1])
stalled = len(sys.argv) > 3
code = supervisor.run(lambda tmp, python: [sys.executable, "-c", sys.argv[2]], folder, dict(os.environ),
                      lambda: start if stalled else time.time(), 3 if stalled else 60, fork=False)
print("code", code, "left", len(supervisor.descendants()))
"""


def supervise(folder: Path, code: str, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-c", SUPERVISE, str(folder), code, *more]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c
    )


def mess(folder: Path) -> tuple[int, Path]:
    """The orphan's pid and the shared memory's file, once both are there."""
    for _ in range(200):
        words = (folder / "log.txt").read_text().split() if (folder / "log.txt").exists() else []
        if "block" in words and len(words) >= 3:
            pid = next(int(word) for word in words if word.isdigit())
            return pid, Path("/dev/shm") / words[words.index("block") + 1]
        time.sleep(0.05)
    raise AssertionError((folder / "log.txt").read_text())


@pytest.mark.parametrize("status", [0, 3])
def test_exit_status_passes_and_nothing_is_left(tmp_path, status):
    process = supervise(tmp_path, MESS + f"time.sleep(7); sys.exit({status})")
    pid, block = mess(tmp_path)
    assert psutil.pid_exists(pid) and block.exists()
    assert process.communicate(timeout=30)[0].strip() == f"code {status} left 0"
    assert not psutil.pid_exists(pid)
    assert not block.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_everything(tmp_path, number):
    process = supervise(tmp_path, MESS + "time.sleep(300)")
    pid, block = mess(tmp_path)
    time.sleep(0.5)
    process.send_signal(number)
    process.wait(30)
    assert process.returncode != 0
    assert not psutil.pid_exists(pid)
    assert not block.exists()


def test_a_run_that_hangs_is_stopped_and_its_stacks_are_written(tmp_path):
    process = supervise(
        tmp_path, "def stuck_here():\n import time; time.sleep(300)\nstuck_here()", "stall"
    )
    assert process.communicate(timeout=60)[0].strip() == "code 124 left 0"
    assert "stuck_here" in (tmp_path / "stacks.txt").read_text()


def test_what_was_noted_of_a_run_that_hangs_is_kept():
    command = [sys.executable, "-c", BLOCK + "time.sleep(300)"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    file, noted = f"/dev/shm/{process.stdout.readline().split()[1]}", supervisor.Memory()
    try:
        with pytest.raises(supervisor.Stalled):
            supervisor.watch(process, lambda: 0.0, 0, noted)
    finally:
        process.kill()
        process.communicate()
        os.remove(file)
    assert file in noted.shared and 0 < noted.peak < psutil.virtual_memory().total


ALLOCATE = """
import os, sys
block = bytearray(b"x") * (100 << 20)
for _ in range(2):  # children share what they don't change
    if not os.fork():
        break
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what processes share")
def test_the_memory_of_a_run_is_that_of_its_own_processes():
    """Not that of other programs, and what several of them share counts once."""
    command = [sys.executable, "-c", ALLOCATE]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen(command, **pipes)
    try:
        said = b""  # in any pieces: three processes write to one pipe
        while said.count(b"ready") < 3:
            piece = os.read(process.stdout.fileno(), 100)
            assert piece, said
            said += piece
        of_run = [psutil.Process(process.pid), *psutil.Process(process.pid).children()]
        assert 100 << 20 < sum(map(supervisor.memory_of, of_run)) < 200 << 20
        assert supervisor.memory_of(psutil.Process()) > 0
    finally:
        process.communicate()
    assert supervisor.memory_of(of_run[0]) == 0


def test_a_process_that_its_parent_has_waited_for_lives_no_more():
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    seen = psutil.Process(process.pid)
    process.wait()
    assert not supervisor.lives(seen)
    assert supervisor.lives(psutil.Process())


def test_a_signal_of_verl_becomes_an_exit_status(tmp_path):
    process = supervise(tmp_path, "import os; os.kill(os.getpid(), 9)")
    assert process.communicate(timeout=30)[0].strip() == f"code {128 + 9} left 0"


def test_other_processes_are_left_alone(tmp_path):
    mine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        supervise(tmp_path, "pass").communicate(timeout=30)
        assert mine.poll() is None
    finally:
        mine.kill()
        mine.wait()
    assert os.path.exists(tmp_path / "log.txt")
