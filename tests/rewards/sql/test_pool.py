"""Worker processes of reward=sql: concurrency, kills, event loops, threads."""

import asyncio
import os
import signal
import sys
import threading
import time

import pytest
from helpers import ROOT
from sql_helpers import LOOP, NUMBERS, alive, ask, descendants, make_database, wait_until

from rewards._sql import handle as _sql_process
from rewards._sql import pool as _sql_pool

STUCK = (
    "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r LIMIT 99) SELECT"
    " sum(instr(printf('%.*c', 999999, 'a'), printf('%.*c', 499999, 'a') || 'b')) FROM r"
)

SLOW = "SELECT instr(printf('%.*c', 99999, 'a'), printf('%.*c', 49999, 'a') || 'b')"  # about 0.2 s


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    return make_database(tmp_path_factory.mktemp("pool") / "numbers.sqlite", NUMBERS)


def outcomes(results):
    return [result["outcome"] for result in results]


def test_hundreds_at_once_keep_their_order_among_killers(db):
    async def run():
        options = {"timeout_s": 0.2, "grace_s": 0.4}
        calls = []
        for i in range(600):
            sql = {50: LOOP, 150: STUCK, 350: STUCK + " -- again"}.get(
                i, f"SELECT {i % 100} + {i} - {i}"
            )
            calls.append(ask(sql, f"SELECT i FROM n WHERE i = {i % 50}", db, **options))
        return await asyncio.gather(*calls)

    start = time.monotonic()
    results = asyncio.run(run())
    expected = ["match" if i % 100 == i % 50 else "mismatch" for i in range(600)]
    expected[50], expected[150], expected[350] = "timeout", "killed", "killed"
    assert outcomes(results) == expected
    assert time.monotonic() - start < 10


def test_an_answer_may_come_while_a_burst_is_still_coming_in(db, monkeypatch):
    def answered_at_once(pool):
        while pool.queue:
            pool._finish(pool.queue.popleft(), ("match", 1, 0.0, True, 0.0))

    async def run():
        await ask("SELECT 1", "SELECT 1", db)
        _sql_pool.pool_of(2, 1024 << 20).enough = 0
        monkeypatch.setattr(_sql_pool.Pool, "_catch_up", answered_at_once)
        return await asyncio.wait_for(ask("SELECT 'burst'", "SELECT 1", db), 5)

    assert asyncio.run(run())["outcome"] == "match"


def test_burst_after_burst_loses_no_answer(db):
    async def run():
        for i in range(20):
            calls = (ask(f"SELECT {j} -- burst {i}", "SELECT 7", db) for j in range(300))
            results = await asyncio.wait_for(asyncio.gather(*calls), 20)
            assert outcomes(results).count("match") == 1

    asyncio.run(run())


def test_a_kill_costs_no_other_answer_and_one_fork(db):
    async def run():
        options = {"timeout_s": 0.1, "grace_s": 0.1, "workers": 1}
        sql = ["SELECT 1", STUCK + " -- one batch", *(f"SELECT {i}" for i in range(2, 16))]
        results = await asyncio.gather(
            *(ask(q, "SELECT count(*) FROM n", db, **options) for q in sql)
        )
        (worker,) = _sql_pool.pool_of(1, 1024 << 20).workers
        old = worker.process.pid, descendants(worker.process.pid)
        again = await ask(STUCK + " -- once more", "SELECT count(*) FROM n", db, **options)
        await ask("SELECT 99", "SELECT 99", db, **options)
        return (
            outcomes([*results, again]),
            old,
            (worker.process.pid, descendants(worker.process.pid)),
        )

    found, old, new = asyncio.run(run())
    assert found == ["mismatch", "killed"] + ["mismatch"] * 14 + ["killed"]
    assert old[0] == new[0] and old[1] != new[1]  # forked again, not started again


def test_identical_answers_run_once(db):
    async def run():
        results = await asyncio.gather(*(ask("SELECT 100 -- twin", "SELECT count(*) FROM n", db)
                                         for _ in range(20)))  # fmt: skip
        later = await ask("SELECT 100 -- twin", "SELECT count(*) FROM n", db)
        other_rule = await ask("SELECT 100 -- twin", "SELECT count(*) FROM n", db, mode="bird")
        return results, later, other_rule

    results, later, other_rule = asyncio.run(run())
    assert [result["cache_hit"] for result in results] == [0.0] + [1.0] * 19
    assert (later["cache_hit"], other_rule["cache_hit"]) == (1.0, 0.0)
    assert all(result["outcome"] == "match" for result in (*results, later, other_rule))


def test_the_loop_is_never_blocked(db):
    async def run():
        gaps, last = [], time.monotonic()
        task = asyncio.gather(*(ask(f"{STUCK} -- {i}", "SELECT 1", db, timeout_s=0.6, grace_s=0.1)
                                for i in range(2)))  # fmt: skip
        while not task.done():
            await asyncio.sleep(0.01)
            gaps.append(time.monotonic() - last)
            last = time.monotonic()
        return outcomes(task.result()), max(gaps)

    found, gap = asyncio.run(run())
    assert found == ["killed", "killed"]
    assert gap < 0.5


def test_many_event_loops_share_the_workers(db):
    workers = set()
    for i in range(5):
        assert asyncio.run(ask(f"SELECT {i}", f"SELECT {i}", db, workers=1))["outcome"] == "match"
        workers |= {w.process.pid for key, pool in _sql_pool.pools.by_key.items() if key[1] == 1
                    for w in pool.workers}  # fmt: skip
    assert len(workers) == 1


