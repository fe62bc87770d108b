"""A worker: runs SQL and compares results, in a process that may be killed at any moment.

Two processes, standard library only, so that they start in tens of milliseconds and hold nothing
of the trainer. The supervisor does nothing but fork the runner again when it dies (about a
millisecond: everything is imported). The runner reads batches from stdin and answers on stdout;
frames are four bytes of length, then marshal. A batch is `[job, ...]` and its answer
`[result, ...]`, maybe of the first jobs only: the caller sends the rest again, so that nobody waits
behind a slow query.

Before every query the runner sets an alarm that it does not handle: when one opcode outlasts the
time limit and the grace, the kernel ends the process. The supervisor then answers the batch with
`(index, signal)`, read from memory that both share; `(index, -signal)` while it waited for a server.
A runner that dies between two queries may have left half a frame, so the supervisor ends too and the
caller starts afresh.
Both end when the caller does: its end of the pipe closes, or its process id is gone.

For databases by URL (`_sql/engines`) the worker has a driver and the caller's module path, too.
"""

import contextlib
import gc
import importlib
import marshal
import mmap
import os
import resource
import select
import signal
import sqlite3
import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from operator import and_

from rewards._sql.compare import Reference, matches, reference_of
from rewards._sql.guard import Clock, Database, Fault, classify, limiter
from rewards._sql.rows import soft_f1
from rewards._sql.text import has_top_level_order_by, spider_form, without_distinct
from rewards._sql.url import scheme_of

IDLE = 255
POOLED_DATABASES = 32
POOLED_CONNECTIONS = 4  # by URL: a server has only so many, and DuckDB's each take memory
SLOW_BATCH_S = 0.02
REFERENCE_BYTES = 64_000_000
PARENT_POLL_MS = 1000
SUPERUSER = "{} may do more than read: use a role that may only read, or allow_superuser=true"
DRIVER_BYTES = 512 << 20  # of address space, which a driver's libraries reserve without using it


class Alarm(Clock):
    """Ends the process when a query outlasts its limit and the grace.

    Set again only when that makes a difference: the kernel call takes a tenth of a small query.
    """

    length_s = 0.0
    good_until = 0.0
    running: bytearray | mmap.mmap = bytearray(2)  # shared with the supervisor; see supervise

    def set(self, timeout_s: float, grace_s: float) -> float:
        """Start the time of a query; returns the time."""
        now = time.monotonic()
        self.deadline = now + timeout_s
        self.timeout_s = timeout_s
        if now > self.good_until or timeout_s + grace_s != self.length_s:
            self.length_s = timeout_s + grace_s
            self.good_until = now + SLOW_BATCH_S
            signal.setitimer(signal.ITIMER_REAL, self.length_s + SLOW_BATCH_S)
        return now

    @contextlib.contextmanager
    def connecting(self, most_s: float):
        """Waiting for a server is not the query's time, and not its fault."""
        limits = self.timeout_s, self.length_s - self.timeout_s
        self.running[1] = 1
        signal.setitimer(signal.ITIMER_REAL, most_s)
        try:
            yield
        finally:
            self.running[1] = 0
            self.good_until = 0.0
            self.set(*limits)

    def off(self) -> None:
        self.good_until = 0.0
        signal.setitimer(signal.ITIMER_REAL, 0)


class Runner:
    def __init__(self, memory_bytes: int):
        self.heap_bytes = memory_bytes // 2
        self.databases: OrderedDict[tuple, Database] = OrderedDict()
        self.set_limit = limiter()
        self.alarm = Alarm()

    def open(self, path: str, identity: tuple) -> Database:
        key = (path, identity)
        database = self.databases.get(key)
        if database is not None:
            self.databases.move_to_end(key)
            return database
        try:
            if path.startswith("/"):
                database = Database(path, self.heap_bytes, self.set_limit, self.alarm)
            else:
                database = self.connect(path)
                if database.superuser and identity == (0,):
                    database.close()
                    raise Fault("db_missing", SUPERUSER.format(database.superuser))
        except (sqlite3.Error, MemoryError, ValueError, OSError) as error:
            outcome = "memory" if classify(error).outcome == "memory" else "db_missing"
            raise Fault(outcome, str(error)) from None
        self.databases[key] = database
        if len(self.databases) > (POOLED_DATABASES if path.startswith("/") else POOLED_CONNECTIONS):
            self.databases.popitem(last=False)[1].close()
        return database

    def connect(self, url: str):
        from rewards._sql.engines import connect  # not for those who have SQLite's files only

        for key in [key for key in self.databases if key[0] == url]:  # an old version of the file
            self.databases.pop(key).close()
        return connect(url, self.heap_bytes, self.alarm)

    def reference(
        self, path, identity, sql, mode, keep_distinct, keep_rows, timeout_s, grace_s
    ) -> tuple:
        """("", whether the result is empty, Reference as bytes, its `wide`), or (outcome, message)."""
        try:
            if mode == "spider":
                sql = form_of(sql, keep_distinct, path)
                ordered = "order by" in sql.lower()  # anywhere at all: so does the evaluator
            else:
                ordered = has_top_level_order_by(sql, scheme_of(path))
            self.alarm.set(timeout_s, grace_s)
            database = self.open(path, identity)
            most = sys.maxsize, REFERENCE_BYTES, mode != "bird", mode == "bird"
            wide = False
            try:
                result = database.query(sql, *most)
            except Fault as fault:
                if fault.outcome != "limit":
                    raise
                result = database.query(sql, *most, wide := True)
            reference = reference_of(result, mode, ordered, keep_rows)._replace(wide=wide)
            return "", not result.raw, marshal.dumps(tuple(reference)), wide
        except Fault as fault:
            outcome = "db_missing" if fault.outcome == "db_missing" else "gold_error"
            return outcome, f"{fault.outcome}: {fault}"
        except (MemoryError, TimeoutError) as error:
            return "gold_error", type(error).__name__

    def score(self, sql: str, packed: bytes) -> tuple:
        """(outcome, rows, milliseconds, table read, soft F1); rows of the first database."""
        load = unpack_small if len(packed) < PACKED_SMALL else unpack
        mode, keep_distinct, soft, timeout_s, grace_s, targets = load(packed)
        elapsed_s, table_read, share = 0.0, False, 0.0
        rows = alive = shares = None
        started = time.monotonic()
        try:
            if mode == "spider":
                sql = form_of(sql, keep_distinct, targets[0][0])
            for path, identity, references, max_rows, max_bytes, wide in targets:
                started = self.alarm.set(timeout_s, grace_s)
                database = self.open(path, identity)
                bird = mode == "bird"
                result = database.query(sql, max_rows, max_bytes, not bird, bird, wide)
                elapsed_s += time.monotonic() - started
                table_read = table_read or database.table_read
                rows = len(result.raw) if rows is None else rows
                good = [
                    matches(reference, result, mode, self.alarm.deadline)
                    for reference in references
                ]
                alive = good if alive is None else list(map(and_, alive, good))
                if soft:
                    f1 = [soft_f1(reference.rows, result.raw) for reference in references]
                    shares = f1 if shares is None else list(map(min, shares, f1))
                elif True not in alive:
                    break
            share = max(shares) if soft else 0.0
            outcome = "match" if True in alive else "mismatch"
            return outcome, rows, elapsed_s * 1e3, table_read, share
        except Fault as fault:
            outcome = fault.outcome
        except (MemoryError, TimeoutError) as error:
            outcome = "memory" if isinstance(error, MemoryError) else "timeout"
        return outcome, 0, (elapsed_s + time.monotonic() - started) * 1e3, table_read, 0.0


