"""The process behind `_limits/calls`: forks runners, gives each one call at a time, kills what takes too long.

One process a pool, started by `_limits/pool`, with one socket to it. It imports the functions' modules
before it forks, so a new runner is there in milliseconds and shares their memory. It runs nothing of
theirs itself, so nothing that a call does can keep it from looking at the clock.

Frames to this process are a header (size, number of the call, seconds that it may take), then the
call, pickled; number 0 asks to import what the call needs. Frames from it are a header, then the
answer as JSON: {"result"}, {"error", "cause"} or {"stopped"}.
A runner leads its own process group: processes that a call started are killed with it. What a call changes for those
after it is put back (Surroundings), and a runner with threads that a call has left is replaced. All die with this
process, and it ends when its parent does.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import functools
import gc
import importlib
import importlib.util
import inspect
import json
import os
import pickle
import resource
import select
import signal
import socket
import struct
import sys
import sysconfig
import threading
import time
import traceback
import zlib
from collections import deque

ROW = ("data_source", "solution_str", "ground_truth", "extra_info")  # as verl names them
HEADER = struct.Struct("<IId")  # size of what follows, number of the call, seconds or a flag
OUT_OF_MEMORY = 77  # exit status of a runner
PARENT_POLL_S = 1.0
PR_SET_PDEATHSIG = 1
RECEIVE = 1 << 18
LIBRARIES = tuple(
    {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")} | {"<"}
)
SEND_S = 5  # what an earlier call has left behind may keep a runner from reading


@functools.lru_cache(maxsize=64)
def module_at(path: str):
    """A module (`pkg://a.b`) or a file, imported."""
    if path.startswith("pkg://"):
        return importlib.import_module(path.removeprefix("pkg://").replace("/", "."))
    file = os.path.abspath(path.removeprefix("file://"))
    name = f"reward_file_{zlib.crc32(file.encode()):08x}"
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


unpickled = functools.lru_cache(maxsize=64)(pickle.loads)  # what all calls of a reward share


def call_reward(shared: bytes, row: tuple):
    """`shared`: path, name and options, pickled."""
    path, name, options = unpickled(shared)
    return called(getattr(module_at(path), name), row, options)


def called(function, row: tuple, options: dict):
    """By name, as verl calls a reward: its parameters may stand in any order, or be `**kwargs`."""
    return function(**dict(zip(ROW, row, strict=True)), **options)


def frames(buffer: bytearray):
    """(number, seconds, frame with its header) of each whole frame, which is taken out."""
    while len(buffer) >= HEADER.size:
        size, number, seconds = HEADER.unpack_from(buffer)
        end = HEADER.size + size
        if len(buffer) < end:
            return
        with memoryview(buffer) as view:
            frame = bytes(view[:end])
        del buffer[:end]
        yield number, seconds, frame


def frame_of(number: int, body: bytes, seconds: float = 0.0) -> bytes:
    return HEADER.pack(len(body), number, seconds) + body


def plain(value):
    """What JSON doesn't know: numpy's and torch's numbers and arrays."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"the result holds a {type(value).__name__}, which is no number, text or list")


def answer(body: bytes) -> str:
    """Make the call; MemoryError gets through."""
    try:
        function, args = pickle.loads(body)
        result = function(*args)
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
        return json.dumps({"result": result}, default=plain)
    except MemoryError:
        raise
    except (
        SystemExit,
        KeyboardInterrupt,
    ):  # of the code that it calls: as if that had ended the process
        return json.dumps({"stopped": "crash"})
    except BaseException as error:
        return json.dumps({"error": trace_of(error, __file__)})


