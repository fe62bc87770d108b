"""What all engines have in common, and which one answers for a model.

    engine = open_engine(find("outputs/RUN"), Settings())
    for asked, answers in engine.answers([Asked(0, messages, (7,))], Sampling()):
        ...

An engine takes any number of prompts and holds few of them at a time; answers come as they are ready, in no order.
Each answer has a seed of its own: it depends neither on what else is asked, nor on the order.
"""

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from data_prep._chat import render, template_text, token_ids
from preflight.mistakes import Mistake
from tools._models.naming import Model

ENGINES = ("vllm", "transformers")
CONTEXT = 4096  # tokens of a prompt, unless more are asked for
STOPS = {
    "chatml": ("<|im_end|>",),
    "llama": ("<|eot_id|>",),
}  # a tokenizer may not know these as an end
SCORING = (
    "ForSequenceClassification",
    "ForTokenClassification",
)  # ends of classes without a head for tokens
TOO_LONG = "prompt_too_long"


class Sampling(NamedTuple):
    """How answers are drawn."""

    temperature: float = 0.0  # 0: greedy
    top_p: float = 1.0
    top_k: int = 0  # 0: all tokens
    max_tokens: int = 512


class Asked(NamedTuple):
    """A prompt, and a seed for each answer that is wanted."""

    key: int
    messages: list[dict]
    seeds: tuple[int, ...] = (0,)


class Answer(NamedTuple):
    """One answer."""

    text: str
    tokens: int
    finish: str  # stop; length: cut at max_tokens; TOO_LONG: the prompt leaves no room, nothing was asked


@dataclass(frozen=True)
class Settings:
    """How a model is loaded, and how it is asked."""

    dtype: str = "auto"
    context: int | None = None  # tokens of prompt and answer; None: CONTEXT and the longest answer
    template: str | None = None  # default, chatml, llama, or a file; None: the tokenizer's own
    template_kwargs: dict = field(default_factory=dict)
    trust_remote_code: bool = False
    attention: str | None = None
    device: str | None = None  # cpu, cuda; None: what is there
    tokens_at_once: int = 32768  # of a batch of transformers
    vllm: dict[str, Any] = field(default_factory=dict)  # vLLM's own arguments
    env: dict[str, str] = field(default_factory=dict)  # that vLLM reads
    at_once: int = 32  # requests to a server
    retries: int = 5  # of a request to a server


class Engine(ABC):
    """A model that answers."""

    name: str

    @abstractmethod
    def answers(
        self, asked: Iterable[Asked], sampling: Sampling
    ) -> Iterator[tuple[Asked, list[Answer]]]:
        """The answers to each prompt, as many as it has seeds."""

    @abstractmethod
    def stream(
        self, messages: list[dict], sampling: Sampling, seed: int = 0
    ) -> Generator[str, None, Answer]:
        """Pieces of one answer, as they come; returns the whole. Raises Mistake. May be closed before the end."""

    def close(self) -> None:  # noqa: B027 # most have nothing to close
        """Free what it holds."""


class LocalEngine(Engine):
    """An engine of this process: it renders and tokenises prompts itself."""

    def __init__(self, model: Model, settings: Settings, longest_answer: int):
        self.model, self.settings = model, settings
        self.tokenizer = load_tokenizer(model, settings)
        self.stops = STOPS.get(settings.template or "", ())
        # One that is a special token isn't in the text, where a stop string is looked for.
        added = self.tokenizer.get_added_vocab()
        self.stop_ids = {added[stop] for stop in self.stops if stop in added}
        most = positions(model, settings)
        wanted = settings.context or CONTEXT + longest_answer
        self.context = min(wanted, most) if most else wanted

    def encode(self, messages: list[dict]) -> list[int]:
        """The tokens of a prompt, up to where the assistant begins. Raises Mistake."""
        return token_ids(self.tokenizer, self.render(messages))

    def render(self, messages: list[dict]) -> str:
        """The text of a prompt. Raises Mistake if the template refuses it."""
        from jinja2 import TemplateError

        try:
            return render(self.tokenizer, messages, self.settings.template_kwargs)
        except TemplateError as error:  # "System role not supported", for one
            roles = ", ".join(str(message.get("role")) for message in messages[:4])
            raise Mistake(f"the chat template of {self.model.said} refuses these messages ({roles}):"
                          f" {reason(error)}") from None  # fmt: skip

    def room(self, ids: list[int], sampling: Sampling) -> int:
        """How many tokens an answer may have."""
        return min(sampling.max_tokens, self.context - len(ids))

    def prompt_ids(self, messages: list[dict], sampling: Sampling) -> list[int]:
        """`encode`, for one that must be answered. Raises Mistake if there is no room."""
        ids = self.encode(messages)
        if self.room(ids, sampling) < 1:
            raise Mistake(
                f"the conversation has {len(ids)} tokens, and the model takes {self.context} in all: /reset"
            )
        return ids


