"""What is kept between the calls of reward=judge: scores by request, and how many calls were made.

In a folder it is a SQLite file that all processes of a run share, and that outlives them: a run that
is resumed knows its scores and its spending. No cache library counts exactly over several processes,
some of which may be killed, and the count is what caps the spending. Without a folder it is kept in memory.
It holds hashes, scores and a number: no text of a row, and no key.
"""

import sqlite3
import threading
from pathlib import Path

BUSY_S = 60  # another process writes
NO_CAP = 1 << 62


class Store:
    """Scores and spending. Its methods block shortly, and may be called from any thread."""

    def __init__(self, folder: str | None, max_calls: int | None):
        self.max_calls = max_calls
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
        self.lock = threading.Lock()
        self.db = sqlite3.connect(
            Path(folder) / "judge.sqlite" if folder else ":memory:",
            timeout=BUSY_S,
            isolation_level=None,
            check_same_thread=False,
        )
        self._run("PRAGMA journal_mode = WAL")
        self._run("PRAGMA synchronous = NORMAL")
        self._run("CREATE TABLE IF NOT EXISTS scores (request TEXT PRIMARY KEY, score REAL)")
        self._run("CREATE TABLE IF NOT EXISTS spent (one INTEGER PRIMARY KEY, calls INTEGER)")
        self._run("INSERT OR IGNORE INTO spent VALUES (1, 0)")

    def _run(self, sql: str, *values) -> tuple[int, list]:
        """Rows that were changed, and rows that were found."""
        with self.lock:
            done = self.db.execute(sql, values)
            return done.rowcount, done.fetchall()

    def get(self, request: str) -> float | None:
        """The score of a request that was made before."""
        found = self._run("SELECT score FROM scores WHERE request = ?", request)[1]
        return found[0][0] if found else None

    def put(self, request: str, score: float) -> None:
        self._run("INSERT OR REPLACE INTO scores VALUES (?, ?)", request, score)

    def take(self) -> bool:
        """Count a call that is about to be made; False if the cap is reached."""
        cap = NO_CAP if self.max_calls is None else self.max_calls
        return self._run("UPDATE spent SET calls = calls + 1 WHERE calls < ?", cap)[0] == 1

    def give_back(self) -> None:
        """A call that was counted has cost nothing."""
        self._run("UPDATE spent SET calls = calls - 1")

    def share(self) -> float:
        """Calls so far, by everybody who shares the folder, of those that may be made; 0 without a cap."""
        calls = self._run("SELECT calls FROM spent")[1][0][0]
        return min(1.0, calls / self.max_calls) if self.max_calls else float(self.max_calls == 0)
