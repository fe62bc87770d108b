"""Patches of verl 0.9.1: a run that was cut and goes on is the run without a cut. One function a patch."""

import functools
import os
import time
from pathlib import Path

from launcher import checkpoints
from launcher.metrics import read_metrics

FIGURES = (
    "metrics.json"  # in a checkpoint's folder: the metrics of its step, which verl logs after it
)
MADE = "training/global_step"  # a metric of a step that was made, and not of a validation alone
TOKENS = "train/total_tokens(B)"


def known(step: int) -> dict:
    """What metrics.jsonl has of a step."""
    file = os.getenv("VERL_FILE_LOGGER_PATH")
    return read_metrics(Path(file)).get(step, {}) if file else {}


def begin_next_epoch(checkpoint_handler) -> None:
    """verl/utils/checkpoint/checkpoint_handler.py:161 restores the data's state always (verl issue 7401).

    That of an epoch's last step says that all its rows were read. SFTTrainer.fit begins the next epoch with it,
    which so has none: total_epochs=2 ends without an update, and with more epochs one is left out. The next epoch
    begins anew instead.
    """
    handler = checkpoint_handler.CheckpointHandler
    load = handler._load_dataloader_state

    @functools.wraps(load)
    def _load_dataloader_state(self, checkpoint_path):
        if self.resume_global_step % len(self.train_dataloader):
            load(self, checkpoint_path)

    handler._load_dataloader_state = _load_dataloader_state


def count_tokens_on(tracking) -> None:
    """verl/trainer/sft_trainer.py:405, fit: train/total_tokens(B) begins again at 0 in a run that goes on."""
    tracker = tracking.Tracking
    log = tracker.log

    @functools.wraps(log)
    def log_step(self, data, step, *args, **kwargs):
        if TOKENS in data:
            if not hasattr(self, "tokens_before"):
                self.tokens_before = known(step - 1).get(TOKENS, 0.0)
            tokens = round((self.tokens_before + data[TOKENS]) * 1e9)
            data = {**data, TOKENS: tokens / 1e9}  # as verl writes it
        log(self, data, step, *args, **kwargs)

    tracker.log = log_step


def keep_settings(fsdp_checkpoint_manager) -> None:
    """verl/utils/checkpoint/fsdp_checkpoint_manager.py:225,242, load_checkpoint: settings come with the state.

    torch's optimizer and scheduler save the learning rate, the weight decay and the like, too, so a run that goes
    on has those that it began with, whatever its config says now, and its first step the rate of a schedule
    that may be another one now. The config's settings count; with the same config nothing is different.
    """
    manager = fsdp_checkpoint_manager.FSDPCheckpointManager
    load = manager.load_checkpoint

    @functools.wraps(load)
    def load_checkpoint(self, *args, **kwargs):
        groups = getattr(self.optimizer, "param_groups", [])
        settings = [{k: v for k, v in group.items() if k != "params"} for group in groups]
        rates = list(getattr(self.lr_scheduler, "base_lrs", []))
        load(self, *args, **kwargs)
        for group, said in zip(getattr(self.optimizer, "param_groups", []), settings, strict=True):
            group.update(said)
        factors = getattr(self.lr_scheduler, "lr_lambdas", None)
        if factors and self.should_load_extra:
            scheduler = self.lr_scheduler
            scheduler.base_lrs = rates
            now = [rate * f(scheduler.last_epoch) for rate, f in zip(rates, factors, strict=True)]
            scheduler._last_lr = now
            for group, rate in zip(self.optimizer.param_groups, now, strict=True):
                group["lr"] = rate

    manager.load_checkpoint = load_checkpoint


def spare_last(checkpoint_manager) -> None:
    """verl/utils/checkpoint/checkpoint_manager.py:181, register_checkpoint: a limit of 1 removes the last one at once.

    The new one is not whole by then: critic, data and tracker come later. What ends a run in between leaves it without
    a checkpoint. `remove_old` of launcher/checkpoints.py removes it when the tracker names the new one.
    """
    manager = checkpoint_manager.BaseCheckpointManager
    register = manager.register_checkpoint

    @functools.wraps(register)
    def register_checkpoint(self, new_path, max_ckpt_to_keep):
        register(self, new_path, 2 if max_ckpt_to_keep == 1 else max_ckpt_to_keep)

    manager.register_checkpoint = register_checkpoint


def limit_sft(checkpoint_handler) -> None:
    """verl/utils/checkpoint/checkpoint_manager.py:190 knows the checkpoints of this start alone.

    So those of the starts before stay for ever, whatever trainer.max_ckpt_to_keep says.
    """
    handler = checkpoint_handler.CheckpointHandler
    save = handler.save_checkpoint

    @functools.wraps(save)
    def save_checkpoint(self, step):
        save(self, step)
        if self.rank == 0:
            limits = {".": self.max_ckpt_to_keep}
            checkpoints.remove_old(Path(self.default_local_dir), step, limits)

    handler.save_checkpoint = save_checkpoint


def limit_rl(trainer_base) -> None:
    """The same in verl/trainer/ppo/v1/trainer_base.py:948; and of those that were removed, data.pt stays there."""
    trainer = trainer_base.PPOTrainer
    save = trainer._save_checkpoint

    @functools.wraps(save)
    def _save_checkpoint(self):
        save(self)
        said, folder = self.config.trainer, Path(self.config.trainer.default_local_dir)
        if checkpoints.tracked(folder) == self.global_steps:  # else it is still being written
            limits = {"actor": said.max_actor_ckpt_to_keep, "critic": said.max_critic_ckpt_to_keep}
            checkpoints.remove_old(folder, self.global_steps, limits)

    trainer._save_checkpoint = _save_checkpoint


