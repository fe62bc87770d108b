"""Start Python processes by forking one that has already imported verl and vLLM.

Why own code: a run of verl has nine Python processes, and each imports torch, transformers, verl and vLLM
anew, which on two cores is a minute before the first step. Python's own fork server is for the children of
one process; most of these are started by Ray, by a command. So here one server imports everything once, and
this file, used in the place of `python`, asks it for a fork:

    python prefork.py serve SOCKET MODULE ...   the server; dies with its parent process
    python prefork.py ARG ...                   like `python ARG ...`: a script, -c CODE or -m MODULE

Beside the socket the server writes SOCKET.python, a command that runs the client: Ray takes it as
`py_executable`, and multiprocessing's spawn method takes it in every fork.

The client stays as the process that its parent knows: it passes signals on and ends with the exit
status of the fork; when the client is killed, so is the fork. The fork gets the client's arguments,
environment, working folder and open files (under their numbers). Without a server (no
PREFORK_SOCKET, or nobody listens there) the client becomes an ordinary Python process.

What it relies on: the imported modules start no Python thread, and read the environment at import
only for variables that are the same in all processes of the run. Linux only (pidfd, SCM_RIGHTS).
"""

import contextlib
import json
import os
import selectors
import signal
import socket
import struct
import sys

SOCKET_ENV = "PREFORK_SOCKET"
RAY_JOB = "01000000"
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
KILLS = {
    signal.SIGKILL,
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGABRT,
    signal.SIGILL,
    signal.SIGFPE,
}
PR_SET_PDEATHSIG = 1


# --- the client: standard library only, started with -S -E, it must be cheap -----------------------


def open_fds() -> list[int]:
    """Numbers of the open file descriptors that an exec would keep."""
    fds = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the descriptor of listdir itself is closed by now
            if os.get_inheritable(int(name)):
                fds.append(int(name))
    return sorted(fds)


def is_tracker(argv: list[str]) -> bool:
    """Whether it is multiprocessing's resource tracker, which unlinks the semaphores of its process."""
    return any("multiprocessing.resource_tracker" in arg for arg in argv)


def request_fork(conn: socket.socket, argv: list[str], fds: list[int]) -> int:
    """Ask the server for a process; returns its pid, or 0 if there will be none."""
    request = {"argv": argv, "env": dict(os.environ), "cwd": os.getcwd(), "fds": fds}
    data = json.dumps(request).encode("utf-8", "surrogateescape")
    socket.send_fds(conn, [struct.pack("!I", len(data))], fds)
    conn.sendall(data)
    return int.from_bytes(conn.recv(4), "big")


def pass_signals_on(child: int) -> None:
    """What this process gets, the fork gets."""

    def pass_on(signum, _frame):
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signum)

    for signum in PASSED_ON:
        signal.signal(signum, pass_on)


def end_like(status: bytes) -> int:
    """The exit status of the fork; if a signal ended it, this process ends by the same one."""
    if len(status) < 4:
        return 1
    code = os.waitstatus_to_exitcode(int.from_bytes(status, "big"))
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler to reset
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def client(argv: list[str]) -> int:
    """Run `argv` in a fork of the server; returns its exit status."""
    python = [os.environ.get("PREFORK_PYTHON", sys.executable), *argv]
    if is_tracker(argv):
        # Needs none of the imports. To unlink the semaphores of its process it must outlive it, but
        # Ray kills the children and the process group of a worker that ends.
        if os.fork():
            os._exit(0)
        os.setsid()
        os.execv(python[0], python)
    conn = socket.socket(socket.AF_UNIX)
    try:
        conn.connect(os.environ.get(SOCKET_ENV, ""))
    except OSError:
        os.execv(python[0], python)
    fds = open_fds()
    child = request_fork(conn, argv, fds)
    if not child:  # the server went away, or would not fork for this one
        os.execv(python[0], python)
    pass_signals_on(child)
    # Only the fork may hold the ends of pipes: their readers wait for the last one to close.
    for fd in fds:
        os.close(fd)
    return end_like(conn.recv(4))


