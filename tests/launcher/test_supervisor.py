"""Whatever a run starts, and however it ends: nothing is left."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from helpers import ROOT, heed_ctrl_c
from mess import BLOCK, MESS, TMP, folder_of, gone, mess

from launcher import supervisor
from launcher.processes import Memory, lives, memory_of
from preflight import temporary

SUPERVISE = """
import os, sys, time
from pathlib import Path
from launcher import ends, supervisor
start = time.time()
folder = Path(sys.argv[1])
stalled = len(sys.argv) > 3
ends.heed()
try:
    code = supervisor.run(lambda tmp, python: [sys.executable, "-c", sys.argv[2]], folder, dict(os.environ),
                          lambda: start if stalled else time.time(), 3 if stalled else 60, fork=False)
except KeyboardInterrupt as stop:
    code = ends.status(stop)
print("code", code, "left", len(supervisor.descendants()))
"""


def supervise(folder: Path, code: str, *more: str, **popen) -> subprocess.Popen:
    command = [sys.executable, "-c", SUPERVISE, str(folder), code, *more]
    how = {"preexec_fn": heed_ctrl_c, "stdout": subprocess.PIPE} | popen
    return subprocess.Popen(command, cwd=ROOT, text=True, **how)


@pytest.mark.parametrize("status", [0, 3])
def test_exit_status_passes_and_nothing_is_left(tmp_path, status):
    process = supervise(tmp_path, MESS + f"time.sleep(7); sys.exit({status})")
    pid, block = mess(tmp_path)
    assert psutil.pid_exists(pid) and block.exists()
    assert process.communicate(timeout=30)[0].strip() == f"code {status} left 0"
    assert not psutil.pid_exists(pid)
    assert not block.exists()


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_signal_that_ends_a_run_stops_everything(tmp_path, number, times):
    process = supervise(tmp_path, MESS + "time.sleep(300)")
    pid, block = mess(tmp_path)
    for _ in range(times):
        process.send_signal(number)
        time.sleep(0.2)
    assert process.communicate(timeout=30)[0].strip() == f"code {128 + number} left 0"
    assert not psutil.pid_exists(pid)
    assert not block.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux alone")
@pytest.mark.parametrize("which", ["launcher", "guard"])
def test_everything_ends_with_its_launcher(tmp_path, which):
    """Also what has a session of its own and no parent any more: neither the launcher nor the guard must live on."""
    process = supervise(tmp_path, TMP + MESS + "time.sleep(300)")
    orphan, block = mess(tmp_path)
    launcher = psutil.Process(process.pid)
    below, folder = launcher.children(recursive=True), folder_of(tmp_path)
    assert folder.exists() and len(below) >= 3  # the guard, the main process, the orphan
    (launcher if which == "launcher" else launcher.children()[0]).kill()
    said = process.communicate(timeout=30)[0].strip()
    assert said == ("" if which == "launcher" else "code 137 left 0")
    assert gone(orphan, *(p.pid for p in below))
    for _ in range(100):
        # a block that is younger than the last look at what is in use is nobody's where the guard is killed
        if not folder.exists() and (which == "guard" or not block.exists()):
            block.unlink(missing_ok=True)
            return
        time.sleep(0.1)
    raise AssertionError((folder, block))


POLITE = """
import time
print("block none 1", flush=True)
try:
    time.sleep(300)
except KeyboardInterrupt:
    print("asked", flush=True)
"""


def in_background() -> None:
    """As a shell starts `command &`, and nohup a command."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def test_a_job_in_the_background_is_asked_to_stop_as_well(tmp_path):
    """A shell has Ctrl-C ignored for it: that is for the launcher, and verl must hear it, to close its loggers."""
    process = supervise(tmp_path, POLITE, preexec_fn=in_background)
    mess(tmp_path)
    for number in (signal.SIGINT, signal.SIGHUP):  # which this job is not to hear
        process.send_signal(number)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    process.terminate()
    assert process.communicate(timeout=30)[0].strip() == "code 143 left 0"
    assert "asked" in (tmp_path / "log.txt").read_text()


