"""Start Python processes by forking one that has already imported verl and vLLM.

A run of verl has nine Python processes, and each imports torch, transformers, verl and vLLM anew:
on two cores that is a minute before the first step. Here one server imports them once, and this
file, used in the place of `python`, asks it for a fork:

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


def client(argv: list[str]) -> int:
    """Run `argv` in a fork of the server; returns its exit status."""
    python = [os.environ.get("PREFORK_PYTHON", sys.executable), *argv]
    if any("multiprocessing.resource_tracker" in arg for arg in argv):
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
    request = {"argv": argv, "env": dict(os.environ), "cwd": os.getcwd(), "fds": fds}
    data = json.dumps(request).encode("utf-8", "surrogateescape")
    socket.send_fds(conn, [struct.pack("!I", len(data))], fds)
    conn.sendall(data)

    child = int.from_bytes(conn.recv(4), "big")
    if not child:  # the server went away, or would not fork for this one
        os.execv(python[0], python)

    def pass_on(signum, _frame):
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signum)

    for signum in PASSED_ON:
        signal.signal(signum, pass_on)
    # Only the fork may hold the ends of pipes: their readers wait for the last one to close.
    for fd in fds:
        os.close(fd)
    status = conn.recv(4)
    if len(status) < 4:
        return 1
    code = os.waitstatus_to_exitcode(int.from_bytes(status, "big"))
    if code < 0:  # end in the same way as the fork did
        with contextlib.suppress(OSError):  # SIGKILL has no handler to reset
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


# --- the server -----------------------------------------------------------------------------------


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends."""
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def read_request(conn: socket.socket) -> tuple[dict, list[int]]:
    """One request of a client: its JSON and the descriptors that came with it."""
    head, fds, _flags, _addr = socket.recv_fds(conn, 4, 250)
    size = struct.unpack("!I", head)[0]
    data = b""
    while len(data) < size:
        data += conn.recv(size - len(data)) or b"\0" * size
    return json.loads(data.decode("utf-8", "surrogateescape")), list(fds)


def become(request: dict, fds: list[int]) -> None:
    """Turn this fork into the process that the client asked for, and run it to its end."""
    import atexit
    import multiprocessing
    import runpy
    import threading

    os.setsid()  # the raylet kills the process group of a worker that it ends
    # Move the received descriptors out of the way, then to the numbers that the client had.
    high = [os.dup2(fd, 1000 + i) for i, fd in enumerate(fds)]
    os.closerange(0, 1000)
    for source, target in zip(high, request["fds"], strict=True):
        os.dup2(source, target)
        os.close(source)
    options = {"closefd": False, "errors": "backslashreplace"}
    sys.stdin = open(0, **options)  # noqa: SIM115
    sys.stdout, sys.stderr = (open(fd, "w", buffering=1, **options) for fd in (1, 2))  # noqa: SIM115
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    if "torch" in sys.modules and (threads := os.environ.get("OMP_NUM_THREADS", "")).isdigit():
        sys.modules["torch"].set_num_threads(int(threads))
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)

    multiprocessing.set_executable(request["env"][SOCKET_ENV] + ".python")

    argv = list(request["argv"])
    while argv[0][0] == "-" and argv[0] not in ("-c", "-m"):  # flags: those of the server hold
        del argv[: 2 if argv[0] in ("-W", "-X") else 1]
    code = 0
    try:
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
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()  # what the interpreter does at its end: wait for threads, run atexit
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def serve(path: str, modules: list[str]) -> None:
    """Listen on `path`, import `modules`, then fork for every client until the parent ends."""
    import importlib
    import shlex

    die_with_parent()
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # not plugins/ itself
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)  # clients may come before the imports are done: they wait in the queue
    command = shlex.join([sys.executable, "-I", "-S", os.path.abspath(__file__)])
    with open(os.open(f"{path}.part", os.O_CREAT | os.O_WRONLY, 0o700), "w") as shim:
        shim.write(f'#!/bin/sh\nexec {command} "$@"\n')
    os.rename(f"{path}.part", f"{path}.python")  # a file that is still written can't be run
    # Ray's C++ side reads these two when it is imported and never again. The job is the first one of
    # a new cluster; the process that a worker must not outlive is this one.
    os.environ.update(RAY_JOB_ID=RAY_JOB, RAY_RAYLET_PID=str(os.getpid()))
    for module in modules:
        importlib.import_module(module)
    select = selectors.DefaultSelector()
    select.register(listener, selectors.EVENT_READ)
    children: dict[int, tuple[int, socket.socket]] = {}  # pidfd → (pid, connection of its client)

    while True:
        for key, _ in select.select():
            if key.fileobj is listener:
                conn, _ = listener.accept()
                try:
                    request, fds = read_request(conn)
                except (ValueError, OSError, struct.error):  # a client that was killed half-way
                    conn.close()
                    continue
                ours = request["env"].get("RAY_JOB_ID", RAY_JOB) == RAY_JOB
                pid = os.fork() if ours else None
                if pid == 0:
                    die_with_parent()
                    become(request, fds)
                for fd in fds:
                    os.close(fd)
                if pid is None:  # not a worker of the first job: an ordinary process, please
                    conn.close()
                    continue
                pidfd = os.pidfd_open(pid)
                conn.sendall(pid.to_bytes(4, "big"))
                children[pidfd] = (pid, conn)
                select.register(pidfd, selectors.EVENT_READ)
                select.register(conn, selectors.EVENT_READ, pidfd)
            elif key.data is not None:  # a client's connection ended: its fork goes with it
                select.unregister(key.fileobj)
                if key.data in children:
                    signal.pidfd_send_signal(key.data, signal.SIGKILL)
            else:  # a fork ended
                pid, conn = children.pop(key.fd)
                status = os.waitpid(pid, 0)[1]
                select.unregister(key.fd)
                os.close(key.fd)
                with contextlib.suppress(KeyError, ValueError):
                    select.unregister(conn)
                with contextlib.suppress(OSError):
                    conn.sendall(status.to_bytes(4, "big"))
                conn.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(client(sys.argv[1:]))
