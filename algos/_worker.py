"""verl's worker and logger, on batches of items: sequences that stay together in a micro-batch.

Metrics are means over the whole batch, whatever the micro-batches and workers: a loss function
returns each as (sum, count), and these are added up.
"""

from itertools import chain

import torch
from verl.utils import tensordict_utils as tu
from verl.utils.tracking import Tracking
from verl.workers.engine_workers import TrainingWorker, TrainingWorkerConfig


def sums(**values: torch.Tensor) -> dict[str, tuple[float, int]]:
    """Metrics of a micro-batch: each tensor's sum and its number of elements."""
    return {name: (v.double().sum().item(), v.numel()) for name, v in values.items()}


def add_up(parts: list) -> torch.Tensor:
    """(sum, count) of any nesting of lists of such pairs."""
    return torch.tensor(parts, dtype=torch.double).reshape(-1, 2).sum(0)


class Worker(TrainingWorker):
    """verl's worker, on batches whose items are `sequences` neighbours each."""

    def __init__(self, config: TrainingWorkerConfig, sequences: int):
        super().__init__(config)
        self.sequences = sequences
        self.validated: dict[str, torch.Tensor] = {}

    def prepare(self, data) -> None:
        """Complete a batch before the loss sees it."""
        tu.assign_non_tensor(data, force_group_size=self.sequences)

    def train_batch(self, data):
        self.prepare(data)
        return super().train_batch(data)

    def infer_batch(self, data):
        self.prepare(data)
        return super().infer_batch(data)

    def _postprocess_output(self, output, *, forward_only, **kwargs):
        result = super()._postprocess_output(output, forward_only=forward_only, **kwargs)
        metrics = tu.get(result, "metrics")
        for name in [name for name, value in metrics.items() if isinstance(value, list)]:
            # a list of workers of lists of micro-batches: ragged, if a class was missing in one
            total = add_up(list(chain.from_iterable(metrics.pop(name))))
            if forward_only:
                self.validated[name] = self.validated.get(name, 0) + total
            else:
                metrics |= means({name: total}, "train")
        return result


def means(totals: dict[str, torch.Tensor], prefix: str) -> dict[str, float]:
    """What is logged of (sum, count); a metric of nothing is left out."""
    return {f"{prefix}/{k}": (total / n).item() for k, (total, n) in totals.items() if n}


class Log(Tracking):
    """verl's loggers, which also get our metrics of validation."""

    def __init__(self, worker: Worker, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.worker = worker

    def log(self, data, step, **kwargs):
        if "val/loss" in data:
            data = data | means(self.worker.validated, "val")
            self.worker.validated = {}
        super().log(data, step, **kwargs)
