"""Questions about checkpoints, asked as those of questions.py: verl's own loops and data loaders, on models that do
nothing. A run is cut by an error; the next start is a new trainer on what the first one left in the folder."""

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

ROWS, BATCH = 7, 2  # of an epoch: three whole batches, and a row that is left over
EPOCH = ROWS // BATCH


class Cut(Exception):
    """What ends a start."""


def process_group() -> None:
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)


class Model:
    """The engine, the client and the workers of a trainer. Its checkpoints are kept as verl keeps them."""

    def __init__(self):
        from verl.utils.checkpoint.checkpoint_manager import BaseCheckpointManager

        process_group()
        self.manager = BaseCheckpointManager(None, None)

    def save_checkpoint(self, local_path, hdfs_path=None, global_step=0, max_ckpt_to_keep=None):
        self.manager.ensure_checkpoint_capacity(max_ckpt_to_keep)
        Path(local_path).mkdir(parents=True, exist_ok=True)
        (Path(local_path) / "model.pt").write_text(str(global_step))
        self.manager.register_checkpoint(local_path, max_ckpt_to_keep)

    def load_checkpoint(self, local_path, **_):
        assert (Path(local_path) / "model.pt").exists()

    def __getattr__(self, name):  # is_mp_src_rank_with_outputs, start_profile, update_weights, ...
        numbers = {"get_data_parallel_rank": 0, "get_data_parallel_size": 1}
        return lambda *_, **__: numbers.get(name, name.startswith("is_") or None)


def logged(folder: Path) -> list[int]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def sft_start(
    folder: Path, epochs: int, workers: int, stop: int, **trainer_config
) -> list[list[int]]:
    """One start of verl's SFT in a folder; returns the rows of each step."""
    import torch
    from omegaconf import OmegaConf
    from verl.trainer import sft_trainer
    from verl.utils import tensordict_utils as tu

    trainer, seen, model = sft_trainer.SFTTrainer.__new__(sft_trainer.SFTTrainer), [], Model()

    def train_batch(data):
        seen.append(data["input_ids"].values().tolist()[::2])  # two tokens a row
        return tu.get_tensordict({}, {"metrics": {"loss": 0.5}})

    os.environ["VERL_FILE_LOGGER_PATH"] = str(folder / "metrics.jsonl")
    data = {"train_batch_size": BATCH, "num_workers": workers, "pad_mode": "no_padding", "use_dynamic_bsz": True,
            "max_token_len_per_gpu": 99, "micro_batch_size_per_gpu": 1}  # fmt: skip
    run = {"default_local_dir": str(folder), "max_ckpt_to_keep": 2, "total_epochs": epochs, "save_freq": 1,
           "test_freq": -1, "total_training_steps": None, "project_name": "p", "experiment_name": "e",
           "logger": ["file"], "profile_interval": [-1, -1]}  # fmt: skip
    config = {"data": data, "trainer": run | trainer_config, "model": {"use_remove_padding": True}}
    trainer.config = OmegaConf.create(config)
    rows = [torch.tensor([row, row]) for row in range(ROWS)]
    trainer.train_dataset = [
        {"input_ids": row, "loss_mask": row, "position_ids": row} for row in rows
    ]
    trainer.val_dataset, trainer.rank, trainer.device_name = None, 0, "cpu"
    trainer.engine, trainer.model_config = (
        model,
        SimpleNamespace(tokenizer=SimpleNamespace(pad_token_id=0)),
    )
    trainer.optimizer_config = SimpleNamespace()
    trainer.start_profile_step = trainer.end_profile_step = -1
    trainer.training_client = SimpleNamespace(
        train_batch=train_batch, reset=lambda: None, step_profile=lambda: None
    )
    with mock.patch.object(sft_trainer, "get_device_name", lambda: "cpu"):
        trainer._build_dataloader()
    trainer._init_engine()
    trainer._build_ckpt_handler()
    trainer.resume_global_step = trainer.ckpt_handler.load_checkpoint()
    save = trainer.ckpt_handler.save_checkpoint

    def save_checkpoint(step):
        save(step)
        if step == stop:
            raise Cut

    trainer.ckpt_handler.save_checkpoint = save_checkpoint
    cuda = {
        "aggressive_empty_cache": mock.DEFAULT,
        "log_gpu_memory_usage": mock.DEFAULT,
    }  # verl's default device
    with mock.patch.multiple(sft_trainer, **cuda), suppress(Cut):
        trainer.fit()
    return seen


