"""DPO: a policy learns directly from pairs of a better and a worse answer, without a reward model.

Sources: Rafailov et al., arXiv:2305.18290; IPO: Azar et al., arXiv:2310.12036; label smoothing:
Mitchell, "A note on DPO with noisy preferences & relationship to IPO" (cDPO). With log π(y|x) the
sum over all tokens of an answer, the end-of-sequence token included, and a frozen reference:

    r = log π(y|x) − log π_ref(y|x),    Δ = r(chosen) − r(rejected)
    sigmoid   −(1 − ε) log σ(β Δ) − ε log σ(−β Δ)
    ipo       (Δ − 1 / 2β)²

averaged over the pairs of a batch. IPO keeps its paper's sums too; TRL divides each r by its
answer's number of tokens there, so that its beta means something else. The reference is the model
that the run began with: a second, forward-only engine (`engine`), or the same weights with the
adapter switched off (`adapter`, needs LoRA). At the first step policy and reference agree: the loss
is log 2 (sigmoid) or 1 / 4β² (ipo).

Options, in conf/algo/dpo.yaml: `dpo.{beta, loss, label_smoothing, reference}`.
Degenerate cases: a pair of equal answers has Δ = 0 and no gradient. Not covered: several rejected
answers a prompt, images, ranks of more than two.
"""

import copy
from dataclasses import replace
from functools import partial

import torch
from verl.utils import tensordict_utils as tu
from verl.workers.engine_workers import TrainingWorker

from algos._pairs import Pairs
from algos._trainer import Trainer, main
from algos._worker import Worker, sums


def answer_logps(log_probs: torch.Tensor, loss_mask: torch.Tensor) -> torch.Tensor:
    """log π(y|x) of each sequence.

    Args:
        log_probs: (B, T) jagged, log_probs[t] is of token t + 1.
        loss_mask: (B, T) jagged, 1 on the tokens of the answer.

    Returns:
        (B,) sums over the answers, float32.
    """
    mask = torch.roll(loss_mask.values(), -1)  # to where the token is predicted
    lengths = log_probs.offsets().diff().to(mask.device)
    return torch.segment_reduce(log_probs.values().float() * mask, "sum", lengths=lengths)


def pair_losses(delta: torch.Tensor, beta: float, loss: str, label_smoothing: float):
    """The losses (P,) of P pairs with Δ = delta (P,)."""
    if loss == "ipo":
        return (delta - 1 / (2 * beta)) ** 2
    right, wrong = (-torch.nn.functional.logsigmoid(sign * beta * delta) for sign in (1, -1))
    return (1 - label_smoothing) * right + label_smoothing * wrong


def dpo_loss(model_output, data, dp_group=None, *, beta, loss, label_smoothing):
    """Loss and metrics of a micro-batch whose rows are chosen, rejected, chosen, rejected, ..."""
    logps = answer_logps(model_output["log_probs"], data["loss_mask"])
    ratios = logps - data["ref_logps"]
    losses = pair_losses(ratios[0::2] - ratios[1::2], beta, loss, label_smoothing)
    logps, rewards = logps.detach(), beta * ratios.detach()
    margin = rewards[0::2] - rewards[1::2]
    metrics = sums(
        accuracy=margin > 0,
        margin=margin,
        **{"rewards/chosen": rewards[0::2], "rewards/rejected": rewards[1::2]},
        **{"logps/chosen": logps[0::2], "logps/rejected": logps[1::2]},
    )
    return losses.sum() / data["global_batch_size"] * data["dp_size"], metrics


class DPOWorker(Worker):
    """Gives each batch the reference's log-probabilities."""

    reference: TrainingWorker | None = None  # None: this model without its adapter

    def prepare(self, data) -> None:
        super().prepare(data)
        again = data.copy()
        tu.assign_non_tensor(again, compute_loss=False)
        if self.reference is None:
            tu.assign_non_tensor(again, no_lora_adapter=True)
            output = TrainingWorker.infer_batch(self, again)
        else:
            output = self.reference.infer_batch(again)
        data["ref_logps"] = answer_logps(output["log_probs"], data["loss_mask"])


class DPOTrainer(Trainer):
    """DPO on pairs."""

    items, model_type, worker = Pairs, "language_model", DPOWorker

    def loss(self):
        options = dict(self.config.dpo)
        options.pop("reference")
        return partial(dpo_loss, **options)

    def _init_engine(self):
        super()._init_engine()
        if self.config.dpo.reference == "engine":
            config = self.worker_config(
                model_config=copy.deepcopy(self.model_config),
                engine_config=replace(self.engine_config, forward_only=True),
            )
            self.training_client.reference = TrainingWorker(config)
            self.training_client.reference.reset()


if __name__ == "__main__":
    main(DPOTrainer)
