"""Worker processes: concurrency, kills, event loops, threads, and that nothing is left running."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from rewards import _sql_pool, _sql_process
from rewards.sql import compute_score

ROOT = Path(__file__).resolve().parent.parent
LOOP = "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) SELECT max(i) FROM r"
STUCK = (
    "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r LIMIT 99) SELECT"
    " sum(instr(printf('%.*c', 999999, 'a'), printf('%.*c', 499999, 'a') || 'b')) FROM r"
)

SLOW = "SELECT instr(printf('%.*c', 99999, 'a'), printf('%.*c', 49999, 'a') || 'b')"  # about 0.2 s


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    path = tmp_path_factory.mktemp("pool") / "numbers.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE n (i INTEGER)")
        connection.executemany("INSERT INTO n VALUES (?)", [(i,) for i in range(100)])
    connection.close()
    return str(path)


def ask(sql, gold, db, **options):
    return compute_score("", f"```sql\n{sql}\n```", gold, {"db": db}, **options)


def outcomes(results):
    return [result["outcome"] for result in results]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def descendants(pid):
    """Process ids below pid, from the kernel's own lists."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def wait_until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.02)


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
        workers |= {w.process.pid for key, pool in _sql_pool._pools.items() if key[1] == 1
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
import os, rewards._sql_worker as w
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


def script(body):
    head = f"""
        import asyncio, os, sys, time
        sys.path.insert(0, {str(ROOT)!r})
        from rewards.sql import compute_score
        LOOP = {LOOP!r}

        def ask(sql, db, **options):
            return compute_score("", f"```sql\\n{{sql}}\\n```", "SELECT 1", {{"db": db}}, **options)
    """
    return textwrap.dedent(head) + textwrap.dedent(body)


@pytest.fixture
def spawn(db):
    """Start a script on the database; its output is closed, and it is gone, after the test."""
    started = []

    def start(body, python=sys.executable):
        command = [python, "-c", script(body), db]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("busy", [False, True])
def test_workers_die_with_a_killed_parent(spawn, busy):
    body = f"""
        async def main():
            await ask("SELECT 1", sys.argv[1])
            if {busy}:
                asyncio.ensure_future(ask(LOOP, sys.argv[1], timeout_s=60))
            print("ready", flush=True)
            await asyncio.sleep(60)

        asyncio.run(main())
    """
    parent = spawn(body)
    assert parent.stdout.readline() == "ready\n"
    time.sleep(0.1)
    children = descendants(parent.pid)
    assert len(children) >= 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_until(lambda: not any(map(alive, children)), 3)


def test_workers_die_though_a_forked_child_holds_the_pipes(spawn):
    body = """
        async def main():
            await ask("SELECT 1", sys.argv[1])

        asyncio.run(main())
        child = os.fork()
        if child == 0:
            os.close(1)
            time.sleep(60)
        print(child, flush=True)
        time.sleep(60)
    """
    parent = spawn(body)
    child = int(parent.stdout.readline())
    children = [pid for pid in descendants(parent.pid) if pid != child]
    assert len(children) >= 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    try:
        wait_until(lambda: not any(map(alive, children)), 4)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_forked_child_gets_workers_of_its_own(spawn):
    body = """
        first = asyncio.run(ask("SELECT 1", sys.argv[1]))
        sys.stdout.flush()
        child = os.fork()
        result = asyncio.run(ask("SELECT 1 -- after", sys.argv[1]))
        print(result["outcome"], flush=True)
        if child:
            os.waitpid(child, 0)
    """
    parent = spawn(body)
    output, _ = parent.communicate(timeout=20)
    assert output.split() == ["match", "match"] and parent.returncode == 0


def test_nothing_is_left_after_exit(spawn):
    body = """
        print(asyncio.run(ask("SELECT 1", sys.argv[1]))["outcome"], flush=True)
        for pid in os.listdir("/proc"):
            if pid.isdigit():
                try:
                    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
                except OSError:
                    continue
                if int(fields[1]) == os.getpid():
                    print(pid)
    """
    parent = spawn(body)
    output, _ = parent.communicate(timeout=20)
    outcome, *workers = output.split()
    assert outcome == "match" and workers and parent.returncode == 0
    assert not any(alive(int(pid)) for pid in workers)


def test_a_worker_is_the_standard_library_and_nothing_else(db):
    async def run():
        await ask("SELECT 1", "SELECT 1", db, workers=1)
        return _sql_pool.pool_of(1, 1024 << 20).workers[0].process.pid

    supervisor = asyncio.run(run())
    for pid in (supervisor, *descendants(supervisor)):
        assert "site-packages" not in Path(f"/proc/{pid}/maps").read_text()
        kib = Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]
        assert int(kib) < 40_000
    code = "import sys, rewards.sql; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert not {"torch", "verl", "numpy", "tqdm", "pyarrow"} & set(modules.stdout.split())


OTHER_PYTHONS = [
    path
    for version in ("3.10", "3.12")
    for path in sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))[:1]
]


@pytest.mark.parametrize("python", OTHER_PYTHONS or [None], ids=str)
def test_other_python_versions(spawn, python):
    if python is None:
        pytest.skip("no Python 3.10 or 3.12 in ~/.pyenv/versions")
    body = """
        async def main():
            queries = [
                "SELECT 1", "SELECT " + "1+" * 300 + "1", "SELECT 1" + " UNION SELECT 1" * 200,
                "SELECT 1; SELECT 2", "SELECT '\\ud800'", "SELECT 1\\0", "DROP TABLE n",
                "SELECT 'a' LIKE '" + "%a" * 300 + "'", "SELECT count(*) FROM n -- ;", LOOP,
            ]
            return await asyncio.gather(*(ask(q, sys.argv[1], timeout_s=0.2) for q in queries))

        print(*(result["outcome"] for result in asyncio.run(main())))
    """
    output, _ = spawn(body, str(python)).communicate(timeout=30)
    assert output.split() == [
        "match", "limit", "limit", "multiple_statements", "syntax_error", "syntax_error",
        "forbidden", "limit", "mismatch", "timeout",
    ]  # fmt: skip
