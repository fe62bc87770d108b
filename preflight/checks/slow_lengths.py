"""Lengths of the data in tokens, with the model's own tokenizer and template, as verl and our trainers count them."""

import json
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf

from data_prep._chat import render, render_answered, token_ids
from preflight.checks import Note, applies_to
from preflight.engines import facts
from preflight.facts import is_rl, is_sft, is_verls_sft, model_key
from preflight.models import file_of, trained
from preflight.sample import sample
from preflight.tokens import looked_at, wrong_messages
from rewards._steps import join_steps

SAMPLE = 512  # rows of a file
LARGE = 0.5  # share of rows whose loss is a mistake


class Renderer:
    """The tokenizer of a run, with its options of the chat template."""

    def __init__(self, config: DictConfig):
        from transformers import AutoTokenizer

        model = OmegaConf.select(config, model_key(config))
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
        text = render(self.tokenizer, messages, self.options | more, prompt=False)
        return token_ids(self.tokenizer, text)

    def prompt(self, row: dict) -> int:
        """Length of a prompt of RL."""
        text = render(self.tokenizer, row[self.data.prompt_key], self.options)
        return len(token_ids(self.tokenizer, text))

    def conversation(self, row: dict) -> int:
        """Length of a conversation of SFT."""
        return len(self.ids(row[self.data.messages_key], **self.of_row(row)))

    def of_row(self, row: dict) -> dict:
        """What a row of SFT says beside its messages."""
        thinks = row.get(self.data.enable_thinking_key)
        options = {} if thinks is None else {"enable_thinking": thinks}
        return options | ({"tools": tools} if (tools := row.get(self.data.tools_key)) else {})

    def answered(self, prompt: list[dict], answer: list[dict]) -> int:
        """A prompt and its answer, as our trainers put them together. Raises ValueError if they could not."""
        texts = render_answered(self.tokenizer, prompt, answer, self.options)
        return sum(len(token_ids(self.tokenizer, text)) for text in texts)

    def pair(self, row: dict) -> int:
        """The longer one of the two answers of a pair, with their prompt."""
        return max(self.answered(row["prompt"], row[answer]) for answer in ("chosen", "rejected"))

    def chain(self, row: dict) -> int:
        """A chain of steps, with its prompt."""
        text, _ = join_steps(row["steps"])
        return self.answered(row["prompt"], [{"role": "assistant", "content": text}])

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
    if is_verls_sft(config):
        stops = config.data.truncation == "error"
        return Kind(renderer.conversation, "data.max_length", "an error" if stops else "cut")
    lengths = {"pref": renderer.pair, "prm": renderer.chain}
    return Kind(lengths[config.lab.trainer.rows], "data.max_length", "left out")


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
    model = OmegaConf.select(config, model_key(config))
    return file_of(model.tokenizer_path or model.path, "tokenizer_config.json") is not None


def check_lengths_of_rows(config: DictConfig) -> str | None:
    """What share of the data is too long, and is left out, cut, or ends the run."""
    if not tokenizer_is_here(config):
        return Note(f"{trained(config)} is not on this machine: no row was measured.")
    if any(wrong_messages(messages) for *_, messages in looked_at(config)):
        return None  # another check says so
    parts, context = [], facts(trained(config)).get("max_position_embeddings")
    try:
        found = list(measured(config))
    except ValueError as error:  # by the template, as our trainers would find out
        return f"{error}: change lab.model.chat_template_kwargs, or take another model."
    for name, lengths, kind in found:
        most = OmegaConf.select(config, kind.key)
        share = sum(length > most for length in lengths) / len(lengths)
        what = f"{share:.0%} of {len(lengths)} rows of data.{name}_files have more than {kind.key}={most} tokens"
        what += f" (up to {max(lengths)}): {kind.fate}"
        if share > LARGE or (share and kind.fate == "an error"):
            return f"{what}. Set {kind.key}={max(lengths)}, or shorten them."
        if is_sft(config) and context and min(most, max(lengths)) > context:
            return (f"data.{name}_files has rows of {max(lengths)} tokens, and the model's context is {context}: set"
                    f" {kind.key}={context}.")  # fmt: skip
        fits = f"data.{name}_files: {min(lengths)} to {max(lengths)} tokens, {kind.key}={most}"
        parts.append(what if share else fits)
    return Note("; ".join(parts)) if parts else None


@applies_to(is_verls_sft)
def check_turns(config: DictConfig) -> str | None:
    """SFT renders each turn alone; a template that changes earlier turns ends it at the first batch."""
    if config.data.ignore_input_ids_mismatch or not tokenizer_is_here(config):
        return None
    renderer = Renderer(config)
    for file, number, row in sample(config.data.train_files, 8):
        if not renderer.turn_by_turn(row):
            return (f"{file}, row {number} (from 0): the chat template renders a single turn differently from the same"
                    " turn in its conversation, and verl stops there: set data.ignore_input_ids_mismatch=true or"
                    " lab.model.chat_template_kwargs.")  # fmt: skip
    return None


MARK = re.compile(r"<\|?\w+\|?>|\[/?[A-Z_]{3,}\]")  # <|im_end|>, <s>, [INST]


def check_template(config: DictConfig) -> str | None:
    """A template of one's own: its marks are single tokens, and what ends an answer ends its generation."""
    if not config.lab.model.chat_template or not tokenizer_is_here(config):
        return None
    tokenizer, options = (renderer := Renderer(config)).tokenizer, renderer.options
    asked, answer = {"role": "user", "content": "q"}, {"role": "assistant", "content": "answer"}
    try:
        head = render(tokenizer, [asked], options)
        whole = render(tokenizer, [asked, answer], options, prompt=False)
    except Exception as error:  # whatever a template raises
        return (
            f"lab.model.chat_template={config.lab.model.chat_template} can't be rendered: {error}"
        )
    if "answer" not in whole:
        return f"lab.model.chat_template={config.lab.model.chat_template}: an answer is not in what it renders."
    name = f"lab.model.chat_template={config.lab.model.chat_template}"
    split = sorted(
        {mark for mark in MARK.findall(head + whole) if len(token_ids(tokenizer, mark)) != 1}
    )
    ends = {tokenizer.eos_token_id, *_generation_ends(trained(config))}
    closing = whole.rpartition("answer")[2]
    if not ends.intersection(token_ids(tokenizer, closing)):
        return (f"{name}: after an answer it writes {closing!r}, and generation ends at {tokenizer.eos_token!r}:"
                " answers would never end. End them with that token.")  # fmt: skip
    if split:
        return Note(
            f"the tokenizer has no token for {', '.join(split)} of the template: each is several tokens."
        )
    return None


def _generation_ends(path: str) -> list[int]:
    file = file_of(path, "generation_config.json")
    ends = json.loads(file.read_text()).get("eos_token_id") if file else None
    return ends if isinstance(ends, list) else [ends]