def keep_figures(trainer_base) -> None:
    """verl/trainer/ppo/v1/trainer_base.py:480, fit: saves a step, sends the weights, validates, and then logs it.

    A run that ends in between goes on with the next step, and this one has neither metrics nor rollouts. So the
    metrics lie in the checkpoint, too, and who goes on from it logs them if that was not done; a validation
    that was due is made then.
    """
    trainer = trainer_base.PPOTrainer
    step, save, dump = trainer.step, trainer._save_checkpoint, trainer._log_rollout_data
    reissue = trainer._reissue_inflight_prompts

    @functools.wraps(step)
    def made(self, metrics, timing_raw):
        begin = time.perf_counter()
        batch = step(self, metrics, timing_raw)
        self.unlogged = batch, metrics, begin
        return batch

    @functools.wraps(save)
    def _save_checkpoint(self):
        import orjson  # as verl's own logger writes them

        batch, metrics, begin = self.unlogged
        figures, times = dict(metrics), dict(self.timing_raw)
        times["step"] = time.perf_counter() - begin
        at = {"global_steps": self.global_steps}
        epoch = (self.global_steps - 1) // self.steps_per_epoch
        self._compute_metrics(batch, figures, times, epoch=epoch, **at)
        figures.pop(trainer_base.DAPO_FILTERED_REWARD_COUNTS_KEY, None)
        file = figures_of(self, self.global_steps)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(orjson.dumps(figures, option=orjson.OPT_SERIALIZE_NUMPY))
        if folder := self.config.trainer.get("rollout_data_dir", None):
            self._log_rollout_data(batch, times, folder)
        save(self)

    @functools.wraps(dump)
    def _log_rollout_data(self, batch, timing_raw, rollout_data_dir):
        if getattr(self, "dumped", None) != self.global_steps:
            dump(self, batch, timing_raw, rollout_data_dir)
            self.dumped = self.global_steps

    @functools.wraps(reissue)
    def _reissue_inflight_prompts(self, *args, **kwargs):
        """The first thing that fit does when its loggers are there and the first step is still to be made."""
        log_last_step(self, self.global_steps - 1)
        return reissue(self, *args, **kwargs)

    trainer.step, trainer._save_checkpoint = made, _save_checkpoint
    trainer._log_rollout_data = _log_rollout_data
    trainer._reissue_inflight_prompts = _reissue_inflight_prompts


def figures_of(trainer, step: int) -> Path:
    """The file of the metrics of a step that was saved."""
    folder = Path(trainer.config.trainer.default_local_dir)
    return folder / f"global_step_{step}" / FIGURES


def log_last_step(trainer, step: int) -> None:
    """Log the step that a trainer goes on from, and validate it, if its run ended before it had done so."""
    import orjson

    file, every = figures_of(trainer, step), trainer.config.trainer.test_freq
    if not file.is_file() or MADE in known(step):
        return
    trainer.logger.log(data=orjson.loads(file.read_bytes()), step=step)
    if every > 0 and step % every == 0 and not any(k.startswith("val-") for k in known(step)):
        trainer.global_steps = step
        trainer.on_validate_begin()
        found = trainer._validate()
        trainer.on_validate_end()
        trainer.logger.log(data=found, step=step)
        trainer.global_steps = step + 1


def keep_kl_coefficient(trainer_base) -> None:
    """verl/trainer/ppo/v1/trainer_base.py:850, _load_checkpoint: an adaptive KL coefficient begins anew.

    algorithm.kl_ctrl.type=adaptive moves it with each step; it is in no checkpoint.
    """
    trainer = trainer_base.PPOTrainer
    save, load = trainer._save_checkpoint, trainer._load_checkpoint

    def file_of(self) -> Path:
        return figures_of(self, self.global_steps).with_name("kl_coefficient.txt")

    @functools.wraps(save)
    def _save_checkpoint(self):
        if controller := getattr(self, "kl_ctrl_in_reward", None):
            file_of(self).parent.mkdir(parents=True, exist_ok=True)
            file_of(self).write_text(repr(float(controller.value)))
        save(self)

    @functools.wraps(load)
    def _load_checkpoint(self):
        load(self)
        controller = getattr(self, "kl_ctrl_in_reward", None)
        if controller and self.global_steps and file_of(self).is_file():
            controller.value = float(file_of(self).read_text())

    trainer._save_checkpoint, trainer._load_checkpoint = _save_checkpoint, _load_checkpoint


def purge_events(tracking) -> None:
    """verl/utils/tracking.py:560, _TensorboardAdapter: a run that goes on begins another file of events.

    Readers of both show a step that was made again twice. TensorBoard's own mark says from which step on the
    earlier files don't count; what is known of that step is written again.
    """
    adapter = tracking._TensorboardAdapter
    log = adapter.log

    @functools.wraps(log)
    def log_step(self, data, step):
        if not hasattr(self, "begun"):
            self.begun = True
            if before := known(step):
                from tensorboard.compat.proto.event_pb2 import Event, SessionLog

                start = SessionLog(status=SessionLog.START)
                self.writer.file_writer.add_event(Event(step=step, session_log=start))
                data = {**before, **data}
        log(self, data, step)

    adapter.log = log_step