class Surroundings:
    """What a call may change for those after it, as it is now: working folder, signals, timers, output."""

    def __init__(self):
        self.folder = os.open(".", os.O_RDONLY)
        self.signals = {n: signal.getsignal(n) for n in signal.valid_signals()}
        self.streams = {name: getattr(sys, name) for name in ("stdin", "stdout", "stderr")}
        self.files = {fd: (self.kept(fd), self.state(fd)) for fd in (0, 1, 2)}

    @staticmethod
    def kept(fd: int) -> int | None:
        """A second descriptor of an open file, out of the way."""
        with contextlib.suppress(OSError):
            return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100)

    @staticmethod
    def state(fd: int) -> tuple[int, int] | None:
        """Which file a descriptor is of; None if it is closed."""
        with contextlib.suppress(OSError):
            file = os.fstat(fd)
            return file.st_dev, file.st_ino

    def restore(self) -> None:
        """Put back what is different; some microseconds where nothing is."""
        os.fchdir(self.folder)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number, handler in self.signals.items():
            if signal.getsignal(number) is not handler and handler is not None:
                signal.signal(number, handler)
        for fd, (copy, state) in self.files.items():
            if self.state(fd) != state and copy is not None:
                os.dup2(copy, fd)
        for fd, (name, stream) in enumerate(self.streams.items()):
            if stream is not None and stream.closed:
                mode = "w" if fd else "r"
                stream = open(fd, mode, errors="backslashreplace", closefd=False)  # noqa: SIM115
                self.streams[name] = stream
            setattr(sys, name, stream)


def trace_of(error: BaseException, *callers: str) -> tuple[str, str, str]:
    """The error with its traceback from where the last of the files `callers` was left; in one line; and where it was.

    That is the last line of code that belongs to no library, as `FILE, line N, in NAME: CODE`; empty without any.
    """
    trace = own = error.__traceback__
    while trace:
        own = trace.tb_next if trace.tb_frame.f_code.co_filename in callers else own
        trace = trace.tb_next
    lines = traceback.format_exception(type(error), error, own)
    if isinstance(error, SyntaxError) and error.filename:
        line, code = f"line {error.lineno}", (error.text or "").strip()
        place = f"{short(error.filename)}, {line}{f': {code}' if code else ''}"
    else:
        frames = traceback.extract_tb(own)
        mine = [frame for frame in frames if not frame.filename.startswith(LIBRARIES)]
        place = ""
        for frame in (mine or frames)[-1:]:
            place = (
                f"{short(frame.filename)}, line {frame.lineno}, in {frame.name}: {frame.line or ''}"
            )
    return "".join(lines).rstrip(), f"{type(error).__name__}: {error}", place


def short(file: str) -> str:
    """The file as seen from here, where that is shorter."""
    return min(os.path.relpath(file), file, key=len)


def serve_calls(channel: socket.socket, memory_mib: int | None) -> None:
    """Until the channel closes: a call in, an answer out."""
    if memory_mib:  # beside what this process has from its parent
        pages = int(open("/proc/self/statm").read().split()[0])  # noqa: SIM115
        most = pages * resource.getpagesize() + (memory_mib << 20)
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    buffer, surroundings = bytearray(), Surroundings()
    while data := channel.recv(RECEIVE):
        buffer += data
        for number, _, frame in frames(buffer):
            told = answer(frame[HEADER.size :]).encode()
            surroundings.restore()
            left = threading.active_count() > 1
            channel.sendall(frame_of(number, told, left))


