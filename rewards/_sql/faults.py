"""Before a training: run every reference answer once on every database of its row; what is wrong, and where."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from rewards._rows import RowError, ground_truth_of, info_of
from rewards._sql.task import Task, key_of, pool_for

TASKS_AT_ONCE = 64


async def _find(rows: list, options) -> list[dict]:
    from tqdm import tqdm

    faults: list[dict] = []
    rows_of: dict[tuple, list[int]] = {}
    for index, row in enumerate(rows):
        try:
            rows_of.setdefault(key_of(ground_truth_of(row), info_of(row), options), []).append(
                index
            )
        except (RowError, AttributeError) as error:
            faults.append({"index": index, "outcome": "gold_error", "message": str(error)})
    room = asyncio.Semaphore(TASKS_AT_ONCE)
    with tqdm(total=len(rows_of), unit=" references", disable=None) as bar:

        async def prepare(key: tuple) -> None:
            task = Task(key)
            async with room:
                await task.prepare(pool_for(key))
            for outcome, message in task.faults:
                for index in rows_of[key]:
                    faults.append({"index": index, "outcome": outcome, "message": message})
            bar.update()

        await asyncio.gather(*map(prepare, rows_of))
    return sorted(faults, key=lambda fault: fault["index"])


def find(rows, options) -> list[dict]:
    """Faults of the rows under the options of rewards.sql, in row order."""
    rows = list(rows)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_find(rows, options))
    with ThreadPoolExecutor(1) as thread:  # called in a coroutine, whose loop cannot run another
        return thread.submit(asyncio.run, _find(rows, options)).result()
