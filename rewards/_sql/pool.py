"""Worker processes for one event loop: jobs go out in micro-batches, answers come back to futures.

Own code for its speed and for what it stops. Measured on 20 real databases, a query takes 34 us with bare
sqlite3, 48 us here with one worker (tests/bench/bench_rewards_sql.py), 281 us with a thread for each and
6,900 us with a process for each; and a thread can't be stopped.
Everything runs in the caller's event loop, without a thread: a thread would wait for the
interpreter's lock (5 ms at a time) whenever the loop is busy. The loop is never blocked: pipes do
not block, and a query that hangs costs only its worker.
A batch is whatever is queued when a worker has room, at most 16 jobs; nothing waits for a batch to
fill. Each worker has a second batch in its pipe, so that it never waits for the parent.
A killed query is the only one that suffers: the rest of its batch is queued again.
"""

import asyncio
import signal
from collections import OrderedDict, deque

from rewards._limits.loops import Pools
from rewards._sql.handle import Job, Worker, why_no_start

BATCH_JOBS = 16
BATCHES_AHEAD = 2
RESULTS_KEPT = 4096
CRASHES_ALLOWED = 2  # of one job; a first crash may be somebody else's doing (an OOM killer)
PASSING = ("worker_crash", "db_missing")  # perhaps not the query's doing: not to be remembered
STARTS_ALLOWED = 3  # of workers that never answer
WATCH_S = 1.0


