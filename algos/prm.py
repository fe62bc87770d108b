"""Process reward model: how likely each step of a chain is right, from labelled steps.

Source: Lightman et al., arXiv:2305.20050; soft labels (the share of continuations that come out
right) Wang et al., Math-Shepherd, arXiv:2312.08935. A linear head gives one logit a token; it is
read where a step is complete (rewards/_steps.py, `tokens_at`), and

    −y log σ(logit) − (1 − y) log(1 − σ(logit))

is averaged over the steps of a batch, for labels y from 0 to 1. σ(logit) is the step's reward.
The checkpoint's `huggingface` folder is a ...ForTokenClassification with one label.

Accuracies count a step as right from y = 0.5 and from σ(logit) = 0.5 on; `accuracy/right` and
`accuracy/wrong` are those of each class. Degenerate cases: a class that a batch does not have has
no accuracy. Not covered: several labels a step, images.
"""

import torch

from algos._pairs import Chains
from algos._trainer import Trainer, main
from algos._worker import sums


def prm_loss(model_output, data, dp_group=None):
    """Loss and metrics of a micro-batch of chains; the mask is 1 at the ends of steps."""
    at = data["loss_mask"].values().bool()
    logits = model_output["values"].values()[at].float()
    labels = data["labels"].values()[at]
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
    right = labels >= 0.5
    correct = (logits.detach() >= 0) == right
    metrics = sums(
        accuracy=correct,
        score=logits.detach().sigmoid(),
        **{"accuracy/right": correct[right], "accuracy/wrong": correct[~right]},
    )
    # verl counts the mask of the whole batch
    return loss / data["batch_num_tokens"] * data["dp_size"], metrics


class ProcessTrainer(Trainer):
    """A process reward model on chains."""

    items, sequences = Chains, 1

    def loss(self):
        return prm_loss


if __name__ == "__main__":
    main(ProcessTrainer)