def test_a_run_has_a_temporary_folder_that_goes_with_it(tmp_path):
    process = supervise(tmp_path, TMP)
    assert process.communicate(timeout=30)[0].strip() == "code 0 left 0"
    assert folder_of(tmp_path).name.startswith("verl-lab-") and not folder_of(tmp_path).exists()


@pytest.mark.parametrize("name", ["x" * 60, "größe", "a b", "x=#&([", "it's"])
def test_any_temporary_folder_is_made_fit_for_sockets(tmp_path, name):
    """Of a long or odd TMPDIR the processes see a short and plain link."""
    base = tmp_path / name
    base.mkdir()
    look = (
        TMP
        + "import os, tempfile; print('real', os.path.realpath(tempfile.gettempdir()), flush=True)"
    )
    process = supervise(tmp_path, look, env=os.environ | {"TMPDIR": str(base)})
    assert process.communicate(timeout=30)[0].strip() == "code 0 left 0"
    seen = folder_of(tmp_path)
    assert temporary.is_fit(str(seen)) and not os.path.lexists(seen)
    assert f"real {base}/verl-lab-" in (tmp_path / "log.txt").read_text()
    kept = {file.name.partition("_")[0] for file in base.iterdir()}
    assert kept <= {"torchinductor"}  # torch's own, for the next run


FILES = "import resource; print('files', resource.getrlimit(resource.RLIMIT_NOFILE)[0])"


def few_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def test_a_soft_limit_of_open_files_is_raised(tmp_path):
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    process = supervise(tmp_path, FILES, preexec_fn=few_files)
    assert process.communicate(timeout=30)[0].strip() == "code 0 left 0"
    files = int((tmp_path / "log.txt").read_text().split()[1])
    assert files == (supervisor.OPEN_FILES if most == -1 else min(most, supervisor.OPEN_FILES))


def test_a_run_that_hangs_is_stopped_and_its_stacks_are_written(tmp_path):
    process = supervise(
        tmp_path, "def stuck_here():\n import time; time.sleep(300)\nstuck_here()", "stall"
    )
    assert process.communicate(timeout=60)[0].strip() == "code 124 left 0"
    assert "stuck_here" in (tmp_path / "stacks.txt").read_text()


def test_what_was_noted_of_a_run_that_hangs_is_kept():
    command = [sys.executable, "-c", BLOCK + "time.sleep(300)"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    file, noted = f"/dev/shm/{process.stdout.readline().split()[1]}", Memory()
    try:
        with pytest.raises(supervisor.Stalled):
            supervisor.watch(process, lambda: 0.0, 0, noted, supervisor.Daemons("/none"))
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
        assert 100 << 20 < sum(map(memory_of, of_run)) < 200 << 20
        assert memory_of(psutil.Process()) > 0
    finally:
        process.communicate()
    assert memory_of(of_run[0]) == 0


def test_a_ray_without_its_daemon_is_lost(tmp_path, monkeypatch):
    """Its own: that of a stage, whose folder lies in the run's, comes and goes."""
    sleep = tmp_path / "gcs_server"
    sleep.symlink_to(shutil.which("sleep"))
    monkeypatch.setattr(supervisor, "LOST_S", 0.0)
    daemons = supervisor.Daemons("/tmp/verl-lab-1")
    for folder, is_own in (("/tmp/verl-lab-1/verl-lab-2", False), ("/tmp/verl-lab-1", True)):
        command = f"exec -a '{folder}/session_1' {sleep} 100"
        process = subprocess.Popen(["bash", "-c", command])
        name = psutil.Process(process.pid).name
        while name() != "gcs_server":
            time.sleep(0.01)
        daemons.look()
        process.kill()
        process.wait()
        if not is_own:
            daemons.look()
            daemons.look()
    with pytest.raises(supervisor.Lost, match=rf"gcs_server of Ray \(process {process.pid}\)"):
        for _ in range(2):  # the first one notes the time
            daemons.look()
            time.sleep(0.01)


def test_a_process_that_its_parent_has_waited_for_lives_no_more():
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    seen = psutil.Process(process.pid)
    process.wait()
    assert not lives(seen)
    assert lives(psutil.Process())


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
