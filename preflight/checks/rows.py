"""The data itself, where the reward can check it: reference answers that don't run, databases that are missing."""

import json
from pathlib import Path

from omegaconf import DictConfig

from preflight.facts import columns_of, data_files
from preflight.reward_function import options_fault, own_reward

BATCH = 1000


def rows_of(file: str):
    """Rows of a parquet file as dicts, without loading all of it."""
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(file).iter_batches(BATCH, columns=["reward_model", "extra_info"]):
        yield from batch.to_pylist()


def check_rows(config: DictConfig) -> str | None:
    """Let a reward of ours look at every row, once for each state of the file."""
    found = own_reward(config) if config.lab.check_data and not options_fault(config) else None
    if found is None or not hasattr(found[0], "row_faults"):
        return None
    reward, options = found
    path = f"pkg://{reward.__name__}"
    for file in data_files(config):
        if columns_of(file) is None:
            continue  # another check says so
        state = [Path(file).stat().st_size, Path(file).stat().st_mtime_ns, path, options]
        seen = Path(file).with_suffix(".checked.json")
        if seen.is_file() and json.loads(seen.read_text()) == state:
            continue
        try:
            faults = reward.row_faults(rows_of(file), **options)
        except ValueError as error:  # a driver that is not installed
            return f"{file}: {error}"
        if faults:
            first = "; ".join(str(fault) for fault in faults[:2])
            return f"{file}: {len(faults)} rows can't be graded: {first}. With lab.check_data=false the run masks them."
        seen.write_text(json.dumps(state))
    return None
