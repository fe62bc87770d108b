"""Worker processes of reward=sql in scripts: they end with their parent, whatever happens to it."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from helpers import ROOT
from sql_helpers import LOOP, NUMBERS, alive, ask, descendants, make_database, wait_until

from rewards._sql import pool as _sql_pool


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    return make_database(tmp_path_factory.mktemp("pool") / "numbers.sqlite", NUMBERS)


BARE = f"""
    import asyncio, os, sys, time
    sys.path.insert(0, {str(ROOT)!r})
    LOOP = {LOOP!r}
"""
HEAD = f"""{BARE}
    from rewards.sql import compute_score

    def ask(sql, db, **options):
        return compute_score("", f"```sql\\n{{sql}}\\n```", "SELECT 1", {{"db": db}}, **options)
"""


@pytest.fixture
def spawn(db):
    """Start a script on the database; its output is closed, and it is gone, after the test."""
    started = []

    def start(body, python=sys.executable, head=HEAD):
        command = [python, "-c", textwrap.dedent(head) + textwrap.dedent(body), db]
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
    # The worker runs with the standard library alone; the options' class needs pydantic.
    body = """
        from rewards._sql.task import key_of, new_task, pool_for

        class Options:
            mode, keep_distinct, shaping = "spider", True, "arctic"
            timeout_s, grace_s, reference_timeout_s = 0.2, 1.0, 30.0
            max_rows, max_bytes, memory_mib, workers = 10_000, 8_000_000, 1024, 2

        async def ask(query, db):
            key = key_of("SELECT 1", {"db": db}, Options)
            pool = pool_for(key)
            answer, _ = await (await new_task(pool, key)).run(pool, query)
            return answer if isinstance(answer, str) else answer[0]

        async def main():
            queries = [
                "SELECT 1", "SELECT " + "1+" * 300 + "1", "SELECT 1" + " UNION SELECT 1" * 200,
                "SELECT 1; SELECT 2", "SELECT '\\ud800'", "SELECT 1\\0", "DROP TABLE n",
                "SELECT 'a' LIKE '" + "%a" * 300 + "'", "SELECT count(*) FROM n -- ;", LOOP,
            ]
            return await asyncio.gather(*(ask(query, sys.argv[1]) for query in queries))

        print(*asyncio.run(main()))
    """
    output, _ = spawn(body, str(python), head=BARE).communicate(timeout=30)
    assert output.split() == [
        "match", "limit", "limit", "multiple_statements", "syntax_error", "syntax_error",
        "forbidden", "limit", "mismatch", "timeout",
    ]  # fmt: skip