def until(pieces: Iterable[str], stops: Iterable[str]) -> Iterator[str]:
    """The pieces up to the first stop string, which may be split over several of them."""
    held, stops = "", tuple(stops)
    for piece in pieces:
        held += piece
        places = [at for stop in stops if (at := held.find(stop)) >= 0]
        if places:
            if first := held[: min(places)]:
                yield first
            return
        if ready := held[: len(held) - begun(held, stops)]:
            yield ready
        held = held[len(ready) :]
    if held:
        yield held


def begun(text: str, stops: tuple[str, ...]) -> int:
    """How many characters at the end of a text may be the beginning of a stop string."""
    longest = min(len(text), max(map(len, stops), default=0))
    ends = range(longest, 0, -1)
    return next((n for n in ends if any(stop.startswith(text[-n:]) for stop in stops)), 0)


def load_tokenizer(model: Model, settings: Settings):
    """The model's tokenizer, with the template that was asked for. Raises Mistake."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            model.tokenizer, trust_remote_code=settings.trust_remote_code
        )
    except Exception as error:  # whatever a broken folder, or no network, makes transformers raise
        where = "there is no such folder here, and as a hub id: " if model.kind == "hub" else ""
        raise Mistake(f"no tokenizer for {model.said}: {where}{reason(error)}") from None
    if not tokenizer("a", add_special_tokens=False)[
        "input_ids"
    ]:  # made of a folder without its files
        raise Mistake(f"no tokenizer for {model.said}: tokenizer.json is missing")
    if settings.template:
        try:
            tokenizer.chat_template = template_text(settings.template)
        except ValueError as error:
            raise Mistake(str(error)) from None
    if not tokenizer.chat_template:
        raise Mistake(f"the tokenizer of {model.said} has no chat template: name one, --template chatml (or llama,"
                      " default, a file)")  # fmt: skip
    return tokenizer


def positions(model: Model, settings: Settings) -> int | None:
    """How many tokens the model's config allows; None if it doesn't say."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(
            model.base or model.path, trust_remote_code=settings.trust_remote_code
        )
    except Exception as error:
        raise Mistake(f"{model.said} can't be loaded: {reason(error)}") from None
    name = next(iter(config.architectures or []), "")
    if name.endswith(SCORING):
        raise Mistake(
            f"{model.said} scores answers ({name}), and writes none: name a model that answers"
        )
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def reason(error: BaseException) -> str:
    """An error of a library as one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def open_engine(
    model: Model, settings: Settings, choice: str = "auto", longest_answer: int = 512
) -> Engine:
    """The engine for a model. Raises Mistake if it can't be loaded.

    Args:
        choice: vllm, transformers, or auto: vLLM where it is installed. A URL has its server.
        longest_answer: tokens, for the size of the context.
    """
    if model.kind == "server":
        from tools._models.server import Server

        if settings.template:
            raise Mistake(
                f"{model.said} renders prompts itself: --template is for models that are loaded here"
            )
        return Server(model, settings)
    if choice == "auto":
        choice = "vllm" if importlib.util.find_spec("vllm") else "transformers"
    if choice == "vllm":
        if not importlib.util.find_spec("vllm"):
            raise Mistake("vLLM is not installed: `make setup`, or --engine transformers")
        from tools._models.vllm import Vllm

        return Vllm(model, settings, longest_answer)
    from tools._models.transformers import Transformers

    return Transformers(model, settings, longest_answer)
