"""Patches of verl 0.9.1: figures of what fails without an error. One function a patch, as in verl.py.

launcher/alerts.py has the rules over them.
"""

import functools
from collections import Counter, defaultdict

from plugins.rollout import samples

SAMPLED = 256  # values of each tensor


def sampled_weights(module) -> list:
    """Some values of each trainable tensor of a module, as copies: at most SAMPLED each, evenly over it.

    Of tensors that are spread over workers (FSDP, FSDP2) the part that lies here. `module`: or a list of them.
    """
    modules = module if isinstance(module, list | tuple) else [module]
    found = []
    for parameter in (p for m in modules for p in m.parameters() if p.requires_grad):
        local = parameter.to_local() if hasattr(parameter, "to_local") else parameter
        flat = local.detach().reshape(-1)
        found.append(flat[:: -(-flat.numel() // SAMPLED) or 1].clone())
    return found


def changed_share(before: list, after: list) -> float:
    """The share of the values that differ between two `sampled_weights` of a module; 0 for none at all.

    A tensor that was exchanged for another in between takes no part: a figure must not end a training.
    """
    import torch

    pairs = [
        (x, y)
        for x, y in zip(before, after, strict=False)
        if x.shape == y.shape and x.device == y.device
    ]
    total = sum(len(x) for x, _ in pairs)
    if not total:
        return 0.0
    return torch.stack([(x != y).sum().cpu() for x, y in pairs]).sum().item() / total


def note_changed_weights(base) -> None:
    """verl/workers/engine/base.py:113, train_batch: nothing says whether the optimizer changed a weight.

    With a learning rate of 0, with updates that bf16 rounds away or with the wrong weights frozen, the gradient
    looks well. Compares a sample of the trainable weights before and after the step.
    """
    engine = base.BaseEngine
    train = engine.train_batch

    @functools.wraps(train)
    def train_batch(self, *args, **kwargs):
        before = sampled_weights(self.module)
        outputs = train(self, *args, **kwargs)
        self.weights_changed = changed_share(before, sampled_weights(self.module))
        return outputs

    engine.train_batch = train_batch


def log_changed_weights(engine_workers) -> None:
    """verl/workers/engine_workers.py:181, _postprocess_output: passes on gradient norm and learning rate alone.

    Adds `weights_changed` (RL: `actor/weights_changed`): of the sampled weights, the share that a step changed.
    It is that of one worker's part, as all step together.
    """
    worker = engine_workers.TrainingWorker
    postprocess = worker._postprocess_output

    @functools.wraps(postprocess)
    def _postprocess_output(self, output, *, forward_only, **kwargs):
        result = postprocess(self, output, forward_only=forward_only, **kwargs)
        share = getattr(self.engine, "weights_changed", None)
        if not forward_only and share is not None:
            engine_workers.tu.get(result, "metrics")["weights_changed"] = share
        return result

    worker._postprocess_output = _postprocess_output


def same_score(keys: list[str], uids: list[str], scores: list[float]) -> float:
    """The share of groups whose answers all have one score; single answers together are one group.

    Args:
        keys: of the outputs; of a session of several turns only the last counts.
        uids: their groups.
        scores: their rewards.
    """
    last: dict[tuple[str, int], tuple[int, str, float]] = {}
    for key, uid, score in zip(keys, uids, scores, strict=True):
        of = samples.read_key(key)
        if of.output >= last.get((of.uid, of.session), (-1,))[0]:
            last[of.uid, of.session] = of.output, uid, score
    groups = defaultdict(list)
    for _, uid, score in last.values():
        groups[uid].append(score)
    several = [group for group in groups.values() if len(group) > 1]
    several = several or [[score for group in groups.values() for score in group]]
    flat = [len(group) > 0 and max(group) - min(group) < 1e-9 for group in several]
    return sum(flat) / len(flat)


def log_same_scores(trainer_base) -> None:
    """verl/trainer/ppo/v1/trainer_base.py:1743, _compute_advantage: groups without a spread teach nothing, unseen.

    Adds `groups/same_score`, their share.
    """
    trainer, found = trainer_base.PPOTrainer, []
    advantage, compute = (
        trainer._compute_advantage,
        trainer_base.compute_advantage_for_multi_trajectories,
    )

    @functools.wraps(compute)
    def with_share(data, batch_keys, *args, **kwargs):
        mask = data.batch["response_mask"]
        # no padding, and nothing that was not graded
        rows = [i for i, learns in enumerate(mask.any(dim=-1).tolist()) if learns]
        scores = data.batch["token_level_scores"].sum(dim=-1).tolist()
        uids = data.non_tensor_batch["uid"]
        if rows:
            found.append(same_score(*([x[i] for i in rows] for x in (batch_keys, uids, scores))))
        return compute(data, batch_keys, *args, **kwargs)

    @functools.wraps(advantage)
    def _compute_advantage(self, batch, metrics):
        batch = advantage(self, batch, metrics)
        if found:
            metrics["groups/same_score"] = found.pop()
            found.clear()
        return batch

    trainer_base.compute_advantage_for_multi_trajectories = with_share
    trainer._compute_advantage = _compute_advantage


def same_answer(prompts: list[str], answers: list[str]) -> float | None:
    """The share of answers that are the commonest one; None where one prompt is all that was asked."""
    if len(set(prompts)) < 2:
        return None
    return Counter(answers).most_common(1)[0][1] / len(answers)


def log_same_answers(trainer_base) -> None:
    """verl/trainer/ppo/v1/trainer_base.py:1031, _validate: that all answers are the same is not seen.

    Adds `val-aux/same_answer`: the share of a validation's answers that are one and the same text.
    """
    trainer = trainer_base.PPOTrainer
    log, update = trainer._maybe_log_val_generations, trainer._val_metrics_update

    @functools.wraps(log)
    def _maybe_log_val_generations(self, inputs, outputs, scores):
        self.same_answer = same_answer(inputs, outputs)
        return log(self, inputs=inputs, outputs=outputs, scores=scores)

    @functools.wraps(update)
    def _val_metrics_update(self, *args, **kwargs):
        metrics = update(self, *args, **kwargs)
        share = self.__dict__.pop("same_answer", None)
        return metrics if share is None else metrics | {"val-aux/same_answer": share}

    trainer._maybe_log_val_generations = _maybe_log_val_generations
    trainer._val_metrics_update = _val_metrics_update
