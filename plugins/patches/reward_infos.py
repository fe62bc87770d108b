"""Patches of verl 0.9.1: what becomes of all that a reward returns. One function a patch, as in verl.py."""

import functools

from plugins.rollout import samples


class RewardInfos:
    """What the reward returned with each answer of a step: read from verl's queue once, for all who ask.

    One process has one trainer, which makes one step after the other.
    """

    def __init__(self):
        self.known: dict[str, dict] = {}  # by the sample's key
        self.past = False  # they are of a step whose metrics are done

    def get(self, tq, keys: list[str], partition_id: str) -> list[dict]:
        """One dict a key; {} where no reward function was called."""
        if new := [key for key in keys if key not in self.known]:
            if self.past:
                self.known.clear()
                self.past, new = False, list(keys)
            data = tq.kv_batch_get(
                keys=new, partition_id=partition_id, select_fields=["extra_fields"]
            )
            infos = (fields.get("reward_extra_info", {}) for fields in data["extra_fields"])
            self.known.update(zip(new, infos, strict=True))
        return [self.known[key] for key in keys]

    def of_batch(self, tq, batch) -> list[dict]:
        """Those of a batch of the trainer, without the samples that verl padded it with."""
        infos = self.get(tq, batch.keys, batch.partition_id)
        return [x for x, tag in zip(infos, batch.tags, strict=True) if "is_padding" not in tag]

    def forget(self) -> None:
        """At the end of a step: its dump may still ask, and the next step begins anew."""
        self.past = True


INFOS = RewardInfos()
PARTS = None  # reward_parts.Parts, from the first metrics on
WRITTEN = ("input", "output", "gts", "score", "step")  # verl's own columns of a dump


def log_parts(trainer_base) -> None:
    """verl/trainer/ppo/v1/trainer_base.py:1868, _compute_metrics: drops what a reward returns beside its score.

    Adds `reward/PART` (mean of a number) and `reward/PART/VALUE` (share of a text value). This is the
    last that a step does with its rewards.
    """
    compute_metrics = trainer_base.PPOTrainer._compute_metrics

    @functools.wraps(compute_metrics)
    def _compute_metrics(self, batch, metrics, timing_raw, global_steps, epoch):
        global PARTS
        if PARTS is None:
            from plugins.rollout.reward_parts import Parts

            PARTS = Parts()
        metrics.update(PARTS.summarize(INFOS.of_batch(trainer_base.tq, batch)))
        INFOS.forget()
        return compute_metrics(self, batch, metrics, timing_raw, global_steps, epoch)

    trainer_base.PPOTrainer._compute_metrics = _compute_metrics


def dump_parts(trainer_base) -> None:
    """verl/trainer/ppo/v1/trainer_base.py:1297, _log_rollout_data: rollouts/STEP.jsonl has the score alone.

    The dump of a validation has all parts of the reward (:1190), and so has this one then.
    """
    log = trainer_base.PPOTrainer._log_rollout_data

    @functools.wraps(log)
    def _log_rollout_data(self, batch, timing_raw, rollout_data_dir):
        infos = INFOS.get(trainer_base.tq, batch.keys, batch.partition_id)
        of_key = dict(zip(batch.keys, infos, strict=True))
        parts = dict.fromkeys(part for info in infos for part in info)
        dump = self._dump_generations

        def with_parts(reward_extra_infos_dict, **rest):
            keys = reward_extra_infos_dict["uid"]
            columns = {
                part: [of_key[key].get(part) for key in keys]
                for part in parts
                if part not in WRITTEN
            }
            dump(reward_extra_infos_dict=columns | reward_extra_infos_dict, **rest)

        self._dump_generations = with_parts
        try:
            log(self, batch, timing_raw, rollout_data_dir)
        finally:
            del self._dump_generations

    trainer_base.PPOTrainer._log_rollout_data = _log_rollout_data


def check_failed(failed: list, config) -> None:
    """RuntimeError if the reward has raised for more of these answers than `lab.reward_limits.failed_share` allows."""
    from omegaconf import OmegaConf

    from rewards._limits.calls import Limits

    most = Limits(**(OmegaConf.select(config, "lab.reward_limits") or {})).failed_share
    count = sum(map(bool, failed))
    if count > most * len(failed):
        raise RuntimeError(
            f"the reward raised for {count} of {len(failed)} answers, and lab.reward_limits.failed_share={most:g}"
            f" allows {int(most * len(failed))}. What it raised stands above."
        )


def refuse_masked_batch(trainer_base) -> None:
    """verl/trainer/ppo/v1/trainer_base.py:1634, _compute_old_log_prob: a step without a single graded answer.

    verl 0.9.1 ends in "response_mask must contain at least one valid token"
    (rollout_corr_helper.py:838), or divides by no tokens. This says whose fault it is. It also ends a run whose
    reward raises too often, which verl would not notice, here and at a validation (:1342, _val_metrics_update).
    """
    compute = trainer_base.PPOTrainer._compute_old_log_prob
    update = trainer_base.PPOTrainer._val_metrics_update

    @functools.wraps(update)
    def _val_metrics_update(self, sources, uids, infos, *args, **kwargs):
        check_failed(infos.get("failed", []), self.config)
        return update(self, sources, uids, infos, *args, **kwargs)

    trainer_base.PPOTrainer._val_metrics_update = _val_metrics_update

    @functools.wraps(compute)
    def _compute_old_log_prob(self, batch, metrics):
        infos = INFOS.of_batch(trainer_base.tq, batch)
        check_failed([info.get("failed") for info in infos], self.config)
        if infos and all(info.get("masked") for info in infos):
            why = {
                f"{k}={v}" for info in infos for k, v in info.items() if k in ("outcome", "stopped")
            }
            raise RuntimeError(
                f"none of the {len(infos)} answers of this step could be graded, so there is nothing to learn"
                f" from: {', '.join(sorted(why)) or 'their scores are NaN'}"
            )
        return compute(self, batch, metrics)

    trainer_base.PPOTrainer._compute_old_log_prob = _compute_old_log_prob


def leave_out_masked(trainer_base) -> None:
    """verl/trainer/ppo/v1/trainer_base.py:1350, _val_metrics_update: masked samples count as 0.

    A sample that could not be graded has neither reward nor accuracy: verl 0.9.1 has 0.0 for the one
    (the sum of its token rewards) and counts the other as a failed session. None is left out of means.
    """
    process = trainer_base.process_validation_metrics

    @functools.wraps(process)
    def process_validation_metrics(sources, uids, infos, *args, expected_acc_counts=None, **kwargs):
        masked = infos.get("masked", [])
        counts = dict(expected_acc_counts or {})
        if any(masked):
            rewards = zip(infos["reward"], masked, strict=True)
            infos = {**infos, "reward": [None if out else reward for reward, out in rewards]}
            for source, uid, out in zip(sources, uids, masked, strict=True):
                prompt = source, samples.prompt_uid(uid)
                if out and prompt in counts:
                    counts[prompt] -= 1
        return process(sources, uids, infos, *args, expected_acc_counts=counts, **kwargs)

    trainer_base.process_validation_metrics = process_validation_metrics
