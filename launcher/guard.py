"""The process between the launcher and what it starts: it ends all of that, also when the launcher is killed.

A launcher that gets SIGKILL can't clean up, and neither torchrun nor Ray would notice that it is gone. So the run's
processes are started by this one, which adopts their orphans (processes.py), looks whether the launcher still lives,
and if it doesn't ends every one of them and removes the run's temporary folder. If this process is killed itself, the
kernel kills what it has started, and the launcher, which adopts orphans as well, does the rest.

Signals that end a run are passed on to its main process, also where a shell had them ignored for its background jobs;
this process ends as the main process does.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time

from launcher import prefork
from launcher.processes import Memory, become_reaper, clear_up

LOOK_S = 0.05  # from look to look at the main process


def prepare() -> None:
    """Of a process that is started, before its program: it goes with this one, and heeds signals."""
    for number in prefork.PASSED_ON:
        signal.signal(number, signal.SIG_DFL)
    prefork.die_with_parent()


def wait(main: int, launcher: int) -> int | None:
    """Until the main process ends: its status as os.waitpid has it; None if the launcher has ended before."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)  # orphans, too, so that no zombies pile up
        if pid == main:
            return status
        if not pid:
            if os.getppid() != launcher:
                return None
            time.sleep(LOOK_S)


def main(launcher: int, kept: list[int], folders: list[str], commands: list[list[str]]) -> int:
    """Start the commands, and wait for the last one.

    Args:
        launcher: pid of the process that has started this one.
        kept: file descriptors that the commands get.
        folders: (and links to folders) that are removed if the launcher ends first.
        commands: each gets a session of its own; they end with the last one of them.

    Returns the exit status of the last one; if a signal ended that, this process ends by it, too.
    """
    become_reaper()
    started = [
        subprocess.Popen(c, pass_fds=kept, start_new_session=True, preexec_fn=prepare)
        for c in commands
    ]
    prefork.pass_signals_on(started[-1].pid)
    status = wait(started[-1].pid, launcher)
    if status is None:
        print("the launcher of this run was killed: all that it had started ends", flush=True)
        clear_up(Memory(), *folders)
        return 1
    for process in started[:-1]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    sys.stdout.flush()
    return prefork.end_like(status.to_bytes(4, "big"))
