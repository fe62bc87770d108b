"""Lengths of the data in tokens, with the model's own tokenizer and template, as verl and our trainers count them."""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf

from preflight.checks import Note
from preflight.checks.columns import columns_of
from preflight.checks.files import as_list
from preflight.engines import facts
from preflight.facts import is_rl
from preflight.models import file_of, trained

SAMPLE, SEED = 512, 0
LARGE = 0.5  # share of rows whose loss is a mistake


def sample(files, size: int) -> list[tuple[str, int, dict]]:
    """(file, number, row) of so many rows of each file that is there, drawn with a seed."""
    import pyarrow.dataset as ds

    rows = []
    for file in as_list(files):
        if not Path(file).is_file() or columns_of(file) is None:
            continue  # another check says so
        data = ds.dataset(file)
        count = data.count_rows()
        some = sorted(random.Random(SEED).sample(range(count), min(size, count)))
        drawn = data.take(some).to_pylist()
        rows += [(os.path.relpath(file), n, row) for n, row in zip(some, drawn, strict=True)]
    return rows


class Renderer:
    """The tokenizer of a run, with its options of the chat template."""

    def __init__(self, config: DictConfig):
        from transformers import AutoTokenizer

        model = config.actor_rollout_ref.model if is_rl(config) else config.model
        self.tokenizer = AutoTokenizer.from_pretrained(
            model.tokenizer_path or model.path,
            trust_remote_code=model.trust_remote_code,
            local_files_only=True,
        )
        if model.custom_chat_template:
            self.tokenizer.chat_template = model.custom_chat_template
        self.options = OmegaConf.to_container(config.data.apply_chat_template_kwargs, resolve=True)
        self.data = config.data

    def ids(self, messages: list[dict], **more) -> list[int]:
        """Tokens of messages."""
        options = {"add_generation_prompt": False, **self.options, **more}
        return self.tokenizer.apply_chat_template(
            messages, tokenize=True, return_dict=False, **options
        )

    def prompt(self, row: dict) -> int:
        """Length of a prompt of RL."""
        return len(self.ids(row[self.data.prompt_key], add_generation_prompt=True))

    def conversation(self, row: dict) -> int:
        """Length of a conversation of SFT."""
        return len(self.ids(row[self.data.messages_key], **self.of_row(row)))

    def of_row(self, row: dict) -> dict:
        """What a row of SFT says beside its messages."""
        thinks = row.get(self.data.enable_thinking_key)
        options = {} if thinks is None else {"enable_thinking": thinks}
        return options | ({"tools": tools} if (tools := row.get(self.data.tools_key)) else {})

    def pair(self, row: dict) -> int:
        """The longer one of the two answers of a pair, with their prompt."""
        return max(
            len(self.ids([*row["prompt"], *row[answer]])) for answer in ("chosen", "rejected")
        )

    def chain(self, row: dict) -> int:
        """A chain of steps, with its prompt."""
        text = "\n\n".join(step.strip() for step in row["steps"])
        return len(self.ids([*row["prompt"], {"role": "assistant", "content": text}]))

    def turn_by_turn(self, row: dict) -> bool:
        """Whether each turn rendered alone, as verl's MultiTurnSFTDataset does it, gives the whole."""
        messages, options = row[self.data.messages_key], self.of_row(row)
        one, two = ([{"role": "user", "content": ""}] * n for n in (1, 2))
        system = 2 * len(self.ids(one)) - len(self.ids(two))
        whole = []
        for number, message in enumerate(messages):
            more = options if number == 0 else {k: v for k, v in options.items() if k != "tools"}
            begins = number and message["role"] != "system"
            whole += self.ids([message], **more)[system if begins else 0 :]
        return whole == self.ids(messages, **options)


class Kind(NamedTuple):
    """Of rows: how their length is counted, the key of the longest, and what becomes of those beyond."""

    length: Callable[[dict], int]
    key: str
    fate: str


def kind_of(config: DictConfig, renderer: Renderer) -> Kind:
    """That of this run's data."""
    if is_rl(config):
        cut = not config.data.filter_overlong_prompts
        return Kind(renderer.prompt, "data.max_prompt_length", "cut" if cut else "left out")
    if config.lab.trainer.entry == "verl.trainer.sft_trainer":
        stops = config.data.truncation == "error"
        return Kind(renderer.conversation, "data.max_length", "an error" if stops else "cut")
    length = renderer.chain if config.lab.trainer.entry == "algos.prm" else renderer.pair
    return Kind(length, "data.max_length", "left out")


def measured(config: DictConfig) -> Iterator[tuple[str, list[int], Kind]]:
    """(train or val, lengths of some of its rows, their kind)."""
    renderer = Renderer(config)
    kind = kind_of(config, renderer)
    for name in ("train", "val"):
        rows = sample(config.data[f"{name}_files"], SAMPLE)
        if rows:
            yield name, [kind.length(row) for _, _, row in rows], kind


def tokenizer_is_here(config: DictConfig) -> bool:
    """Whether the tokenizer needs no download."""
    model = config.actor_rollout_ref.model if is_rl(config) else config.model
    return file_of(model.tokenizer_path or model.path, "tokenizer_config.json") is not None


def check_lengths_of_rows(config: DictConfig) -> str | None:
    """What share of the data is too long, and is left out, cut, or ends the run."""
    if not tokenizer_is_here(config):
        return Note(f"{trained(config)} isn't on this machine: no row was measured.")
    told, context = [], facts(trained(config)).get("max_position_embeddings")
    for name, lengths, kind in measured(config):
        most = OmegaConf.select(config, kind.key)
        share = sum(length > most for length in lengths) / len(lengths)
        what = f"{share:.0%} of {len(lengths)} rows of data.{name}_files have more than {kind.key}={most} tokens"
        what += f" (up to {max(lengths)}): {kind.fate}"
        if share > LARGE or (share and kind.fate == "an error"):
            return f"{what}. Set {kind.key}={max(lengths)}, or shorten them."
        if not is_rl(config) and context and min(most, max(lengths)) > context:
            return (f"data.{name}_files has rows of {max(lengths)} tokens, and the model's context is {context}: set"
                    f" {kind.key}={context}.")  # fmt: skip
        fits = f"data.{name}_files: {min(lengths)} to {max(lengths)} tokens, {kind.key}={most}"
        told.append(what if share else fits)
    return Note("; ".join(told)) if told else None


def check_turns(config: DictConfig) -> str | None:
    """SFT renders each turn alone; a template that changes earlier turns ends it at the first batch."""
    sft = config.lab.trainer.entry == "verl.trainer.sft_trainer"
    if not sft or config.data.ignore_input_ids_mismatch or not tokenizer_is_here(config):
        return None
    renderer = Renderer(config)
    for file, number, row in sample(config.data.train_files, 8):
        if not renderer.turn_by_turn(row):
            return (f"{file}, row {number}: the chat template renders turns alone otherwise than together, and verl"
                    " stops there: data.ignore_input_ids_mismatch=true or lab.model.chat_template_kwargs.")  # fmt: skip
    return None
