"""A conversation with one or more models: one list of turns, from which each model's own history is made."""

import json
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from preflight.mistakes import Mistake
from tools._chat.rows import Rows, figures, number
from tools._chat.terminal import OPEN, Terminal, spans, spoken
from tools._evaluate.rows import Row
from tools._models.engine import Answer, Engine, LocalEngine, Sampling
from tools._models.naming import Model


class Party(NamedTuple):
    """A model that takes part."""

    label: str
    engine: Engine


class Said(NamedTuple):
    """An answer in the conversation."""

    text: str
    spoken: str  # without its reasoning, which the next prompt leaves out, as models are trained
    seed: int
    scores: dict


@dataclass
class Turn:
    """A question, or a dataset's row, and its answers. In the history of a model that gave none it was not asked."""

    asked: list[dict]
    row: Row | None = None  # it begins a new conversation: as in training, nothing stands before it
    answers: dict[str, Said] = field(default_factory=dict)


class Talk:
    """The conversation.

    Args:
        rows: of a dataset; None: there is none.
    """

    def __init__(
        self, parties: list[Party], terminal: Terminal, sampling: Sampling, seed: int,
        system: str | None = None, rows: Rows | None = None,
    ):  # fmt: skip
        self.parties, self.terminal, self.rows = parties, terminal, rows
        self.sampling, self.system = sampling, system
        self.turns: list[Turn] = []
        self.seed = seed  # of the next answers

    def messages(self, party: Party) -> list[dict]:
        """The prompt for a model: its own history, and the last question."""
        first = max((i for i, turn in enumerate(self.turns) if turn.row), default=0)
        found: list[dict] = []
        for turn in self.turns[first:]:
            answer = turn.answers.get(party.label)
            if answer or turn is self.turns[-1]:
                found += turn.asked
            if answer:
                found.append({"role": "assistant", "content": answer.spoken})
        own = bool(found) and found[0]["role"] == "system"
        system = [{"role": "system", "content": self.system}] if self.system and not own else []
        return system + found

    def ask(self, asked: list[dict], row: Row | None = None) -> None:
        """Ask all models. What one can't answer is told in a line."""
        turn = Turn(asked, row)
        self.turns.append(turn)
        seed, self.seed = self.seed, self.seed + 1
        for party in self.parties:
            if len(self.parties) > 1:
                self.terminal.say(party.label, "bold")
            try:
                answer = self.answer(party, seed)
            except Mistake as error:
                self.terminal.say(f"error: {error}")
                continue
            if answer is None:
                continue
            text, opened = answer
            scores = self.score(row, text) if row and self.rows else {}
            turn.answers[party.label] = Said(text, spoken(text, opened), seed, scores)
        if row and self.rows and (reference := self.rows.reference(row)) is not None:
            self.terminal.say("reference answer", "bold")
            self.terminal.say(reference)

    def answer(self, party: Party, seed: int) -> tuple[str, bool] | None:
        """Print one model's answer as it comes.

        Returns:
            its text, and whether the prompt had opened its reasoning; None if Ctrl-C came before any text.
        """
        messages = self.messages(party)
        opened = opens_reasoning(party.engine, messages)
        begin, text = time.monotonic(), ""
        whole: list[Answer] = []

        def pieces() -> Generator[str, None, None]:
            nonlocal text
            with closing(party.engine.stream(messages, self.sampling, seed)) as stream:
                while True:
                    try:
                        piece = next(stream)
                    except StopIteration as end:
                        whole.append(end.value)
                        return
                    text += piece
                    yield piece

        coming = pieces()
        try:
            with closing(coming):
                for piece, thinks in spans(coming, opened):
                    self.terminal.say(piece, "dim" if thinks else None, end="")
        except KeyboardInterrupt:
            self.terminal.say()
            self.terminal.note("(stopped)")
            return (text, opened) if text else None
        except Mistake:
            if text:
                self.terminal.say()
            raise
        self.terminal.say()
        self.terminal.note(self.told(whole[0], time.monotonic() - begin))
        return text, opened

    def told(self, answer: Answer, seconds: float) -> str:
        """The line below an answer."""
        count = f"{answer.tokens} token{'' if answer.tokens == 1 else 's'}, {seconds:.1f} s"
        if not answer.text:
            return f"(an empty answer; {count})"
        if answer.finish != "length":
            return f"({count})"
        if answer.tokens < self.sampling.max_tokens:
            return f"({count}; cut: the model's context is full. /reset begins anew)"
        return f"({count}; cut: /set max_tokens={2 * self.sampling.max_tokens} allows more)"

    def score(self, row: Row, text: str) -> dict:
        """The parts of the rewards, printed."""
        try:
            scores = self.rows.score(row, text)
        except Mistake as error:
            self.terminal.say(f"error: {error}")
            return {}
        except KeyboardInterrupt:
            self.terminal.say()
            self.terminal.note("(not scored)")
            return {}
        for name, parts in scores.items():
            self.terminal.say(f"reward {name} {number(parts.get('score'))}", "bold", end="  ")
            self.terminal.note(figures(parts))
        return scores

    def again(self) -> None:
        """The last question with another seed; a model that fails now keeps the answer that it gave."""
        last = self.turns.pop()
        self.ask(last.asked, last.row)
        self.turns[-1].answers = last.answers | self.turns[-1].answers

    def save(self, file: Path) -> int:
        """Write all messages, one JSON object a line; how many. Raises Mistake, never overwrites."""
        lines: list[dict] = [{"role": "system", "content": self.system}] if self.system else []
        for turn in self.turns:
            number = {"row": turn.row.number} if turn.row else {}
            lines += [message | number for message in turn.asked]
            for label, said in turn.answers.items():
                scores = {"rewards": said.scores} if said.scores else {}
                lines.append({"role": "assistant", "content": said.text, "model": label, "seed": said.seed,
                              **number, **scores})  # fmt: skip
        try:
            with open(file.expanduser(), "x", encoding="utf-8", errors="replace") as out:
                for line in lines:
                    out.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
        except FileExistsError:
            raise Mistake(f"{file} is there already: another name keeps it as it is") from None
        except OSError as error:
            raise Mistake(f"{file} can't be written: {error.strerror}") from None
        return len(lines)


def opens_reasoning(engine: Engine, messages: list[dict]) -> bool:
    """Whether the prompt ends with <think>: some templates write it themselves."""
    return isinstance(engine, LocalEngine) and engine.render(messages).rstrip().endswith(OPEN)


def labels(models: list[Model]) -> list[str]:
    """Short names, each of them once."""
    short = [label(model) for model in models]
    known: list[str] = []
    for model, name in zip(models, short, strict=True):
        name = name if short.count(name) == 1 else model.said
        count = sum(one.partition(" #")[0] == name for one in known)
        known.append(f"{name} #{count + 1}" if count else name)
    return known


def label(model: Model) -> str:
    """A model's short name."""
    if model.kind == "server":
        return model.name or model.path.partition("://")[2].partition("/")[0]
    return f"{model.run.name}@{model.step}" if model.run else Path(model.said).name
