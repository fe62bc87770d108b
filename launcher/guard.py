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
MADE_S = 30.0  # a command that another one makes is there by then


def prepare() -> None:
    """Of a process that is started, before its program: it goes with this one, and heeds signals."""
    for number in prefork.PASSED_ON:
        signal.signal(number, signal.SIG_DFL)
    prefork.die_with_parent()


def wait(main: int, launcher: list[int]) -> int | None:
    """Until the main process ends: its status as os.waitpid has it; None if the launcher has ended before."""
    parent = os.getppid()
    if parent not in launcher:
        return None
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)  # orphans, too, so that no zombies pile up
        if pid == main:
            return status
        if not pid:
            if os.getppid() != parent:
                return None
            time.sleep(LOOK_S)


def start(command: list[str], kept: list[int]) -> int:
    """Start a command in a session of its own; returns its pid.

    Where this process is a fork itself, of one with all imports, the fork server needs none: it is a fork of this one.
    A command may be one that the command before it makes, a moment later.
    """
    program, *argv = command
    if argv[:2] == [prefork.__file__, "serve"]:
        os.environ[prefork.SOCKET_ENV] = argv[2]  # of what is started after it
        if set(argv[3:]) <= sys.modules.keys():
            if pid := os.fork():
                return pid
            try:
                os.setsid()
                prepare()
                prefork.serve(argv[2], argv[3:])
            finally:
                os._exit(1)
    deadline = time.monotonic() + MADE_S
    while not os.path.exists(program) and time.monotonic() < deadline:
        time.sleep(LOOK_S)
    if not os.path.exists(program):  # the server has failed: an ordinary process does it as well
        command = [sys.executable, *argv]
    return subprocess.Popen(command, pass_fds=kept, start_new_session=True, preexec_fn=prepare).pid


def main(
    launcher: list[int], kept: list[int], folders: list[str], commands: list[list[str]]
) -> int:
    """Start the commands, and wait for the last one.

    Args:
        launcher: pids of the process that has started this one, and of the one that this one is a fork of, if it is.
        kept: file descriptors that the commands get.
        folders: (and links to folders) that are removed if the launcher ends first.
        commands: each gets a session of its own; they end with the last one of them.

    Returns the exit status of the last one; if a signal ended that, this process ends by it, too.
    """
    become_reaper()
    prefork.die_with_parent(by=0)  # what it has started must end before it
    started = [start(command, kept) for command in commands]
    prefork.pass_signals_on(started[-1])
    status = wait(started[-1], launcher)
    if status is None:
        print("the launcher of this run was killed: all that it had started ends", flush=True)
        clear_up(Memory(), *folders)
        return 1
    for pid in started[:-1]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    sys.stdout.flush()
    return prefork.end_like(status.to_bytes(4, "big"))
