"""Talk with a model in the terminal, or with several side by side.

    python -m tools.chat outputs/RUN                          the last checkpoint; RUN@best, RUN@STEP another one
    python -m tools.chat outputs/RUN --with outputs/SFT       each question to both
    python -m tools.chat outputs/RUN --row random             a row of the run's dataset, with the reward of the answer
    python -m tools.chat Qwen/Qwen2.5-0.5B-Instruct dataset=gsm8k reward=math
    python -m tools.chat http://localhost:8000/v1
    make chat M=outputs/RUN ARGS="--with tiny"

MODEL is a run, a folder of weights or an adapter, a hub id, a name of conf/model, or the URL of a server with OpenAI's
protocol (http://host:8000/v1#NAME for one of its models; its key is read from $OPENAI_API_KEY). KEY=VALUE are words
of launch.py: dataset= and reward= for /row (a run has its own), hw= for how the model is loaded (auto).

In the conversation:
"""

import argparse
import os
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

from preflight import resolvers
from preflight.mistakes import Mistake
from preflight.names import split
from tools import Parser, guarded
from tools._chat.commands import Commands, checked, help_text
from tools._chat.rows import Rows
from tools._chat.talk import Party, Talk, labels
from tools._chat.terminal import Terminal
from tools._evaluate import settings
from tools._models.engine import ENGINES, LocalEngine, Sampling, Settings, open_engine
from tools._models.naming import URLS, Model, conf, find

DEFAULT = Sampling(temperature=0.7)
ALL = 1 << 30  # tokens: as many as the model takes; transformers reserves no memory for them
RETRIES = 1  # of a request to a server: a person waits


def rows_of(words: settings.Words, models: list[Model]) -> Rows | None:
    """What /row asks: dataset= and reward=, else those of the first run among the models. Raises Mistake."""
    run = next((model.run for model in models if model.run), None)
    rewards = settings.rewards_of(words)
    if words.has("dataset"):
        files = settings.dataset_files(settings.compose(words.common))
    elif run is None:
        if rewards:
            raise Mistake("a reward scores answers to the rows of a dataset: name it, dataset=NAME")
        return None
    else:
        try:
            files = settings.run_files(run)
        except Mistake:
            if rewards:
                raise
            return None  # gone, but one can talk without them
    return Rows(files, rewards or (settings.run_rewards(run) if run else []))


def settings_for(model: Model, words: settings.Words, args: argparse.Namespace) -> Settings:
    """How a model is loaded and asked."""
    common = words.common
    if conf(model.said) and not words.has("model"):
        common = [*common, f"model={model.said}"]
    config = settings.compose(common)
    found = settings.settings_of(config, model, args.template, args.dtype, args.context)
    if model.kind == "server":
        return replace(found, template=None, retries=RETRIES)
    return found


def open_parties(
    args: argparse.Namespace, words: settings.Words, models: list[Model]
) -> list[Party]:
    """All models, loaded. Raises Mistake."""
    local = sum(model.kind != "server" for model in models)
    for option in ("engine", "template", "dtype", "context"):
        if not local and getattr(args, option) not in (None, "auto"):
            raise Mistake(
                f"--{option} is for models that are loaded here, and a server loads its own"
            )
    parties = []
    for model, label in zip(models, labels(models), strict=True):
        print(f"loading {label} ...", file=sys.stderr, flush=True)
        how, choice = settings_for(model, words, args), args.engine
        if choice == "auto" and how.device == "cpu":
            choice = "transformers"  # vLLM takes longer to start than it saves
        if choice == "transformers" and how.context is None:
            how = replace(how, context=ALL)
        if "gpu_memory_utilization" in how.vllm and local > 1:  # each model its part of the memory
            share = how.vllm["gpu_memory_utilization"] / local
            how = replace(how, vllm=how.vllm | {"gpu_memory_utilization": share})
        parties.append(Party(label, open_engine(model, how, choice, args.max_tokens)))
    return parties


