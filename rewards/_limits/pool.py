"""The processes of `_limits/calls` as an event loop sees them: calls out, answers in, over one socket.

Everything runs in the caller's event loop, without a thread, and never blocks it. The process at the
other end (`_limits/worker`) looks at the clock, so a busy loop makes no call late.
"""

import asyncio
import contextlib
import itertools
import json
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

from rewards._limits.loops import Pools
from rewards._limits.worker import HEADER, RECEIVE, frame_of, frames

ROOT = str(Path(__file__).resolve().parents[2])
STARTS_ALLOWED = 2  # for one call; a first end may be somebody else's doing (an OOM killer)


class Stopped(Exception):
    """A call hit a limit; `reason` is "timeout", "memory" or "crash"."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


class Raised(Exception):
    """A function raised; the message is its traceback, `cause` the error in one line, `where` its place in the code."""

    def __init__(self, message: str, cause: str, where: str = ""):
        super().__init__(message, cause, where)
        self.cause, self.where = cause, where

    def __str__(self):
        return self.args[0]


class ProcessEnded(RuntimeError):
    """The process that forks the others does not start, or ended twice: no limit, but a fault."""


class Call:
    """What was asked, and who waits for the answer."""

    def __init__(self, frame: bytes, answer: asyncio.Future):
        self.frame, self.answer, self.starts = frame, answer, 1


class Pool:
    """One process that forks at most `processes` runners, started when there is work for it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, processes: int, memory_mib: int | None):
        self.loop = loop
        self.processes, self.memory_mib = processes, memory_mib
        self.numbers = itertools.count(1)
        self.calls: dict[int, Call] = {}
        self.modules: dict[bytes, bytes] = {}  # that the process is asked to import, in frames
        self.process: subprocess.Popen | None = None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Work for this loop; nobody waits any more for what another one has asked."""
        self.loop = loop
        if self.calls:
            self.calls.clear()
            self.close()
        elif self.process:
            loop.add_reader(self.socket, self._read)

    async def run(self, function, args: tuple, timeout_s: float, module: bytes):
        number = next(self.numbers)
        frame = frame_of(number, pickle.dumps((function, args)), timeout_s)
        if self.process is None:
            self._start()
        if module not in self.modules:
            self.modules[module] = frame_of(0, pickle.dumps((module, args)))
            self._write(self.modules[module])
        waiting = self.calls[number] = Call(frame, self.loop.create_future())
        self._write(frame)
        answer = json.loads(await waiting.answer)
        if "stopped" in answer:
            raise Stopped(answer["stopped"])
        if "error" in answer:
            raise Raised(*answer["error"])
        return answer["result"]

    def _start(self) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.setblocking(False)
        self.unread, self.unsent = bytearray(), bytearray()
        arguments = (theirs.fileno(), os.getpid(), self.processes, self.memory_mib)
        code = (
            f"import sys; sys.path[:] = {[*sys.path, ROOT]!r};"
            f" from rewards._limits.worker import main; main(*{arguments!r})"
        )
        command, fds = [sys.executable, "-c", code], [theirs.fileno()]
        with theirs:
            try:
                self.process = subprocess.Popen(command, pass_fds=fds, stdin=subprocess.DEVNULL)
            except OSError as error:
                raise ProcessEnded(f"no process for rewards can be started: {error}") from None
        self.loop.add_reader(self.socket, self._read)
        for frame in self.modules.values():
            self._write(frame)

    def _write(self, data: bytes = b"") -> None:
        waits = bool(self.unsent)
        self.unsent += data
        with contextlib.suppress(BlockingIOError, ConnectionError):  # _read will see the end
            if not (waits and data):
                del self.unsent[: self.socket.send(self.unsent)]
        if self.unsent and not waits:
            self.loop.add_writer(self.socket, self._write)
        elif waits and not self.unsent:
            self.loop.remove_writer(self.socket)

    def _read(self) -> None:
        try:
            data = self.socket.recv(RECEIVE)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            return self._lost()
        self.unread += data
        for number, _, frame in frames(self.unread):
            waiting = self.calls.pop(number, None)
            if waiting and not waiting.answer.done():  # its task may have been cancelled
                waiting.answer.set_result(frame[HEADER.size :])

    def _lost(self) -> None:
        """The process ended: ask a new one, but not for ever."""
        status = self.close()
        calls, self.calls = self.calls, {}
        why = f"the process that runs rewards ended (status {status}); the log may say why"
        try:
            if calls:
                self._start()
        except ProcessEnded as error:
            why = str(error)
        for number, waiting in calls.items():
            waiting.starts += 1
            if self.process and waiting.starts <= STARTS_ALLOWED:
                self.calls[number] = waiting
                self._write(waiting.frame)
            elif not waiting.answer.done():
                waiting.answer.set_exception(ProcessEnded(why))

    def close(self) -> int | None:
        """End the process, and so all that it has forked; its exit status."""
        if self.process is None:
            return None
        process, self.process = self.process, None
        if not self.loop.is_closed():
            self.loop.remove_reader(self.socket)
            self.loop.remove_writer(self.socket)
        self.socket.close()
        try:
            return process.wait(1)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


pools = Pools(Pool)


def pool_of(processes: int, memory_mib: int | None) -> Pool:
    """The running loop's pool."""
    return pools.get(processes, memory_mib)
