"""What an answer is compared with: the databases and reference answers of one row, prepared once.

A `Task` holds each reference answer as a digest for each database. It is made by running the reference
answers under their own time limit, and made again when a database file changes, when a server could not be
reached, or at midnight UTC (reference answers may say date('now')). What changes on a server in between is not
seen. Faults of the data are found here, before any answer is looked at.
"""

import marshal
import os
import time
from collections.abc import Awaitable, Iterable, Mapping

from rewards._sql.guard import WIDE_SQL_BYTES
from rewards._sql.pool import Pool, pool_of
from rewards._sql.text import SQL_BYTES
from rewards._sql.url import changes_beside, driver_of, file_of, scheme_of, shown, why_missing

TASKS_KEPT, TASK_BYTES_KEPT = 4096, 64_000_000
DAY_S = 86400
CONNECTING_S = 30.0  # for a worker to connect, and once more, before it counts as stuck


class Task:
    """Databases, reference answers and options (of rewards.sql) of a row.

    faults: (outcome, message) for each fault of the data. usable: whether answers can be scored all
    the same, by the reference answers that run. packed: what a worker needs to know, as bytes. empty_gold:
    every reference answer that runs gives no row. sql_bytes: of the longest answer that is run.
    """

    def __init__(self, key: tuple):
        references, paths, self.options = key
        self.references = [reference for reference in strings(references) if reference.strip()]
        self.paths = strings(paths)
        self.day = int(time.time() // DAY_S)
        self.turn = -1
        self.identities = list(map(identity_of, self.paths))
        self.faults: list[tuple[str, str]] = []
        self.packed = b""
        self.extra_s = sum(CONNECTING_S for path in self.paths if scheme_of(path))
        rest = self.options.timeout_s + self.options.grace_s
        self.limit_s = len(self.paths) * rest + self.extra_s
        self.empty_gold = False
        self.sql_bytes = SQL_BYTES

    @property
    def usable(self) -> bool:
        return bool(self.packed)

    @property
    def unreached(self) -> bool:
        """Whether it is worth another try: a server may be back."""
        missing = any(outcome == "db_missing" for outcome, _ in self.faults)
        return missing and not self.usable and self.extra_s > 0

    def fresh(self, pool: Pool) -> bool:
        """Whether the files are those of before; looked at once in a turn of the event loop."""
        if self.turn == pool.turn:
            return True
        pool.end_turn()
        if self.day != int(time.time() // DAY_S):
            return False
        if self.unreached or self.identities != list(map(identity_of, self.paths)):
            return False
        self.turn = pool.turn
        return True

    async def prepare(self, pool: Pool) -> None:
        """Run the reference answers; fill in packed, faults and empty_gold."""
        for number, (path, identity) in enumerate(zip(self.paths, self.identities, strict=True)):
            if identity and path.startswith("/") and changes_beside(path):
                self.identities[number] = None
        # Of a server: whose connection may be used.
        rights = (int(self.options.allow_superuser),) if self.extra_s else ()
        identities = [rights if identity == () else identity for identity in self.identities]
        databases = list(zip(self.paths, identities, strict=True))
        self.faults += [("db_missing", why_missing(p)) for p, i in databases if i is None]
        if not databases:
            self.faults.append(("db_missing", "the row names no database"))
        if not self.references:
            self.faults.append(("gold_error", "the row has no reference SQL"))
        if self.faults:
            return
        results = [await self._run_reference(pool, sql, databases) for sql in self.references]
        good = [result for result in results if result]
        if not good:
            return
        self.empty_gold = all(empty for result in good for empty, *_ in result)
        if any(wide for result in good for *_, wide in result):
            self.sql_bytes = WIDE_SQL_BYTES
        targets = []
        for (path, identity), *of_references in zip(databases, *good, strict=True):
            targets.append((path, identity, [reference for _, reference, _ in of_references]))
        o = self.options
        limits = (o.timeout_s, o.grace_s, o.max_rows, o.max_bytes)
        rule = (o.mode, o.keep_distinct, o.shaping == "soft_f1", limits, targets)
        self.packed = marshal.dumps(rule)

    async def _run_reference(
        self, pool: Pool, sql: str, databases: list
    ) -> list[tuple[bool, bytes, bool]]:
        """(no rows, Reference as bytes, whether it is wide) on each database; none if one fails."""
        o = self.options
        rule = (o.mode, o.keep_distinct, o.shaping == "soft_f1", o.reference_timeout_s, o.grace_s)
        on_each = []
        for path, identity in databases:
            message = ("reference", path, identity, sql, *rule)
            answer, _ = await pool.run(
                message, message, o.reference_timeout_s + o.grace_s + self.extra_s
            )
            if isinstance(answer, str):
                answer = ("db_missing" if answer == "db_missing" else "gold_error", answer)
            if answer[0]:
                self.faults.append((answer[0], f"{answer[1]}; on {shown(path)}: {sql}"))
                return []
            on_each.append(answer[1:])
        return on_each

    def run(self, pool: Pool, sql: str) -> Awaitable[tuple[tuple | str, bool]]:
        """The worker's answer for a predicted query, and whether it was asked before."""
        return pool.run((self, sql), ("score", sql, self.packed), self.limit_s)


def identity_of(path: str) -> tuple[int, ...] | None:
    """What tells one version of a file from the next; None if it can hold no database.

    Of a database on a server nothing is known: ().
    """
    file = path if path.startswith("/") else file_of(path)
    if file is None:
        return ()
    if not file.startswith("/"):  # a URL that makes no sense
        return None
    try:
        stat = os.stat(file)
    except (OSError, ValueError):
        return None
    if stat.st_mode & 0o170000 != 0o100000 or not stat.st_size:  # a directory, an empty file
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def strings(value) -> tuple[str, ...]:
    """One string or several (a list, a numpy array from parquet); nothing for anything else."""
    if isinstance(value, str | os.PathLike):
        return (os.fspath(value),)
    if not isinstance(value, Iterable) or isinstance(value, bytes | dict):
        return ()
    parts = tuple(map(strings, value))
    return tuple(part[0] for part in parts) if all(len(part) == 1 for part in parts) else ()


def key_of(ground_truth, extra_info, options) -> tuple:
    """(reference answers, paths, options) of a row; a single answer or absolute path as it stands, for speed.

    A path may be a URL.
    """
    # A look at the type first: an abstract class takes longer than the rest of this function.
    info = extra_info if type(extra_info) is dict or isinstance(extra_info, Mapping) else {}
    paths, more = info.get("db"), info.get("extra_dbs")
    if type(paths) is not str or not paths.startswith("/") or more is not None:
        found = (path for path in (*strings(paths), *strings(more)) if path)
        paths = tuple(path if scheme_of(path) else os.path.abspath(path) for path in found)
    references = ground_truth if type(ground_truth) is str else strings(ground_truth)
    return references, paths, options


def pool_for(key: tuple) -> Pool:
    """The workers for a row. ValueError for a driver that is not installed."""
    _, paths, options = key
    driver = "" if type(paths) is str else driver_of(paths)
    return pool_of(options.workers, options.memory_mib << 20, driver)


def known_task(pool: Pool, key: tuple) -> Task | None:
    task = pool.tasks.get(key)
    return task if task is not None and task.fresh(pool) else None


async def new_task(pool: Pool, key: tuple) -> Task:
    """The prepared task of a row, kept in the pool."""
    task = Task(key)
    await task.prepare(pool)
    if rival := known_task(pool, key):  # made meanwhile, for another answer to the same question
        return rival
    old = pool.tasks.pop(key, None)
    pool.tasks[key] = task
    pool.tasks_bytes += len(task.packed) - (len(old.packed) if old else 0)
    while len(pool.tasks) > TASKS_KEPT or pool.tasks_bytes > TASK_BYTES_KEPT:
        pool.tasks_bytes -= len(pool.tasks.popitem(last=False)[1].packed)
    return task
