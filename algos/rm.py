"""Reward model: one score an answer, learnt from pairs of a better and a worse one.

Source: Bradley and Terry, 1952; for language models Ouyang et al., InstructGPT, arXiv:2203.02155,
section 3.5. The score is a linear head on the last hidden state at the answer's last token, its
end of sequence:

    −log σ(score(chosen) − score(rejected)) + c · (score(chosen) + score(rejected))²

averaged over the pairs of a batch. Only differences matter to the first term; the second, with
c = `rm.center`, keeps the scores around 0 (Eisenstein et al., arXiv:2312.09244).
The checkpoint's `huggingface` folder is a ...ForSequenceClassification with one label.

Degenerate cases: a pair of equal answers costs log 2 and has no gradient. Not covered: ties, ranks
of more than two, images.
"""

from functools import partial

import torch

from algos._pairs import Pairs
from algos._trainer import Trainer, main
from algos._worker import sums


def rm_loss(model_output, data, dp_group=None, *, center=0.0):
    """Loss and metrics of a micro-batch whose rows are chosen, rejected, chosen, rejected, ..."""
    values = model_output["values"]  # (B, T) jagged
    scores = values.values()[values.offsets()[1:] - 1].float()
    chosen, rejected = scores[0::2], scores[1::2]
    losses = -torch.nn.functional.logsigmoid(chosen - rejected) + center * (chosen + rejected) ** 2
    chosen, rejected = chosen.detach(), rejected.detach()
    metrics = sums(
        accuracy=chosen > rejected,
        margin=chosen - rejected,
        score=scores.detach(),
        **{"score/chosen": chosen, "score/rejected": rejected},
    )
    return losses.sum() / data["global_batch_size"] * data["dp_size"], metrics


class RewardTrainer(Trainer):
    """A Bradley-Terry model on pairs."""

    items, head = Pairs, "ForSequenceClassification"

    def _build_engine(self):
        super()._build_engine()
        build_module = self.engine._build_module

        def without_bias():
            # the loss doesn't see it, so rounding alone would move it; sequence classifiers have none
            module = build_module()
            module.score.bias = None
            return module

        self.engine._build_module = without_bias

    def loss(self):
        return partial(rm_loss, **self.config.rm)


if __name__ == "__main__":
    main(RewardTrainer)
