"""Speed of the SQL reward against bare sqlite3, side by side: `python tests/bench/bench_rewards_sql.py`.

The same queries in the same order: bare (plain pooled connections, one process, execute and
fetchall, nothing else), then the reward with 1 and with 2 workers, reference answers cached. Every query is new
text in every round (a comment with a number), so no cache of predictions or statements helps
anybody; DISTINCT is kept, so that both sides run the same SQL. Rounds alternate, and the medians of
the rates and of the ratios within a round are shown: on a shared machine only those mean anything.
The parent process has work to do too (about a quarter of a worker's): N workers need N + 1 cores to
scale fully. The databases are the acceptance data's where it lies beside the repository, else 20
small ones made here.
"""

import argparse
import asyncio
import gc
import json
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from rewards._sql.pool import pools  # noqa: E402
from rewards.sql import compute_score  # noqa: E402

REAL = ROOT.parent / "shared" / "data" / "sql"
DATABASES = 20


def real_cases() -> list[tuple[str, str, str]]:
    """(database, reference answer, prediction) of each harmless case on the 20 databases that have the most."""
    by_database: dict[str, list] = {}
    with open(REAL / "verdicts.jsonl", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if row["pred_status"] == "ok" and not row["perturbation"].startswith("multi"):
                case = (str(REAL / row["db_path"]), row["gold"], row["pred"])
                by_database.setdefault(row["db_path"], []).append(case)
    largest = sorted(by_database.values(), key=len)[-DATABASES:]
    return [case for cases in largest for case in cases]


def made_cases(folder: Path) -> list[tuple[str, str, str]]:
    chance = random.Random(0)
    cases = []
    for i in range(DATABASES):
        path = folder / f"shop_{i}.sqlite"
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, price REAL)")
            connection.execute("CREATE TABLE sale (item_id INTEGER, year INTEGER, amount INTEGER)")
            items = [(j, f"item {j}", chance.randrange(1, 100) / 4) for j in range(40)]
            sales = [(chance.randrange(40), 2000 + j % 20, chance.randrange(9)) for j in range(200)]
            connection.executemany("INSERT INTO item VALUES (?, ?, ?)", items)
            connection.executemany("INSERT INTO sale VALUES (?, ?, ?)", sales)
        connection.close()
        for price in range(5, 25, 2):
            join = "FROM item AS i JOIN sale AS s ON i.id = s.item_id"
            for reference, prediction in (
                (f"SELECT count(*) FROM item WHERE price > {price}",
                 f"SELECT count(id) FROM item WHERE NOT price <= {price}"),
                (f"SELECT name, price FROM item WHERE price < {price} ORDER BY price, id",
                 f"SELECT price, name FROM item WHERE price < {price} ORDER BY price, id"),
                (f"SELECT i.name, sum(s.amount) {join} WHERE s.year > {2000 + price} GROUP BY i.id",
                 f"SELECT i.name, count(*) {join} WHERE s.year > {2000 + price} GROUP BY i.id"),
                (f"SELECT DISTINCT year FROM sale WHERE amount = {price % 9}",
                 f"SELECT DISTINCT s.year FROM sale s WHERE s.amount IN ({price % 9})"),
            ):  # fmt: skip
                cases.append((str(path), reference, prediction))
    return list(dict.fromkeys(cases))


def bare_rate(cases: list, number: int) -> float:
    connections: dict[str, sqlite3.Connection] = {}
    for path, _, _ in cases:
        if path not in connections:
            connections[path] = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
            connections[path].execute("SELECT count(*) FROM sqlite_master").fetchall()
    queries = [(connections[path], f"{sql}\n/*{number}*/") for path, _, sql in cases]
    start = time.perf_counter()
    for connection, sql in queries:
        connection.execute(sql).fetchall()
    rate = len(cases) / (time.perf_counter() - start)
    for connection in connections.values():
        connection.close()
    return rate


async def reward_rate(cases: list, number: int, workers: int) -> float:
    calls = [
        (f"```sql\n{sql}\n/*{number}*/\n```", reference, {"db": path})
        for path, reference, sql in cases
    ]
    start = time.perf_counter()
    results = await asyncio.gather(
        *(
            compute_score("b", text, reference, info, keep_distinct=True, workers=workers)
            for text, reference, info in calls
        )
    )
    rate = len(cases) / (time.perf_counter() - start)
    assert not any(result["cache_hit"] for result in results)
    return rate


def main(argv: list[str] | None = None) -> None:
    """Measure and print; argv: options in place of the command line's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--made", action="store_true", help="made databases even where real ones are"
    )
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        real = (REAL / "verdicts.jsonl").exists() and not options.made
        cases = real_cases() if real else made_cases(Path(folder))
        random.Random(0).shuffle(cases)
        rates: dict[str, list[float]] = {"bare sqlite3": [], "1 worker": [], "2 workers": []}
        gc.disable()
        run = asyncio.new_event_loop().run_until_complete
        for workers in (1, 2):
            run(
                reward_rate(cases, -workers, workers)
            )  # starts the workers, runs the reference answers
        for number in range(options.rounds):
            rates["bare sqlite3"].append(bare_rate(cases, number))
            for workers in (1, 2):
                rate = run(reward_rate(cases, 2 * number + workers, workers))
                rates[f"{workers} worker{'s' * (workers > 1)}"].append(rate)
            gc.collect()
        pools.close()
    print(f"{len(cases)} queries on {DATABASES} {'real' if real else 'made'} databases, ", end="")
    print(f"median of {options.rounds} rounds")
    print(f"{'':14}{'queries/s':>10}{'us/query':>10}{'of bare':>9}{'lowest':>8}{'highest':>9}")
    for name, measured in rates.items():
        ratios = [a / b for a, b in zip(measured, rates["bare sqlite3"], strict=True)]
        rate = statistics.median(measured)
        print(f"{name:14}{rate:10.0f}{1e6 / rate:10.1f}{statistics.median(ratios):9.2f}"
              f"{min(ratios):8.2f}{max(ratios):9.2f}")  # fmt: skip
    scaling = [two / one for one, two in zip(rates["1 worker"], rates["2 workers"], strict=True)]
    print(f"1 to 2 workers: x{statistics.median(scaling):.2f}")


if __name__ == "__main__":
    main()