class Pool:
    """At most `size` worker processes, started when there is work for them.

    driver: the module for databases on servers, empty where there is none. A kill may then be the
    network's doing, so a query is killed twice before it counts.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, size: int, memory_bytes: int, driver: str = ""
    ):
        self.loop = loop
        self.size = size
        self.memory_bytes = memory_bytes
        self.driver = driver
        self.kills_allowed = 2 if driver else 1
        self.workers: list[Worker] = []
        self.queue: deque[Job] = deque()
        # By key, the oldest first; a Job while it is not done.
        self.results: OrderedDict[tuple, Job | tuple | str] = OrderedDict()
        # The caller's: what it keeps for as long as the pool lives.
        self.tasks: OrderedDict = OrderedDict()
        self.tasks_bytes = 0
        self.turn = 0  # of the event loop, as far as it had to do with us
        self.scheduled = self.watching = False
        self.enough = BATCH_JOBS * size  # jobs in the queue, not to wait for the end of the turn
        self.failed_starts = 0

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Go on in a new loop, the old one being closed: its jobs have nobody left to answer to."""
        self.loop = loop
        self.queue.clear()
        for key in [key for key, done in self.results.items() if type(done) is Job]:
            del self.results[key]
        self.scheduled = self.watching = False
        for worker in list(self.workers):
            if worker.batches:
                self.workers.remove(worker)
                worker.close()
            else:
                loop.add_reader(worker.stdout, self._read, worker)

    def close(self) -> None:
        """End every worker."""
        for worker in self.workers:
            worker.close()

    async def run(self, key: tuple, message: tuple, limit_s: float) -> tuple[tuple | str, bool]:
        """The worker's answer to the message, and whether this key was asked before.

        "killed" and "worker_crash" stand for an answer. RuntimeError if no worker starts.
        """
        job = self.results.get(key)
        known = job is not None
        if job is None:
            job = self.results[key] = Job(key, message, limit_s)
            self.queue.append(job)
        elif not isinstance(job, Job):  # it has been answered
            return job, True
        waiter = self.loop.create_future()  # one each: a caller who is cancelled goes alone
        job.waiters.append(waiter)
        self.end_turn()
        if len(self.queue) >= self.enough:
            self._catch_up()
        return await waiter, known

    def end_turn(self) -> None:
        """Send what has come when this turn of the event loop is over, if not before."""
        if not self.scheduled:
            self.scheduled = True
            self.loop.call_soon(self._new_turn)

    def _new_turn(self) -> None:
        self.scheduled = False
        self.turn += 1
        self._dispatch()

    def _catch_up(self) -> None:
        """In the middle of a turn: a burst of callers must not leave the workers without work."""
        for worker in list(self.workers):
            self._read(worker)
        self._dispatch()

    def _dispatch(self) -> None:
        """Batches to workers, as long as there are both."""
        while self.queue:
            worker = min(self.workers, key=lambda worker: len(worker.batches), default=None)
            if worker is None or (worker.batches and len(self.workers) < self.size):
                try:
                    worker = Worker(self.memory_bytes, self.driver)
                except OSError as error:
                    return self._fail_all(str(error))
                self.workers.append(worker)
                self.loop.add_reader(worker.stdout, self._read, worker)
            if len(worker.batches) >= BATCHES_AHEAD:
                break
            idle = self.size - sum(1 for worker in self.workers if worker.batches)
            share = min(BATCH_JOBS, -(-len(self.queue) // max(1, idle)))
            if worker.push([self.queue.popleft() for _ in range(share)]):
                self.loop.add_writer(worker.stdin, self._write, worker)
            if not self.watching:
                self.watching = True
                self.loop.call_later(WATCH_S, self._watch)
        self.enough = len(self.queue) + BATCH_JOBS * self.size

    def _write(self, worker: Worker) -> None:
        if not worker.flush():
            self.loop.remove_writer(worker.stdin)

    def _read(self, worker: Worker) -> None:
        answers = worker.answers()
        if answers is None:
            return self._lost(worker)
        for batch, answer in answers:
            self.failed_starts = 0
            self._take(batch, answer)
        self._dispatch()

    def _take(self, batch: list[Job], answer: list | tuple) -> None:
        """Results of the first jobs of a batch, or (index, signal) of the one that ended it."""
        if isinstance(answer, list):
            for job, result in zip(batch, answer, strict=False):
                self._finish(job, result)
            rest = batch[len(answer) :]
        else:
            index, number = answer
            rest = batch[:index] + batch[index + 1 :]
            if number == -signal.SIGALRM:  # in vain it waited for a server
                self._finish(batch[index], "db_missing")
            elif number == signal.SIGALRM:
                self._ended([batch[index]], "killed", self.kills_allowed)
            else:
                self._ended([batch[index]], "worker_crash", CRASHES_ALLOWED)
        self.queue.extendleft(reversed(rest))

    def _finish(self, job: Job, result: tuple | str) -> None:
        self.results[job.key] = result
        if (result if type(result) is str else result[0]) in PASSING:
            del self.results[job.key]
        elif len(self.results) > RESULTS_KEPT:
            self.results.popitem(last=False)
        job.wake(result)

    def _ended(self, jobs: list[Job], outcome: str, allowed: int) -> None:
        """The process ended while it ran them: again, unless they did so often enough."""
        for job in reversed(jobs):
            job.ends += 1
            if job.ends < allowed:
                self.queue.appendleft(job)
            else:
                self._finish(job, outcome)

    def _lost(self, worker: Worker) -> None:
        """The process ended, or has to: nothing is known of its batches, the first was running."""
        self.loop.remove_reader(worker.stdout)
        self.loop.remove_writer(worker.stdin)
        self.workers.remove(worker)
        worker.close()
        running, *waiting = worker.batches or [[]]
        for batch in reversed(waiting):
            self.queue.extendleft(reversed(batch))
        if worker.answered:
            self._ended(running, "worker_crash", CRASHES_ALLOWED)
        else:
            self.queue.extendleft(reversed(running))
            self.failed_starts += 1
        if self.failed_starts >= STARTS_ALLOWED:
            self._fail_all(why_no_start(self.memory_bytes, self.driver))
        self._dispatch()

    def _fail_all(self, reason: str) -> None:
        self.failed_starts = 0
        while self.queue:
            job = self.queue.popleft()
            self.results.pop(job.key, None)
            job.wake(None, RuntimeError(f"the SQL worker does not start: {reason}"))

    def _watch(self) -> None:
        for worker in [worker for worker in self.workers if worker.silent()]:
            self._lost(worker)
        self.watching = any(worker.batches for worker in self.workers)
        if self.watching:
            self.loop.call_later(WATCH_S, self._watch)


pools = Pools(Pool)


def pool_of(workers: int, memory_bytes: int, driver: str = "") -> Pool:
    """The running loop's pool."""
    return pools.get(workers, memory_bytes, driver)
