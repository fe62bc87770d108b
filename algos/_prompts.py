"""The prompts of a job that samples: which they are, how many answers each gets, and verl's config for it.

The job is verl's validation (`trainer.val_only`). Each answer wanted is a row of its data with a
`row_id` KIND-PROMPT-ANSWER; plugins/rollout/sampling.py samples it as its kind says ("train" or "val") and
writes the id beside the answer.
"""

import itertools
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import DictConfig


def read(files, max_samples: int, data: DictConfig) -> pa.Table:
    """The rows that verl would read: all, or `max_samples` of them, chosen as its RLHFDataset does."""
    files = [files] if isinstance(files, str) else list(files)
    table = pa.concat_tables([pq.read_table(file) for file in files], promote_options="permissive")
    if not 0 < max_samples < len(table):
        return table
    few = np.arange(max_samples)
    if data.shuffle:
        few = np.random.default_rng(data.seed).choice(len(table), max_samples, replace=False)
    return table.take(few)


def share(rows: int, size: int, number: int, seed: int) -> list[int]:
    """Numbers of the rows for round `number` (from 1): `size` of `rows`, each epoch in a new order."""
    epochs = (random.Random(f"{seed} {e}").sample(range(rows), rows) for e in itertools.count())
    order = itertools.chain.from_iterable(epochs)
    return list(itertools.islice(order, (number - 1) * size, number * size))


def round_seed(seed: int, number: int) -> int:
    """The seed of the answers of round `number`: a round is a run of its own, and must not draw what another drew."""
    return random.Random(f"answers {seed} {number}").randrange(2**31)


def write(folder: Path, asked: dict[str, tuple[pa.Table, int]], seed: int) -> dict:
    """Write what to sample; returns what that changes in the config of trainer=rl.

    Args:
        folder: of the job.
        asked: prompts, and answers to each, by kind.
        seed: of the answers.
    """
    tables = []
    for kind, (rows, n) in asked.items():
        ids = [f"{kind}-{row}-{answer}" for row in range(len(rows)) for answer in range(n)]
        again = rows.take(np.repeat(np.arange(len(rows)), n))
        tables.append(again.append_column("row_id", [ids]))
    file = folder.with_suffix(".parquet")
    file.parent.mkdir(exist_ok=True)
    pq.write_table(pa.concat_tables(tables, promote_options="permissive"), file)
    workers = "${lab.mul:${trainer.nnodes},${trainer.n_gpus_per_node}}"  # the least that verl takes
    manager = {"agent_loop_manager_class": "plugins.rollout.sampling.SamplingManager"}
    files = {"train_files": str(file), "val_files": str(file)}  # verl wants both
    return {
        "lab": {"trainer": {"entry": "verl.trainer.main_ppo", "unused": []}},
        "data": files
        | {"train_max_samples": -1, "val_max_samples": -1, "train_batch_size": workers},
        "trainer": {"val_before_train": True, "val_only": True, "total_training_steps": 1},
        "actor_rollout_ref": {
            "rollout": {"val_kwargs": {"n": 1}, "agent": manager, "seed": seed},
            "actor": {"ppo_mini_batch_size": "${data.train_batch_size}"},
        },
    }