class Runner:
    """A forked process, and the call that it is making."""

    def __init__(self, memory_mib: int | None, others: list[socket.socket]):
        self.channel, theirs = socket.socketpair()
        self.channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_S, 0))
        self.number, self.due, self.unread = 0, 0.0, bytearray()
        parent, self.pid = os.getpid(), os.fork()
        if self.pid:
            theirs.close()
            return
        try:
            os.setpgid(0, 0)
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            for other in [self.channel, *others]:
                other.close()
            if os.getppid() == parent:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                serve_calls(theirs, memory_mib)
        except MemoryError:
            os._exit(OUT_OF_MEMORY)
        except ConnectionError:  # the channel is gone
            pass
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(1)

    def send(self, number: int, seconds: float, frame: bytes) -> None:
        self.number, self.due = number, time.monotonic() + seconds
        self.channel.sendall(frame)

    def end(self) -> int:
        """Kill it and what it has started; the exit status that it had, if it had ended before."""
        for kill in (os.killpg, os.kill):  # the group may not be there yet
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(self.pid, signal.SIGKILL)
        self.channel.close()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class Server:
    def __init__(self, parent: socket.socket, processes: int, memory_mib: int | None):
        self.parent, self.processes, self.memory_mib = parent, processes, memory_mib
        self.runners: dict[int, Runner] = {}  # by file descriptor
        self.queue: deque[tuple[int, float, bytes]] = deque()
        self.unread, self.unsent = bytearray(), bytearray()
        self.poller = select.poll()
        self.poller.register(parent, select.POLLIN)

    def run(self, ppid: int) -> None:
        """Until the parent ends."""
        while os.getppid() == ppid:
            self.dispatch()
            if self.unsent:
                self.parent.sendall(self.unsent)  # a parent that is busy makes us wait: no harm
                self.unsent.clear()
            dues = [runner.due for runner in self.runners.values() if runner.number]
            wait_s = min([PARENT_POLL_S, *(due - time.monotonic() for due in dues)])
            for fd, _ in self.poller.poll(max(0, wait_s * 1000)):
                if fd == self.parent.fileno():
                    if not self.listen():
                        return
                elif runner := self.runners.get(fd):
                    self.hear(runner)
            now = time.monotonic()
            for runner in list(self.runners.values()):
                # what was answered while this process was kept waiting is not late
                if runner.number and now > runner.due and self.hear(runner) and runner.number:
                    self.stop(runner, "timeout")

    def listen(self) -> bool:
        """Take calls from the parent; False at the end."""
        try:
            data = self.parent.recv(RECEIVE)
        except ConnectionError:
            return False
        self.unread += data
        for number, seconds, frame in frames(self.unread):
            if number:
                self.queue.append((number, seconds, frame))
            else:
                self.preload(frame[HEADER.size :])
        return bool(data)

    def preload(self, body: bytes) -> None:
        """Import in this process; what fails here is told by the call itself, that fails as well."""
        with contextlib.suppress(BaseException):
            module, _ = pickle.loads(body)  # and what the arguments need: numpy
            module_at(unpickled(module)[0])
        gc.collect()
        gc.freeze()  # memory that is shared with the runners stays shared
        for runner in [runner for runner in self.runners.values() if not runner.number]:
            self.forget(runner)  # those to come have it

    def dispatch(self) -> None:
        """Give calls to idle runners; fork those that are missing."""
        idle = [runner for runner in self.runners.values() if not runner.number]
        while self.queue and (idle or len(self.runners) < self.processes):
            if not idle:
                channels = [self.parent, *(r.channel for r in self.runners.values())]
                runner = Runner(self.memory_mib, channels)
                self.runners[runner.channel.fileno()] = runner
                self.poller.register(runner.channel, select.POLLIN)
                idle = [runner]
            runner, call = idle.pop(), self.queue.popleft()
            try:
                runner.send(*call)
            except OSError:  # it has ended, or takes nothing: another one will make this call
                self.queue.appendleft(call)
                self.forget(runner)

    def hear(self, runner: Runner) -> bool:
        """Read what it has to say; False if it has ended."""
        try:
            data = runner.channel.recv(RECEIVE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except ConnectionError:
            data = b""
        if not data:
            self.stop(runner, "crash")
            return False
        runner.unread += data
        for number, left, frame in frames(runner.unread):
            if number == runner.number:
                self.unsent += frame
                runner.number = 0
                if left:  # a thread, that would use up the time of calls to come
                    self.forget(runner)
        return True

    def stop(self, runner: Runner, reason: str) -> None:
        """End it, and say so to the one who waits for its answer."""
        if self.forget(runner) == OUT_OF_MEMORY:
            reason = "memory"
        if runner.number:
            self.unsent += frame_of(runner.number, json.dumps({"stopped": reason}).encode())

    def forget(self, runner: Runner) -> int:
        self.poller.unregister(runner.channel)
        del self.runners[runner.channel.fileno()]
        return runner.end()


def main(fd: int, ppid: int, processes: int, memory_mib: int | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for stream in (sys.stdout, sys.stderr):  # what rewards print goes where the parent's does
        stream.reconfigure(errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    server = Server(socket.socket(fileno=fd), processes, memory_mib)
    try:
        server.run(ppid)
    except ConnectionError:  # the parent has ended
        pass
    except Exception:
        traceback.print_exc()
    for runner in list(server.runners.values()):
        server.forget(runner)
    os._exit(0)  # what libraries have to say at their end was said by the parent
