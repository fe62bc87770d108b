"""Some rows of a dataset, the same ones each time."""

import random
from pathlib import Path

from preflight.facts import as_list, columns_of
from preflight.mistakes import near

SEED = 0


def sample(files, size: int, columns: list[str] | None = None) -> list[tuple[str, int, dict]]:
    """(file, number, row) of so many rows of each file that is there, drawn with a seed; of all columns, or of some."""
    import pyarrow.dataset as ds

    rows = []
    for file in as_list(files):
        if not Path(file).is_file() or columns_of(file) is None:
            continue  # another check says so
        data = ds.dataset(file)
        count = data.count_rows()
        some = sorted(random.Random(SEED).sample(range(count), min(size, count)))
        drawn = data.take(some, columns=columns).to_pylist()
        rows += [(near(file), n, row) for n, row in zip(some, drawn, strict=True)]
    return rows