def sft_cut():
    """Cut behind each step of two epochs: whether the rows of all are those of a run without a cut."""
    with tempfile.TemporaryDirectory() as place:
        whole = sft_start(Path(place), 2, 0, stop=0)
    assert len(whole) == 2 * EPOCH and whole[:EPOCH] != whole[EPOCH:]
    found = []
    for cut in range(1, 2 * EPOCH + 1):
        with tempfile.TemporaryDirectory() as place:
            first = sft_start(Path(place), 2, 0, stop=cut)
            found.append(first + sft_start(Path(place), 2, 0, stop=0) == whole)
    return found


def sft_tokens():
    """The tokens so far at each step of a run that was cut behind its second one, and of one without a cut."""
    found = []
    for starts in ((2, 0), (0,)):
        with tempfile.TemporaryDirectory() as place:
            for stop in starts:
                sft_start(Path(place), 1, 0, stop=stop)
            lines = (Path(place) / "metrics.jsonl").read_text().splitlines()
            found.append([json.loads(line)["data"]["train/total_tokens(B)"] for line in lines])
    return found


def sft_with_more_epochs():
    """Rows of a run of one epoch that gets a second one, and of one with both from the start; 0 and 2 workers read."""
    found = []
    for workers in (0, 2):
        with tempfile.TemporaryDirectory() as place:
            found.append(
                [
                    row
                    for epochs in (1, 2)
                    for row in sft_start(Path(place), epochs, workers, stop=0)
                ]
            )
    with tempfile.TemporaryDirectory() as place:
        return [*found, sft_start(Path(place), 2, 0, stop=0)]


def sft_kept():
    """The checkpoints after three starts, with a limit of 2 and with one of 1."""
    found = []
    for limit in (2, 1):
        with tempfile.TemporaryDirectory() as place:
            for stop in (2, 4, 6):
                sft_start(Path(place), 2, 0, stop=stop, max_ckpt_to_keep=limit)
            found.append(sorted(path.name for path in Path(place).glob("global_step_*")))
    return found


def settings_of_a_start():
    """Learning rate and weight decay after a checkpoint of others is loaded, and the rate of its schedule's step."""
    import torch
    from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager

    process_group()

    def start(lr: float, decay: float, steps: int):
        model = torch.nn.Linear(2, 1)
        model.config = SimpleNamespace(save_pretrained=lambda folder: None)
        model.can_generate = lambda: False
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
        contents = ["model", "optimizer", "extra"]
        config = {"save_contents": contents, "load_contents": contents}
        manager = FSDPCheckpointManager(model, optimizer, schedule, checkpoint_config=config)
        return manager, optimizer, schedule

    def step(optimizer, schedule):
        optimizer.zero_grad()
        optimizer.param_groups[0]["params"][0].sum().backward()
        optimizer.step()
        schedule.step()

    with tempfile.TemporaryDirectory() as place:
        manager, optimizer, schedule = start(1.0, 0.5, 4)
        step(optimizer, schedule)
        manager.save_checkpoint(place)
        found = {}
        for name, said in {"same": (1.0, 0.5, 4), "other": (2.0, 0.25, 8)}.items():
            manager, optimizer, schedule = start(*said)
            manager.load_checkpoint(place)
            group = optimizer.param_groups[0]
            now = [group["lr"], group["weight_decay"], schedule.get_last_lr()[0]]
            step(optimizer, schedule)
            found[name] = [*now, group["lr"], len(optimizer.state)]
    return found