def form_of(sql: str, keep_distinct: bool, path: str) -> str:
    """The spider mode's text of a query: the evaluator's repairs are for SQLite only."""
    if path.startswith("/"):
        return spider_form(sql, keep_distinct)
    return without_distinct(sql, keep_distinct, scheme_of(path))


def unpack(packed: bytes) -> tuple:
    """What `rewards._sql.task` packs; a reference answer's size may raise the limits on its database."""
    mode, keep_distinct, soft, limits, targets = marshal.loads(packed)
    timeout_s, grace_s, max_rows, max_bytes = limits
    loaded = []
    for path, identity, references in targets:
        references = [Reference._make(marshal.loads(reference)) for reference in references]
        most_rows = max(max_rows, *(2 * reference.count for reference in references))
        most_bytes = max(max_bytes, *(2 * reference.size for reference in references))
        wide = any(reference.wide for reference in references)
        loaded.append((path, identity, references, most_rows, most_bytes, wide))
    return mode, keep_distinct, soft, timeout_s, grace_s, loaded


unpack_small = lru_cache(maxsize=1024)(unpack)
PACKED_SMALL = 16_384


def read_exactly(size: int) -> bytearray:
    # Unbuffered: what is not read yet is for the next runner, should this one die.
    data = bytearray()
    while len(data) < size:
        more = os.read(0, size - len(data))
        if not more:
            os._exit(0)
        data += more
    return data


def write_frame(message) -> None:
    data = marshal.dumps(message)
    data = len(data).to_bytes(4, "little") + data
    while data:
        data = data[os.write(1, data) :]


def serve(memory_bytes: int, running: mmap.mmap, extra_bytes: int) -> None:
    """The runner's loop; ends at the end of the input."""
    for limit, value in (
        (resource.RLIMIT_AS, memory_bytes + extra_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    gc.freeze()
    gc.set_threshold(50_000)  # rows are many and never in cycles
    runner = Runner(memory_bytes)
    runner.alarm.running = running
    kinds: dict[str, Callable] = {"reference": runner.reference, "score": runner.score}
    while True:
        batch = marshal.loads(read_exactly(int.from_bytes(read_exactly(4), "little")))
        started = time.monotonic()
        results = []
        for index, job in enumerate(batch):
            running[0] = index
            results.append(kinds[job[0]](*job[1:]))
            if time.monotonic() - started > SLOW_BATCH_S:
                break
        runner.alarm.off()
        running[0] = IDLE
        write_frame(results)


def supervise(parent: int, memory_bytes: int, driver: str = "", *module_path: str) -> None:
    if driver:
        sys.path += module_path
        importlib.import_module(driver)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    # Shared with the runner: the index of its query, and whether it is waiting for a server.
    running = mmap.mmap(-1, mmap.PAGESIZE)
    wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    poller = select.poll()
    poller.register(0, 0)  # no events: only the hang-up that is always reported
    poller.register(wake, select.POLLIN)
    while True:
        running[0], running[1] = IDLE, 0
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker)
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                serve(memory_bytes, running, DRIVER_BYTES if driver else 0)
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        while True:
            events = poller.poll(PARENT_POLL_MS)
            if any(fd == 0 for fd, _ in events) or os.getppid() != parent:
                os.kill(pid, signal.SIGKILL)
                os._exit(0)
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 512)
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                break
        if running[0] == IDLE:
            os._exit(1)
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        unreached = running[1] and number == signal.SIGALRM
        write_frame((running[0], -number if unreached else number))
