"""A worker as its caller sees it: a process, two pipes, and the batches it has not answered yet."""

import marshal
import os
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

SILENCE_S = 5.0  # beyond the limits of its jobs: the process is stopped, or stuck in a file system
ROOT = str(Path(__file__).resolve().parents[2])
# -I -S: nothing of the caller's environment or site-packages. ROOT comes last, so that no file of
# ours hides a module of the standard library.
COMMAND = (
    sys.executable, "-I", "-S", "-X", "utf8", "-c",
    f"import sys; sys.path.append({ROOT!r}); from rewards._sql.worker import supervise; "
    "supervise(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])",
)  # fmt: skip


def command_of(memory_bytes: int, driver: str) -> list[str]:
    """With a driver, the worker finds modules where the caller does."""
    found = [driver, *filter(os.path.isdir, sys.path)] if driver else []
    return [*COMMAND, str(os.getpid()), str(memory_bytes), *found]


class Job:
    """A message to a worker, and who waits for its answer."""

    __slots__ = ("ends", "key", "limit_s", "message", "waiters")

    def __init__(self, key: tuple, message: tuple, limit_s: float):
        self.key = key
        self.message = message
        self.limit_s = limit_s
        self.waiters: list = []
        self.ends = 0  # of processes that ran it

    def wake(self, result, error: Exception | None = None) -> None:
        for waiter in self.waiters:
            if not waiter.done():  # its task may have been cancelled
                waiter.set_exception(error) if error else waiter.set_result(result)


class Worker:
    """One supervisor process (see `_sql/worker`). Its pipes never block."""

    def __init__(self, memory_bytes: int, driver: str = ""):
        self.process = subprocess.Popen(
            command_of(memory_bytes, driver),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            bufsize=0,
            # glibc reserves address space for each of a driver's threads, which would count
            env={**os.environ, "MALLOC_ARENA_MAX": "1"} if driver else None,
        )
        self.stdin, self.stdout = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self.stdin, False)
        os.set_blocking(self.stdout, False)
        self.batches: deque[list[Job]] = deque()
        self.unread, self.unsent = bytearray(), bytearray()
        self.answered = False  # ever
        self.due = 0.0

    def push(self, batch: list[Job]) -> bool:
        """Send a batch; whether some of it must wait until the pipe takes more."""
        self.batches.append(batch)
        if len(self.batches) == 1:
            self._set_due()
        data = marshal.dumps([job.message for job in batch])
        self.unsent += len(data).to_bytes(4, "little") + data
        return self.flush()

    def flush(self) -> bool:
        try:
            del self.unsent[: os.write(self.stdin, self.unsent)]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self.unsent.clear()  # the end of the other pipe will tell
        return bool(self.unsent)

    def answers(self) -> list[tuple[list[Job], list | tuple]] | None:
        """The batches that were answered by now, each with its answer; None at the end."""
        try:
            data = os.read(self.stdout, 1 << 16)
        except BlockingIOError:
            return []
        if not data:
            return None
        self.unread += data
        found = []
        while len(self.unread) >= 4:
            end = 4 + int.from_bytes(self.unread[:4], "little")
            if len(self.unread) < end:
                break
            found.append((self.batches.popleft(), marshal.loads(self.unread[4:end])))
            del self.unread[:end]
            self._set_due()
        self.answered = self.answered or bool(found)
        return found

    def _set_due(self) -> None:
        if self.batches:
            self.due = time.monotonic() + SILENCE_S + sum(job.limit_s for job in self.batches[0])

    def silent(self) -> bool:
        return bool(self.batches) and time.monotonic() > self.due

    def close(self) -> None:
        """The closed pipe tells the supervisor to kill its runner and end."""
        self.process.stdin.close()
        self.process.stdout.close()
        try:
            self.process.wait(1)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def why_no_start(memory_bytes: int, driver: str = "") -> str:
    """Start once more, on an empty input, to hear what the process says."""
    command = command_of(memory_bytes, driver)
    try:
        run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = run.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit code {run.returncode}"
