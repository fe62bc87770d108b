"""The commands of a conversation: /NAME WORDS. A command is a method; the first line of its docstring is its help."""

from pathlib import Path
from typing import Any

from preflight.mistakes import Mistake, unknown
from tools._chat.talk import Talk
from tools._models.engine import Sampling

SETTABLE = {**Sampling.__annotations__, "seed": int}
NONE = "none"


def checked(name: str, text: str) -> Any:
    """A value of /set, or of an option. Raises Mistake."""
    if name not in SETTABLE:
        raise Mistake(unknown("setting", name, SETTABLE))
    kind = SETTABLE[name]
    good = {
        "temperature": (lambda v: 0 <= v <= 2, "a number from 0 (greedy) to 2, as vLLM and servers take it"),
        "top_p": (lambda v: 0 < v <= 1, "a number above 0, at most 1"),
        "top_k": (lambda v: v >= 0, "a whole number; 0: all tokens"),
        "max_tokens": (lambda v: v >= 1, "a whole number from 1 on"),
        "seed": (lambda v: 0 <= v < 1 << 63, "a whole number from 0 on"),
    }  # fmt: skip
    holds, meant = good[name]
    try:
        value = kind(text)
        if holds(value):
            return value
    except ValueError:
        pass
    raise Mistake(f"{name}={text}: {meant}")


def help_text() -> str:
    """All commands, and the keys beside them, one a line."""
    rows = []
    for name, text in Commands.names().items():
        usage, _, meaning = text.rpartition(": ")
        rows.append((f"{name} {usage}", meaning))
    rows += [
        (
            '"""',
            "begins and ends a question of several lines; or a \\ at the end of each line but the last",
        ),
        ("Ctrl-C", "stops the answer that is coming; Ctrl-D ends"),
    ]
    return "\n".join(f"{left:<24}{right}" for left, right in rows)


class Commands:
    """What can be done beside asking."""

    def __init__(self, talk: Talk):
        self.talk, self.say, self.note = talk, talk.terminal.say, talk.terminal.note
        self.ended = False

    @classmethod
    def names(cls) -> dict[str, str]:
        """Each command with its help, in the order below."""
        return {
            f"/{name[3:]}": method.__doc__.partition("\n")[0]
            for name, method in vars(cls).items()
            if name.startswith("do_")
        }

    def run(self, line: str) -> None:
        """Do what a line says. Raises Mistake."""
        name, _, words = line.partition(" ")
        if name not in self.names():
            raise Mistake(f"{unknown('command', name, self.names())}. A question that begins with a slash:"
                          " put a space before it.")  # fmt: skip
        getattr(self, f"do_{name[1:]}")(words.strip())

    def do_help(self, _: str) -> None:
        """this list"""
        self.say(help_text())

    def do_row(self, said: str) -> None:
        """N|random: ask this row of the dataset; shows the rewards and the reference answer"""
        rows = self.talk.rows
        if rows is None:
            raise Mistake(
                "no dataset is named: start with dataset=NAME (and reward=NAME), or with a run"
            )
        if not said:
            raise Mistake("which row: /row N, or /row random")
        row = rows.get(said)
        self.note(f"row {row.number} (from 0) of {rows.name}; it begins a new conversation")
        for message in row.messages:
            self.say(message["role"], "bold")
            self.say(message["content"])
        if len(self.talk.parties) == 1:
            self.say("answer", "bold")
        self.talk.ask(row.messages, row)

    def do_regen(self, _: str) -> None:
        """the last question again, with another seed"""
        if not self.talk.turns:
            raise Mistake("nothing was asked yet")
        if self.talk.sampling.temperature == 0:
            self.note("temperature=0 gives the same answer again: /set temperature=0.7")
        self.talk.again()

    def do_undo(self, _: str) -> None:
        """take back the last question and its answers"""
        if not self.talk.turns:
            raise Mistake("nothing was asked yet")
        asked = self.talk.turns.pop().asked[-1]["content"]
        self.note(f"taken back: {asked.splitlines()[0][:70] if asked else ''}")

    def do_reset(self, _: str) -> None:
        """a new conversation; the system prompt stays"""
        self.talk.turns.clear()
        self.note("a new conversation")

    def do_system(self, text: str) -> None:
        """[TEXT|none]: show the system prompt, or set it"""
        if text:
            self.talk.system = None if text == NONE else text
        self.note(f"system prompt: {self.talk.system or NONE}")

    def do_set(self, text: str) -> None:
        """[KEY=VALUE ...]: show or set temperature, top_p, top_k, max_tokens, seed"""
        found = {}
        for word in text.split():
            name, equals, value = word.partition("=")
            if not equals:
                raise Mistake(f"{word}: /set KEY=VALUE, as in /set temperature=0.7")
            found[name] = checked(name, value)
        self.talk.seed = found.pop("seed", self.talk.seed)
        self.talk.sampling = self.talk.sampling._replace(**found)
        now = {**self.talk.sampling._asdict(), "seed": self.talk.seed}
        self.note("  ".join(f"{name}={value}" for name, value in now.items()))

    def do_save(self, file: str) -> None:
        """FILE: write all messages, a JSON object a line; a file that is there stays as it is"""
        if not file:
            raise Mistake("where to: /save FILE")
        count = self.talk.save(Path(file))
        self.note(f"{count} messages in {file}")

    def do_quit(self, _: str) -> None:
        """end (Ctrl-D, too)"""
        self.ended = True