# --- the server -----------------------------------------------------------------------------------


def die_with_parent(by: int = signal.SIGKILL) -> None:
    """Ask the kernel to send this process a signal (0: none) when its parent ends. Linux alone can."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, by, 0, 0, 0)


def read_request(conn: socket.socket) -> tuple[dict, list[int]]:
    """One request of a client: its JSON and the descriptors that came with it."""
    head, fds, _flags, _addr = socket.recv_fds(conn, 4, 250)
    size = struct.unpack("!I", head)[0]
    data = b""
    while len(data) < size:
        data += conn.recv(size - len(data)) or b"\0" * size
    return json.loads(data.decode("utf-8", "surrogateescape")), list(fds)


def take_files(fds: list[int], numbers: list[int]) -> None:
    """Give the received descriptors the numbers that the client had, and close all others."""
    import fcntl

    free = 1 + max(*numbers, *map(int, os.listdir("/proc/self/fd")))
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, free) for fd in fds]  # out of the way first
    os.closerange(0, free)
    for source, target in zip(high, numbers, strict=True):
        os.dup2(source, target)
        os.close(source)
    sys.stdin = open(0, closefd=False, errors="backslashreplace")  # noqa: SIM115
    sys.stdout, sys.stderr = (
        open(fd, "w", buffering=1, closefd=False, errors="backslashreplace")  # noqa: SIM115
        for fd in (1, 2)
    )


def take_environment(env: dict[str, str], folder: str) -> None:
    """The client's environment and working folder, also where they were read before the fork."""
    import multiprocessing
    import tempfile

    tempfile.tempdir = None  # it may be of a run before
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    if "torch" in sys.modules and (threads := os.environ.get("OMP_NUM_THREADS", "")).isdigit():
        sys.modules["torch"].set_num_threads(int(threads))
    multiprocessing.set_executable(env[SOCKET_ENV] + ".python")


def reset_signals() -> None:
    """As a new Python has them."""
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def without_flags(argv: list[str]) -> list[str]:
    """The arguments from the script, -c or -m on: of the flags before it those of the server hold."""
    argv = list(argv)
    while argv[0][0] == "-" and argv[0] not in ("-c", "-m"):
        del argv[: 2 if argv[0] in ("-W", "-X") else 1]
    return argv


def run_code(argv: list[str]) -> None:
    """Run `-c CODE`, `-m MODULE` or a script as Python would."""
    import runpy

    if argv[0] == "-c":
        sys.argv = ["-c", *argv[2:]]
        main = sys.modules["__main__"].__dict__
        main.update(__name__="__main__", __file__=None, __spec__=None)
        exec(compile(argv[1], "<string>", "exec"), main)
    elif argv[0] == "-m":
        sys.argv = argv[1:]
        sys.path[0] = os.getcwd()
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = argv
        sys.path[0] = os.path.dirname(os.path.abspath(argv[0]))
        runpy.run_path(argv[0], run_name="__main__")


def exit_status(argv: list[str]) -> int:
    """Run the code to its end; returns its exit status."""
    try:
        run_code(argv)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def end(code: int) -> None:
    """What the interpreter does at its end: wait for threads, run atexit, flush."""
    import atexit
    import threading

    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def become(request: dict, fds: list[int]) -> None:
    """Turn this fork into the process that the client asked for, and run it to its end."""
    os.setsid()  # the raylet kills the process group of a worker that it ends
    take_files(fds, request["fds"])
    take_environment(request["env"], request["cwd"])
    reset_signals()
    end(exit_status(without_flags(request["argv"])))


def serving(path: str, modules: list[str]) -> list[str]:
    """The command of a server."""
    return [sys.executable, __file__, "serve", path, *modules]


