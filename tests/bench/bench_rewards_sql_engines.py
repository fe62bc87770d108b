"""Speed of reward=sql by engine, beside the bare driver: `python tests/bench/bench_rewards_sql_engines.py`.

The same queries in the same order: the driver alone (one connection, execute and fetchall), then the
reward with 1 worker and with 2, reference answers cached. Every query is new text in every round. PostgreSQL and
MariaDB are started here where they are installed.
"""

import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/support")]

from sql_servers import SHOP, MariaDB, Postgres, find  # noqa: E402

from rewards._sql.pool import pools  # noqa: E402
from rewards.sql import compute_score  # noqa: E402

QUERIES, ROUNDS = 400, 5
REFERENCES = (
    "SELECT count(*) FROM item WHERE price > {}",
    "SELECT name, price FROM item WHERE id > {}",
)


def queries(number: int) -> list[str]:
    return [f"{REFERENCES[i % 2].format(i % 9)} -- {number}.{i}" for i in range(QUERIES)]


def bare_rate(connect, number: int) -> float:
    with contextlib.closing(connect()) as connection:
        cursor = connection.cursor()
        start = time.perf_counter()
        for sql in queries(number):
            cursor.execute(sql)
            cursor.fetchall()
        return QUERIES / (time.perf_counter() - start)


async def reward_rate(url: str, number: int, workers: int) -> float:
    calls = [
        compute_score("", f"```sql\n{sql}\n```", sql.split(" --")[0], {"db": url}, workers=workers)
        for sql in queries(number)
    ]
    start = time.perf_counter()
    results = await asyncio.gather(*calls)
    rate = QUERIES / (time.perf_counter() - start)
    assert {result["outcome"] for result in results} == {"match"}
    assert not any(result["cache_hit"] for result in results)
    return rate


def measure(name: str, url: str, connect) -> None:
    rates: dict[str, list[float]] = {"bare driver": [], "1 worker": [], "2 workers": []}
    run = asyncio.new_event_loop().run_until_complete
    for workers in (1, 2):
        run(reward_rate(url, -workers, workers))  # connects, runs the reference answers
    for number in range(ROUNDS):
        rates["bare driver"].append(bare_rate(connect, 3 * number))
        for workers in (1, 2):
            rate = run(reward_rate(url, 3 * number + workers, workers))
            rates[f"{workers} worker{'s' * (workers > 1)}"].append(rate)
    pools.close()
    for what, measured in rates.items():
        ratios = [a / b for a, b in zip(measured, rates["bare driver"], strict=True)]
        rate = statistics.median(measured)
        print(f"{name:12}{what:14}{rate:10.0f}{1e6 / rate:10.0f}{statistics.median(ratios):9.2f}")


def main() -> None:
    import duckdb
    import psycopg
    import pymysql

    print(f"{'':26}{'queries/s':>10}{'us/query':>10}{'of bare':>9}")
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/shop.duckdb"
        with duckdb.connect(path) as connection:
            connection.execute(SHOP)
        one = {"threads": 1}
        measure(
            "DuckDB", f"duckdb://{path}", lambda: duckdb.connect(path, read_only=True, config=one)
        )
    if initdb := find("initdb", "usr/lib/postgresql/*/bin/initdb"):
        with contextlib.closing(Postgres()) as server:
            server.set_up(initdb)
            url = server.url()
            measure("PostgreSQL", url, lambda: psycopg.connect(url, autocommit=True))
    if mariadbd := find("mariadbd", "usr/sbin/mariadbd"):
        with contextlib.closing(MariaDB()) as server:
            server.set_up(mariadbd)
            shop = {"host": "127.0.0.1", "port": server.port, "user": "reader", "database": "shop"}
            measure("MariaDB", server.url(), lambda: pymysql.connect(**shop, autocommit=True))


if __name__ == "__main__":
    main()
