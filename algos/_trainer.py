"""What the trainers of this folder add to verl's SFTTrainer (FSDP2, LoRA, checkpoints, resume).

* An item (a pair) stays together; `data.train_batch_size` counts items.
* Metrics of training and validation are means over whole batches (algos/_worker.py).
* No dropout.

A loss function gets `model_output` and `data` of one micro-batch (and `dp_group`). It returns the
loss, scaled so that the mean over workers of the sum over micro-batches is the batch's, and metrics.
"""

import json
import re
from functools import partial
from itertools import chain
from pathlib import Path
from unittest import mock

import hydra
import torch
from verl.trainer import sft_trainer
from verl.utils.device import auto_set_device
from verl.utils.distributed import destroy_global_process_group, initialize_global_process_group
from verl.utils.torch_dtypes import PrecisionType
from verl.workers.engine_workers import TrainingWorkerConfig

from algos._worker import Log, Worker
from launcher.progress import MESSAGE


class Trainer(sft_trainer.SFTTrainer):
    """A trainer on items; a subclass has a dataset, a kind of model and a loss."""

    items: type  # dataset of algos/_pairs.py
    sequences = 2  # of an item
    model_type = "value_model"
    worker = Worker
    head = ""  # what the checkpoint's architecture ends with, if verl calls it otherwise

    def loss(self):
        """The loss function."""
        raise NotImplementedError

    def _build_dataset(self):
        data = self.config.data

        def read(files, max_samples):
            dataset = self.items(files, self.model_config.tokenizer, data, max_samples)
            if self.rank == 0:
                print((MESSAGE if dataset.left_out else "") + dataset.report, flush=True)
            return dataset

        self.train_dataset = read(data.train_files, data.train_max_samples)
        self.val_dataset = data.val_files and read(data.val_files, data.val_max_samples)

    def worker_config(self, **changes) -> TrainingWorkerConfig:
        """The worker's config, as SFTTrainer makes it."""
        parts = ("model", "engine", "optimizer", "checkpoint", "profiler")
        config = {f"{part}_config": getattr(self, f"{part}_config") for part in parts}
        return TrainingWorkerConfig(model_type=self.model_type, **config | changes)

    def _build_engine(self):
        self.training_client = self.worker(self.worker_config(), self.sequences)
        self.training_client.set_loss_fn(self.loss())
        self.engine = self.training_client.engine

    def _build_dataloader(self):
        super()._build_dataloader()
        collate = self.collate_fn
        for loader in (self.train_dataloader, self.val_dataloader):
            if loader is None:
                continue
            if not len(loader):
                raise ValueError(f"less than one batch is left: {loader.dataset.report}")
            loader.collate_fn = lambda items: collate(list(chain.from_iterable(items)))

    def _init_engine(self):
        super()._init_engine()
        if self.val_dataloader is None:
            self.test_freq = -1
        for module in self.engine.module.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0  # else the policy would differ from its own reference

        save = self.engine.save_checkpoint

        def save_checkpoint(local_path, **kwargs):
            save(local_path=local_path, **kwargs)
            if self.rank == 0:
                self.correct(Path(local_path) / "huggingface" / "config.json")

        self.engine.save_checkpoint = save_checkpoint

    def correct(self, file: Path) -> None:
        """Let a checkpoint's config.json say what is in the folder."""
        config = json.loads(file.read_text())
        dtype = PrecisionType.to_dtype(self.engine_config.model_dtype)
        config["dtype"] = str(dtype).removeprefix("torch.")  # verl writes "bfloat16" always
        config["pad_token_id"] = self.model_config.tokenizer.pad_token_id
        if self.head:
            config["architectures"] = [re.sub("For.*", self.head, config["architectures"][0])]
        file.write_text(json.dumps(config, indent=2) + "\n")

    def fit(self):
        with mock.patch.object(sft_trainer, "Tracking", partial(Log, self.training_client)):
            super().fit()


def main(trainer: type[Trainer]) -> None:
    """Run a trainer on the config that the command line names, as verl's entry points do."""

    @hydra.main(config_path=None, version_base=None)
    def run(config) -> None:
        auto_set_device(config)
        initialize_global_process_group()
        trainer(config).fit()
        destroy_global_process_group()

    run()
