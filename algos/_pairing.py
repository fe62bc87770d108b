"""Preference pairs from scored answers.

The best answer to a prompt is paired with the worst, the second best with the second worst, and so
on (Yuan et al., arXiv:2401.10020, take the one pair of highest and lowest score of a prompt, and
leave it out if these are equal). An answer is one text: duplicates count once, with the mean
of their scores. Answers that are empty or could not be graded are left out. Equal scores keep the
order of sampling, so the same answers give the same pairs.
"""

import itertools
import math
from collections import defaultdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import DictConfig, OmegaConf

from launcher.stages import StageError

MESSAGES = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))
SCHEMA = pa.schema({"prompt": MESSAGES, "chosen": MESSAGES, "rejected": MESSAGES})


def pair(answers: list[tuple[str, float]], pairs_per_prompt: int, margin: float) -> list:
    """Pairs (better, worse) of the answers to one prompt.

    Args:
        answers: text and score of each, in the order of sampling; NaN: not graded.
        pairs_per_prompt: at most so many; no answer stands in two.
        margin: the scores of a pair differ by more than this (0 or more).
    """
    scores = defaultdict(list)
    for text, score in answers:
        if text.strip() and not math.isnan(score):
            scores[text].append(score)
    mean = {text: sum(values) / len(values) for text, values in scores.items()}
    ranked = sorted(mean, key=mean.get, reverse=True)
    pairs = zip(ranked[: len(ranked) // 2], reversed(ranked), strict=False)
    best = itertools.islice(pairs, pairs_per_prompt)
    return [(better, worse) for better, worse in best if mean[better] - mean[worse] > margin]


def make_pairs(groups: list[list[dict]], pairs_per_prompt: int, margin: float):
    """Preference rows of a round, and what there is to say of them.

    Args:
        groups: the answers to each prompt: lines with `prompt`, `output`, `score`, `masked`.

    Returns:
        rows {prompt, chosen, rejected} of messages; counts for the metrics.

    Raises StageError if there is not a single pair.
    """
    rows, without = [], 0
    for lines in groups:
        answers = [(x["output"], math.nan if x.get("masked") else x["score"]) for x in lines]
        pairs = pair(answers, pairs_per_prompt, margin)
        without += not pairs
        for texts in pairs:
            chosen, rejected = ([{"role": "assistant", "content": text}] for text in texts)
            rows.append({"prompt": lines[0]["prompt"], "chosen": chosen, "rejected": rejected})
    if not rows:
        raise StageError(f"no pairs: no two answers to any of {len(groups)} prompts differ in their reward by more"
                         f" than self_play.margin={margin}. The answers are in rollouts/.")  # fmt: skip
    return rows, {"prompts": len(groups), "pairs": len(rows), "prompts_without_pair": without}


def write_pairs(folder: Path, rows: list[dict], config: DictConfig) -> DictConfig:
    """Write preference rows beside the folder of their DPO; returns its changes of algo=dpo."""
    options, trainer, file = config.self_play, config.trainer, folder.with_name("pairs.parquet")
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), file)
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
