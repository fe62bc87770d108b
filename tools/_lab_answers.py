"""Sampled answers for the reward laboratory: groups of answers to the same prompt, from files or a model."""

import json
import tempfile
from pathlib import Path

from data_prep._answers import candidates
from data_prep._chat import render
from data_prep._dumps import open_answers
from data_prep._read import Broken
from rewards._rows import response_of

Group = list[tuple[dict, str]]  # (row, answer), all of one prompt


def from_files(source: Path, most: int) -> list[Group]:
    """The first `most` groups of a file of answers, or of those that a run dumped.

    A row is one of data_prep's `preference`: a prompt, a response, and what its scoring needs.
    """
    groups: dict[str, Group] = {}
    with tempfile.TemporaryDirectory() as folder, open_answers(source, Path(folder)) as rows:
        for _, row in candidates(rows):
            if isinstance(row, Broken):
                raise ValueError(f"{source}: {row.why}: {row.text[:200]}")
            key = json.dumps(row.get("prompt"), default=str)
            if key in groups or len(groups) < most:
                groups.setdefault(key, []).append((row, response_of(row)))
    return list(groups.values())


def from_model(
    path: str, rows: list[dict], n: int, max_tokens: int, template: dict, seed: int
) -> list[Group]:
    """`n` answers of a causal language model to each row's prompt, at temperature 1."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(path)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(path, dtype="auto").to(device).eval()
    groups = []
    for row in rows:
        text = render(tokenizer, row["prompt"], template)
        prompt = tokenizer(text, add_special_tokens=False, return_tensors="pt").to(device)
        with torch.no_grad():
            ids = model.generate(
                **prompt, do_sample=True, top_k=0, num_return_sequences=n, max_new_tokens=max_tokens
            )
        texts = tokenizer.batch_decode(
            ids[:, prompt["input_ids"].shape[1] :], skip_special_tokens=True
        )
        groups.append([(row, text) for text in texts])
    return groups
