"""Rows for the trainers of this folder: preference pairs and chains of labelled steps, as tokens.

An item of a dataset is a list of sequences that must stay together: [chosen, rejected], or one
chain. A sequence is what the policy itself would see: the prompt by the chat template, then the
answer up to and with its end-of-sequence token, tokenised apart from the prompt. Nothing is cut:
an item longer than `data.max_length` tokens is left out and counted, because an answer without its
end (or a prompt without its question) would teach nonsense.

A sequence of T tokens has `input_ids`, `position_ids` and `loss_mask` (1 where the loss looks: on
the answer, in a chain on the ends of its steps), and a chain `labels` (a step's at its end, else 0).
"""

from collections.abc import Sequence

import pyarrow.parquet as pq
import torch
from torch.utils.data import Dataset

from data_prep._chat import render_answered, token_ids
from rewards._steps import join_steps, tokens_at


class Items(Dataset):
    """The items of parquet files; a subclass has `columns`, and `encode(row)` → sequences.

    Args:
        files: a parquet file or several.
        tokenizer: a fast one, with a chat template.
        data: verl's `data` node: `max_length`, `apply_chat_template_kwargs`.
        max_samples: the first so many rows; -1 for all.

    Raises ValueError if no row is short enough.
    """

    columns: tuple[str, ...]

    def __init__(self, files, tokenizer, data, max_samples: int = -1):
        self.tokenizer, self.template = tokenizer, dict(data.apply_chat_template_kwargs)
        files = [files] if isinstance(files, str) else list(files)
        columns = list(self.columns)
        rows = [row for f in files for row in pq.read_table(f, columns=columns).to_pylist()]
        items = [self.encode(row) for row in (rows[:max_samples] if max_samples > 0 else rows)]
        fits = [max(len(s["input_ids"]) for s in item) <= data.max_length for item in items]
        self.items = [item for item, fit in zip(items, fits, strict=True) if fit]
        self.left_out = len(items) - len(self.items)
        self.report = (f"{', '.join(files)}: {self.left_out} of {len(items)} rows are longer than"
                       f" data.max_length={data.max_length} tokens and left out")  # fmt: skip
        if not self.items:
            raise ValueError(self.report)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> list[dict[str, torch.Tensor]]:
        return self.items[index]

    def texts(self, prompt: list[dict], answer: list[dict]) -> tuple[str, str]:
        """The rendered prompt and answer."""
        return render_answered(self.tokenizer, prompt, answer, self.template)

    def sequence(
        self, head: str, tail: str, ends: Sequence[int] = (), labels: Sequence[float] = ()
    ):
        """One sequence; for a chain with the `ends` of its steps, in characters of `tail`."""
        prompt = token_ids(self.tokenizer, head)
        answer = self.tokenizer(tail, add_special_tokens=False, return_offsets_mapping=bool(ends))
        ids = torch.tensor(prompt + answer["input_ids"])
        row = {"input_ids": ids, "position_ids": torch.arange(len(ids))}
        row["loss_mask"] = (row["position_ids"] >= len(prompt)).long()
        if ends:
            starts = [start for start, _ in answer["offset_mapping"]]
            at = len(prompt) + torch.tensor(tokens_at(starts, ends))
            row["loss_mask"] = torch.zeros_like(ids).index_fill(0, at, 1)
            row["labels"] = torch.zeros(len(ids)).index_put((at,), torch.tensor(labels).float())
        return row


class Pairs(Items):
    """Rows {prompt, chosen, rejected} of messages → [chosen, rejected]."""

    columns = ("prompt", "chosen", "rejected")

    def encode(self, row: dict) -> list[dict[str, torch.Tensor]]:
        return [self.sequence(*self.texts(row["prompt"], row[a])) for a in ("chosen", "rejected")]


class Chains(Items):
    """Rows {prompt, steps, labels}, steps joined by a blank line → [chain]."""

    columns = ("prompt", "steps", "labels")

    def encode(self, row: dict) -> list[dict[str, torch.Tensor]]:
        text, ends = join_steps(row["steps"])
        head, tail = self.texts(row["prompt"], [{"role": "assistant", "content": text}])
        begin = tail.index(text)
        return [self.sequence(head, tail, [begin + end for end in ends], row["labels"])]