def spared():
    """With a limit of 1: what is there when a new checkpoint is registered, before its tracker is written."""
    with tempfile.TemporaryDirectory() as place:
        model = Model()
        for step in (1, 2):
            model.save_checkpoint(f"{place}/global_step_{step}", max_ckpt_to_keep=1)
        return sorted(path.name for path in Path(place).iterdir())


class Prompts:
    """Takes the prompts of each step, as the agent loops do."""

    def __init__(self):
        self.rows: list[list[int]] = []

    def generate_sequences(self, batch) -> None:
        self.rows.append([int(row) for row in batch["row"]])


def rl_start(folder: Path, steps: int, stop: str = "", at: int = 0, **changes) -> tuple[dict, dict]:
    """One start of verl's RL trainer in a folder: {step: its rows}, and what is called where it is cut.

    Args:
        stop: where an error ends it in step `at`: "validate" (after the save, before the log), "log" (behind it),
            "step" (before the save).
    """
    from omegaconf import OmegaConf
    from transfer_queue import KVBatchMeta
    from verl.trainer.ppo.v1 import trainer_base
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

    os.environ["VERL_FILE_LOGGER_PATH"] = str(folder / "metrics.jsonl")
    config = OmegaConf.load(
        Path(trainer_base.__file__).parents[2] / "config/_generated_ppo_trainer.yaml"
    )
    config.merge_with({
        "data": {"train_batch_size": BATCH, "dataloader_num_workers": 0, "seed": 3, "val_batch_size": None},
        "algorithm": {"adv_estimator": "grpo"},
        "trainer": {"default_local_dir": str(folder), "total_epochs": 99, "total_training_steps": steps,
                    "save_freq": 1, "test_freq": 2, "logger": ["file"], "val_before_train": False,
                    "max_actor_ckpt_to_keep": 2, "nnodes": 1, "n_gpus_per_node": 1},
    })  # fmt: skip
    config.merge_with(OmegaConf.from_dotlist([f"{key}={value}" for key, value in changes.items()]))
    rows = [{"raw_prompt": [], "row": row} for row in range(ROWS)]
    queue = mock.Mock(kv_list=lambda *_: {})
    with mock.patch.multiple(trainer_base, create_rl_dataset=lambda *_, **__: rows, tq=queue):
        trainer, prompts = PPOTrainerSync(config), Prompts()
        trainer.tokenizer = trainer.processor = None
        trainer._init_dataloader()
        trainer._init_dump_executor()
        trainer.actor_rollout_wg, trainer.checkpoint_manager = Model(), Model()
        trainer.reward_loop_manager = trainer.resource_pool_manager = Model()

        def cut(place: str) -> None:
            if place == stop and trainer.global_steps == at:
                raise Cut

        def step_once(metrics, timing_raw, sample_batch_size):
            cut("step")
            metrics["actor/loss"] = float(trainer.global_steps)
            return KVBatchMeta(partition_id="train", keys=["a"], tags=[{}])

        def compute_metrics(batch, metrics, timing_raw, global_steps, epoch):
            assert timing_raw["step"] > 0
            metrics |= {"training/global_step": global_steps, "training/epoch": epoch}

        def validate():
            cut("validate")
            return {"val-core/x": float(trainer.global_steps)}

        trainer._step_once, trainer._compute_metrics, trainer._validate = (
            step_once,
            compute_metrics,
            validate,
        )
        clear = queue.kv_clear
        clear.side_effect = lambda **_: cut("clear")
        trainer._load_checkpoint()
        begin = trainer.global_steps
        with suppress(Cut):
            trainer.fit(prompts)
        trainer._shutdown_dump_executor()
        trainer.logger.finish()
        controller = getattr(trainer, "kl_ctrl_in_reward", None)
        return {begin + i: rows for i, rows in enumerate(prompts.rows, 1)}, {
            "kl": controller and controller.value
        }