def listen(path: str) -> socket.socket:
    """The server's socket, and beside it the command that runs the client."""
    import shlex

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)  # clients may come before the imports are done: they wait in the queue
    command = shlex.join([sys.executable, "-I", "-S", os.path.abspath(__file__)])
    with open(os.open(f"{path}.part", os.O_CREAT | os.O_WRONLY, 0o700), "w") as shim:
        shim.write(f'#!/bin/sh\nexec {command} "$@"\n')
    os.rename(f"{path}.part", f"{path}.python")  # a file that is still written can't be run
    return listener


def name_of(pid: int) -> str:
    """Of a process that has ended and was not waited for, as `ps` shows it."""
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return "a process"


class Forks:
    """The forks that live, and the connections of their clients."""

    def __init__(self, listener: socket.socket):
        self.listener, self.select = listener, selectors.DefaultSelector()
        self.select.register(listener, selectors.EVENT_READ)
        self.children: dict[int, tuple[int, socket.socket]] = {}  # pidfd → (pid, connection)
        self.killed: set[int] = set()  # by this server

    def serve(self) -> None:
        """Answer clients for ever."""
        while True:
            for key, _ in self.select.select():
                if key.fileobj is self.listener:
                    self.new_client()
                elif isinstance(key.fileobj, socket.socket):
                    self.client_gone(key.fileobj, key.data)
                else:
                    self.fork_ended(key.fd)

    def new_client(self) -> None:
        """Fork for it, if it is a worker of the first job; else it becomes an ordinary process."""
        conn, _ = self.listener.accept()
        try:
            request, fds = read_request(conn)
        except (ValueError, OSError, struct.error):  # a client that was killed half-way
            conn.close()
            return
        ours = request["env"].get("RAY_JOB_ID", RAY_JOB) == RAY_JOB
        pid = os.fork() if ours else None
        if pid == 0:
            die_with_parent()
            become(request, fds)
        for fd in fds:
            os.close(fd)
        if pid is None:
            conn.close()
            return
        pidfd = os.pidfd_open(pid)
        conn.sendall(pid.to_bytes(4, "big"))
        self.children[pidfd] = (pid, conn)
        self.select.register(pidfd, selectors.EVENT_READ)
        self.select.register(conn, selectors.EVENT_READ, pidfd)

    def client_gone(self, conn: socket.socket, pidfd: int) -> None:
        """Its connection ended: its fork goes with it, unless it ended at the same moment."""
        with contextlib.suppress(KeyError, ValueError):
            self.select.unregister(conn)
        if (
            pidfd in self.children and self.children[pidfd][1] is conn
        ):  # a new fork may have its number
            self.killed.add(self.children[pidfd][0])
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    def fork_ended(self, pidfd: int) -> None:
        """Send its status to the client, and tell the log of a signal that nobody here has sent."""
        pid, conn = self.children.pop(pidfd)
        name, status = name_of(pid), os.waitpid(pid, 0)[1]
        ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        if ended_by in KILLS and pid not in self.killed:
            signal_name = signal.Signals(ended_by).name
            print(f"ProcessKilled: {name} (process {pid}) was ended by {signal_name}", flush=True)
        self.killed.discard(pid)
        self.select.unregister(pidfd)
        os.close(pidfd)
        with contextlib.suppress(KeyError, ValueError):
            self.select.unregister(conn)
        with contextlib.suppress(OSError):
            conn.sendall(status.to_bytes(4, "big"))
        conn.close()


def serve(path: str, modules: list[str]) -> None:
    """Listen on `path`, import `modules`, then fork for every client until the parent ends."""
    import importlib

    die_with_parent()
    # The project's folder, and not this file's: names there must not hide packages.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    listener = listen(path)
    # Ray's C++ side reads these two when it is imported and never again. The job is the first one of
    # a new cluster; the process that a worker must not outlive is this one.
    os.environ.update(
        RAY_JOB_ID=RAY_JOB, RAY_RAYLET_PID=str(os.getpid()), VLLM_LOGGING_LEVEL="WARN"
    )
    for module in modules:
        importlib.import_module(module)
    Forks(listener).serve()


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(client(sys.argv[1:]))
