"""What an answer is compared with: the databases and reference answers of one row, prepared once.

A `Task` holds each reference answer as a digest for each database. It is made by running the reference
answers under their own time limit, and made again when a database file changes, when a server could not be
reached, or at midnight UTC (reference answers may say date('now')). What changes on a server in between is not
seen. Faults of the data are found here, before any answer is looked at.
"""

import difflib
import marshal
import os
import time
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache

from rewards._sql.pool import Pool, pool_of
from rewards._sql.shaping import SHAPINGS
from rewards._sql.url import driver_of, file_of, scheme_of, shown, why_missing

MODES = ("spider", "bird", "strict")
TASKS_KEPT, TASK_BYTES_KEPT = 4096, 64_000_000
DAY_S = 86400
CONNECTING_S = 30.0  # for a worker to connect, and once more, before it counts as stuck
LEAST = {"memory_mib": 128, "grace_s": 0}


@dataclass(frozen=True, eq=False)
class Settings:
    """The options of the reward, checked; `rewards.sql` documents them and holds the defaults."""

    mode: str
    keep_distinct: bool
    shaping: str
    timeout_s: float
    grace_s: float
    reference_timeout_s: float
    max_rows: int
    max_bytes: int
    memory_mib: int
    workers: int
    bare_select: bool
    strict_format: bool

    def __post_init__(self):
        for name, known in (("mode", MODES), ("shaping", tuple(SHAPINGS))):
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"unknown {name} {value!r}; known: {', '.join(known)}")
        for field in fields(self):
            value = getattr(self, field.name)
            least = LEAST.get(field.name, 1 if field.type is int else 1e-3)
            if field.type is bool:
                good, wanted = isinstance(value, bool), "true or false"
            elif field.type is int:
                good = type(value) is int and value >= least
                wanted = f"an integer, at least {least}"
            elif field.type is float:
                good = type(value) in (int, float) and least <= value < float("inf")
                wanted = f"a number, at least {least}"
            else:
                continue
            if not good:
                raise ValueError(f"{field.name} must be {wanted}, not {value!r}")


_settings = lru_cache(maxsize=64, typed=True)(Settings)


def settings_of(*values) -> Settings:
    """The same object for the same options; ValueError for a bad one."""
    try:
        return _settings(*values)
    except TypeError:  # a list or a mapping, which no option takes
        return Settings(*values)


@lru_cache(maxsize=64)
def check_names(*names: str) -> None:
    """ValueError for a name that looks like a slip of an option's.

    Others are let through: verl hands every reward function arguments of its own.
    """
    known = [field.name for field in fields(Settings)]
    for name in names:
        close = difflib.get_close_matches(name, known, 1, 0.75)
        if close:
            raise ValueError(f"unknown option {name!r}: did you mean {close[0]!r}?")


class Task:
    """Databases, reference answers and settings of a row.

    faults: (outcome, message) for each fault of the data. usable: whether answers can be scored all
    the same, by the reference answers that run. packed: what a worker needs to know, as bytes. empty_gold:
    every reference answer that runs gives no row.
    """

    def __init__(self, key: tuple):
        references, paths, self.settings = key
        self.references = [reference for reference in strings(references) if reference.strip()]
        self.paths = strings(paths)
        self.day = int(time.time() // DAY_S)
        self.turn = -1
        self.identities = list(map(identity_of, self.paths))
        self.faults: list[tuple[str, str]] = []
        self.packed = b""
        self.extra_s = sum(CONNECTING_S for path in self.paths if scheme_of(path))
        rest = self.settings.timeout_s + self.settings.grace_s
        self.limit_s = len(self.paths) * rest + self.extra_s
        self.empty_gold = False

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
        databases = list(zip(self.paths, self.identities, strict=True))
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
        self.empty_gold = all(empty for result in good for empty, _ in result)
        targets = []
        for (path, identity), *of_references in zip(databases, *good, strict=True):
            targets.append((path, identity, [reference for _, reference in of_references]))
        s = self.settings
        limits = (s.timeout_s, s.grace_s, s.max_rows, s.max_bytes)
        rule = (s.mode, s.keep_distinct, s.shaping == "soft_f1", limits, targets)
        self.packed = marshal.dumps(rule)

    async def _run_reference(
        self, pool: Pool, sql: str, databases: list
    ) -> list[tuple[bool, bytes]]:
        """(no rows, Reference as bytes) on each database; empty if it does not run on every one."""
        s = self.settings
        rule = (s.mode, s.keep_distinct, s.shaping == "soft_f1", s.reference_timeout_s, s.grace_s)
        on_each = []
        for path, identity in databases:
            message = ("reference", path, identity, sql, *rule)
            answer, _ = await pool.run(
                message, message, s.reference_timeout_s + s.grace_s + self.extra_s
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


def key_of(ground_truth, extra_info, settings: Settings) -> tuple:
    """(reference answers, paths, settings) of a row; a single answer or absolute path as it stands, for speed.

    A path may be a URL.
    """
    info = extra_info if isinstance(extra_info, Mapping) else {}
    paths, more = info.get("db"), info.get("extra_dbs")
    if type(paths) is not str or not paths.startswith("/") or more is not None:
        found = (path for path in (*strings(paths), *strings(more)) if path)
        paths = tuple(path if scheme_of(path) else os.path.abspath(path) for path in found)
    references = ground_truth if type(ground_truth) is str else strings(ground_truth)
    return references, paths, settings


def pool_for(key: tuple) -> Pool:
    """The workers for a row. ValueError for a driver that is not installed."""
    _, paths, settings = key
    driver = "" if type(paths) is str else driver_of(paths)
    return pool_of(settings.workers, settings.memory_mib << 20, driver)


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