def metrics_of(folder: Path) -> dict[int, dict]:
    from launcher.metrics import read_metrics

    return read_metrics(folder / "metrics.jsonl")


def rl_cut():
    """Cut at each step in each place: what is another than without a cut ("STEP PLACE: WHAT")."""
    steps, other = 2 * EPOCH, []
    with tempfile.TemporaryDirectory() as place:
        whole, _ = rl_start(Path(place), steps)
        figures = metrics_of(Path(place))
    assert len(whole) == steps and sorted(figures) == list(range(1, steps + 1))
    for at in (EPOCH, EPOCH + 1):
        for stop in ("step", "validate", "clear"):
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place)
                first, _ = rl_start(folder, steps, stop, at)
                again, _ = rl_start(folder, steps)
                if {**first, **again} != whole:
                    other.append(f"{at} {stop}: rows")
                if metrics_of(folder) != figures:
                    other.append(f"{at} {stop}: metrics")
    return other


def saved_not_logged():
    """[the step of the tracker, the last one of the metrics] where a validation ends the run."""
    with tempfile.TemporaryDirectory() as place:
        rl_start(Path(place), EPOCH, "validate", at=2)
        tracker = Path(place) / "latest_checkpointed_iteration.txt"
        return [int(tracker.read_text()), max(metrics_of(Path(place)))]


def rl_kept():
    """The checkpoints after three starts with a limit of 2, and what is in them."""
    with tempfile.TemporaryDirectory() as place:
        for steps in (2, 4, 7):
            rl_start(Path(place), steps)
        return sorted(str(path.relative_to(place)) for path in Path(place).glob("global_step_*/*"))


def kl_coefficient():
    """An adaptive coefficient before and after a cut."""
    adaptive = {"algorithm.use_kl_in_reward": True, "algorithm.kl_ctrl.type": "adaptive"}
    with tempfile.TemporaryDirectory() as place:
        from verl.trainer.ppo.core_algos import AdaptiveKLController

        with mock.patch.object(
            AdaptiveKLController, "__init__", lambda self, *_, **__: setattr(self, "value", 0.7)
        ):
            rl_start(Path(place), 2, **adaptive)
        _, found = rl_start(Path(place), 2, **adaptive)
        return found["kl"]


def events():
    """The steps that TensorBoard's reader shows of a run that made steps 0 to 3, and 2 to 4 when it went on."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from verl.utils.tracking import Tracking

    with tempfile.TemporaryDirectory() as place:
        env = {"TENSORBOARD_DIR": f"{place}/tb", "VERL_FILE_LOGGER_PATH": f"{place}/metrics.jsonl"}
        with mock.patch.dict(os.environ, env):
            for made in (range(4), range(2, 5)):
                tracking = Tracking("p", "e", default_backend=["tensorboard", "file"])
                for step in made:
                    tracking.log({"x": float(step)} | ({"val": 1.0} if made[0] == 0 else {}), step)
                tracking.finish()
        reader = EventAccumulator(f"{place}/tb")
        reader.Reload()
        return {name: [event.step for event in reader.Scalars(name)] for name in ("x", "val")}


def half_a_line():
    """The steps that are read of a file whose first writer was killed in the middle of a line."""
    from verl.utils.tracking import FileLogger

    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "metrics.jsonl"
        file.write_text('{"step": 1, "data": {}}\n{"step": 2, "da')
        with mock.patch.dict(os.environ, {"VERL_FILE_LOGGER_PATH": str(file)}):
            logger = FileLogger("p", "e")
            logger.log({"x": 1}, 2)
            logger.finish()
        return sorted(metrics_of(Path(place)))


QUESTIONS = [
    sft_cut, sft_tokens, sft_with_more_epochs, sft_kept, settings_of_a_start, spared, rl_cut, saved_not_logged, rl_kept,
    kl_coefficient, events, half_a_line,
]  # fmt: skip
