"""The preference pairs of a round of self-play: made of its answers, written for its DPO."""

import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import DictConfig, OmegaConf

from data_prep import _schema
from data_prep._ranking import best_with_worst
from launcher.stages import StageError


def make_pairs(groups: list[list[dict]], pairs_per_prompt: int, margin: float):
    """Preference rows of a round, and their counts.

    Args:
        groups: the answers to each prompt: lines with `prompt`, `output`, `score`, `masked`.

    Returns:
        rows {prompt, chosen, rejected} of messages; counts for the metrics.

    Raises StageError if there is not a single pair.
    """
    rows, without = [], 0
    for lines in groups:
        answers = [(x["output"], math.nan if x.get("masked") else x["score"]) for x in lines]
        pairs, _ = best_with_worst(answers, pairs_per_prompt, margin)
        without += not pairs
        rows += [_schema.preference_row(lines[0]["prompt"], *texts) for texts in pairs]
    if not rows:
        raise StageError(f"no pairs: no two answers to any of {len(groups)} prompts differ in their reward by more"
                         f" than self_play.margin={margin}. The answers are in rollouts/.")  # fmt: skip
    return rows, {"prompts": len(groups), "pairs": len(rows), "prompts_without_pair": without}


def write_pairs(folder: Path, rows: list[dict], config: DictConfig) -> DictConfig:
    """Write preference rows beside the folder of their DPO; returns its changes of algo=dpo."""
    options, trainer, file = config.self_play, config.trainer, folder.with_name("pairs.parquet")
    pq.write_table(pa.Table.from_pylist(rows, _schema.arrow("preference")), file)
    wanted = OmegaConf.merge({
        "dpo": {"beta": options.beta},
        "data": {"train_batch_size": config.lab.hw.sft_batch_size},
        "optim": {"lr": options.lr},
        "trainer": {"total_epochs": options.epochs},
    }, options.train)  # fmt: skip
    # verl drops the rest of an epoch: equal steps of at most the wanted size lose the fewest pairs
    workers = trainer.nnodes * trainer.n_gpus_per_node
    steps = math.ceil(len(rows) / wanted.data.train_batch_size)
    batch = max(len(rows) // steps // workers, 1) * workers
    files = {"train_files": str(file), "val_files": None, "train_batch_size": batch}
    return OmegaConf.merge(wanted, {"data": files, "trainer": {"test_freq": -1}})