def test_a_loop_that_ends_early_leaves_a_good_pool(db):
    async def give_up():
        await asyncio.wait_for(ask(STUCK + " -- left", "SELECT 1", db, timeout_s=3), 0.2)

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(give_up())
    start = time.monotonic()
    assert asyncio.run(ask("SELECT 7", "SELECT 7", db, timeout_s=3))["outcome"] == "match"
    assert time.monotonic() - start < 1.5  # not behind the query that nobody waits for


def test_a_cancelled_caller_goes_alone(db):
    async def run():
        tasks = [asyncio.ensure_future(ask(SLOW + " -- twin", "SELECT 0", db)) for _ in range(3)]
        await asyncio.sleep(0.02)
        tasks[0].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    cancelled, *others = asyncio.run(run())
    assert isinstance(cancelled, asyncio.CancelledError)
    assert outcomes(others) == ["match", "match"]


def test_two_threads(db):
    found = {}

    def run(name):
        async def many():
            return await asyncio.gather(*(ask(f"SELECT {i} -- {name}", f"SELECT {i % 7}", db)
                                          for i in range(200)))  # fmt: skip

        found[name] = outcomes(asyncio.run(many()))

    threads = [threading.Thread(target=run, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found["a"] == found["b"] == ["match"] * 7 + ["mismatch"] * 193


def test_uvloop(db):
    uvloop = pytest.importorskip("uvloop")  # what Ray's async actors run on, where it is installed
    loop = uvloop.new_event_loop()

    async def run():
        first = await asyncio.gather(
            *(ask(f"SELECT {i} -- uv", "SELECT 3", db) for i in range(100))
        )
        stuck = await ask(STUCK, "SELECT 1", db, timeout_s=0.1, grace_s=0.1)
        return outcomes(first), stuck["outcome"]

    found, stuck = loop.run_until_complete(run())
    loop.close()
    assert found.count("match") == 1 and stuck == "killed"


@pytest.mark.parametrize("which", ["supervisor", "runner", "both"])
def test_workers_killed_from_outside(db, which):
    async def run():
        options = {"workers": 1, "memory_mib": 500 + len(which)}  # so, a pool of its own
        await ask("SELECT 1", "SELECT 1", db, **options)
        pool = _sql_pool.pool_of(1, options["memory_mib"] << 20)
        calls = [ask(f"{SLOW} + {SLOW[7:]} -- {which}", "SELECT 0", db, **options)]
        calls += [ask(f"SELECT {i} -- {which}", "SELECT 5", db, **options) for i in range(40)]
        task = asyncio.gather(*calls)
        await asyncio.sleep(0.1)
        supervisor = pool.workers[0].process.pid
        (runner,) = descendants(supervisor)
        for pid in {"supervisor": [supervisor], "runner": [runner]}.get(
            which, [supervisor, runner]
        ):
            os.kill(pid, signal.SIGKILL)
        return outcomes(await task), (supervisor, runner)

    found, old = asyncio.run(run())
    assert found[0] == "match" and found[1:].count("match") == 1 and found.count("mismatch") == 39
    if which != "supervisor":
        wait_until(lambda: not alive(old[1]))


CRASHING = """
import os, rewards._sql.worker as w
form = w.spider_form
w.spider_form = lambda sql, keep: os.abort() if "crash" in sql else form(sql, keep)
"""


def test_a_query_that_always_crashes_is_a_worker_crash(db, monkeypatch):
    *python, boot = _sql_process.COMMAND
    command = [*python, f"import sys; sys.path.append({str(ROOT)!r}); {CRASHING}\n{boot}"]
    monkeypatch.setattr(_sql_process, "COMMAND", tuple(command))

    async def run():
        options = {"workers": 1, "memory_mib": 256}
        sql = ["SELECT 1", "SELECT 'crash'", "SELECT 2"]
        return await asyncio.gather(*(ask(q, "SELECT 1", db, **options) for q in sql))

    results = asyncio.run(run())
    assert outcomes(results) == ["match", "worker_crash", "mismatch"]
    assert (results[1]["score"], results[1]["acc"], results[1]["masked"]) == (0.0, 0.0, 0.0)


def test_a_worker_that_cannot_start_is_an_error(db, monkeypatch):
    monkeypatch.setattr(
        _sql_process, "COMMAND", (sys.executable, "-c", "raise SystemExit('no luck')")
    )
    with pytest.raises(RuntimeError, match="no luck"):
        asyncio.run(ask("SELECT 1", "SELECT 1", db, memory_mib=300))
    monkeypatch.setattr(_sql_process, "COMMAND", ("/nonexistent/python",))
    with pytest.raises(RuntimeError, match="nonexistent"):
        asyncio.run(ask("SELECT 1", "SELECT 1", db, memory_mib=301))


def test_a_stopped_worker_is_replaced(db, monkeypatch):
    monkeypatch.setattr(_sql_process, "SILENCE_S", 0.3)
    monkeypatch.setattr(_sql_pool, "WATCH_S", 0.1)

    async def run():
        options = {"workers": 1, "memory_mib": 400, "timeout_s": 0.2, "grace_s": 0.1}
        await ask("SELECT 1", "SELECT 1", db, **options)
        pool = _sql_pool.pool_of(1, 400 << 20)
        (runner,) = descendants(pool.workers[0].process.pid)
        os.kill(runner, signal.SIGSTOP)
        return await ask("SELECT 1 -- again", "SELECT 1", db, **options), runner

    result, runner = asyncio.run(run())
    assert result["outcome"] == "match"
    wait_until(lambda: not alive(runner))