def described(party: Party) -> str:
    """A model and what answers for it."""
    engine = party.engine
    if isinstance(engine, LocalEngine):
        return f"{party.label} ({engine.name}, {engine.context} tokens in all)"
    return (
        f"{party.label} ({engine.name}: {engine.served})"
        if hasattr(engine, "served")
        else party.label
    )


def chat(args: argparse.Namespace) -> int:
    """Load, then read and answer until the end; returns the exit status."""
    said = [w for w in args.words if "=" not in w or w.startswith(URLS) or Path(w).exists()]
    rest = [w for w in args.words if w not in said]
    if not said:  # model=NAME says it as well
        said = [value for key, value in map(split, rest) if key == "model"]
    if not said:
        raise Mistake("name a model: python -m tools.chat outputs/RUN")
    words = settings.sorted_words(rest)
    models = [find(one) for one in (*said, *args.with_)]
    sampling = Sampling(args.temperature, args.top_p, args.top_k, args.max_tokens)
    rows = rows_of(words, models)
    first = rows.get(args.row) if rows and args.row else None  # before minutes of loading
    if args.row and rows is None:
        raise Mistake("--row: name a dataset (dataset=NAME), or a run")
    terminal = Terminal(Commands.names())
    parties = open_parties(args, words, models)
    talk = Talk(parties, terminal, sampling, args.seed, args.system, rows)
    commands = Commands(talk)
    for party in parties:
        terminal.note(described(party))
    terminal.note("/help lists the commands, Ctrl-D ends")
    if first:
        commands.do_row(str(first.number))
    while not commands.ended and (typed := terminal.read()) is not None:
        try:
            if typed.is_command:
                commands.run(typed.text)
            elif typed.text:
                talk.ask([{"role": "user", "content": typed.text}])
        except Mistake as error:
            terminal.say(f"error: {error}")
    return 0


def option(name: str):
    """A type for argparse: a value as /set takes it."""

    def value(text: str):
        try:
            return checked(name, text)
        except Mistake as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return value


def main(argv: list[str]) -> int:
    """The command line; returns the exit status."""
    commands = textwrap.indent(help_text(), "    ")
    parser = Parser(prog="python -m tools.chat", description=f"{__doc__}{commands}")
    parser.add_argument("words", nargs="+", metavar="MODEL | KEY=VALUE", help="see above")
    parser.add_argument("--with", dest="with_", action="append", default=[], metavar="MODEL",
                        help="another model beside it; may be given again")  # fmt: skip
    parser.add_argument("--system", metavar="TEXT", help="the system prompt")
    parser.add_argument("--row", metavar="N|random", help="begin with this row of the dataset")
    parser.add_argument("--temperature", type=option("temperature"), default=DEFAULT.temperature,
                        help="0: greedy (%(default)s)")  # fmt: skip
    parser.add_argument(
        "--top-p", type=option("top_p"), default=DEFAULT.top_p, help="(%(default)s)"
    )
    parser.add_argument(
        "--top-k", type=option("top_k"), default=DEFAULT.top_k, help="0: all tokens (%(default)s)"
    )
    parser.add_argument("--max-tokens", type=option("max_tokens"), default=DEFAULT.max_tokens,
                        help="of an answer (%(default)s)")  # fmt: skip
    parser.add_argument("--seed", type=option("seed"), default=0, help="of the first answer; the next has the next"
                        " (%(default)s)")  # fmt: skip
    parser.add_argument("--engine", choices=("auto", *ENGINES), default="auto",
                        help="auto: vllm on a GPU, transformers on a CPU")  # fmt: skip
    parser.add_argument(
        "--template", help="default, chatml, llama or a Jinja file; default the tokenizer's own"
    )
    parser.add_argument("--dtype", help="auto, float32, bfloat16, float16; default that of hw=")
    parser.add_argument("--context", type=option("max_tokens"),
                        help="tokens of a conversation; default all that the model takes, with vllm 4096 more than an"
                        " answer")  # fmt: skip
    args = parser.parse_intermixed_args(argv)
    resolvers.register()
    try:
        return guarded(lambda: chat(args), OSError)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # vLLM's C++ parts complain about each other when an interpreter ends
