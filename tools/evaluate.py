"""Ask models all questions of a file, score the answers, and write them down.

    python -m tools.evaluate outputs/RUN                      the run's own validation rows and reward
    python -m tools.evaluate outputs/RUN tiny dataset=sql_demo reward=sql --output results.xlsx
    python -m tools.evaluate Qwen/Qwen2.5-0.5B-Instruct --input questions.json --output results.xlsx
    python -m tools.evaluate http://localhost:8000/v1 --input questions.csv reward=exact,format --n 8
    make evaluate M=outputs/RUN ARGS="--n 8"

MODEL is a run (RUN, RUN@best, RUN@STEP), a folder of weights or an adapter, a hub id, a name of conf/model, or the URL
of a server with OpenAI's protocol. KEY=VALUE are words of launch.py: dataset= (its validation rows), reward= (names
or FILE.py[:FUNCTION], several with commas; options are lab.reward.KEY=VALUE, or NAME:lab.reward.KEY=VALUE for one of
several), hw= (auto). Without a reward, answers only.

A file has a prompt in each row (prompt, messages, question, instruction ...) and, if there is one, a ground truth
(ground_truth, reward_model.ground_truth, answer, reference ...). --output ends with .xlsx .csv .jsonl .html or
.parquet. Answers are written down as they come: the same command goes on where it was stopped.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from launcher.results import PACKAGES, git_revision, version
from plugins.rollout.samples import seed_of
from preflight import resolvers, tables
from preflight.mistakes import Mistake
from tools import Parser, guarded
from tools._evaluate import settings, summary, write
from tools._evaluate.rows import Columns, Row, rows_of
from tools._evaluate.scoring import Scorer
from tools._evaluate.store import Store
from tools._models.engine import ENGINES, Asked, Engine, Sampling, open_engine
from tools._models.naming import URLS, Model, find, short_names

SAMPLED = 0.7  # temperature, where several answers are asked for
FOLDER = Path("outputs/evaluate")
COUNTS = {
    "questions": "questions",
    "answers": "answers",
    "cut": "cut at the longest length",
    "too_long": "not asked: the prompt is too long",
    "ungraded": "could not be graded",
}


class Evaluation:
    """What the command line asks for.

    Raises Mistake for what can't be done, before any model is loaded.
    """

    def __init__(self, args: argparse.Namespace):
        self.args = args
        given = [w for w in args.words if "=" not in w or w.startswith(URLS) or Path(w).exists()]
        self.words = settings.sorted_words([w for w in args.words if w not in given])
        self.config = settings.compose(self.words.common)
        chosen = given or ([self.config.lab.model.path] if self.words.has("model") else [])
        if not chosen:
            raise Mistake("name a model: python -m tools.evaluate outputs/RUN")
        chosen = [said.rstrip("/") or said for said in chosen]  # RUN/ is RUN
        if len(set(chosen)) < len(chosen):
            raise Mistake(f"a model is named twice: {' '.join(chosen)}")
        self.models = [find(said) for said in chosen]
        run = next((model.run for model in self.models if model.run), None)
        self.files = self.input(run)
        self.rewards = settings.rewards_of(self.words)
        if not self.words.rewards and run and not args.input:
            self.rewards = settings.run_rewards(run)
        longest = args.max_tokens or settings.longest_answer(self.config, self.words, run)
        several = SAMPLED if args.n > 1 else 0.0
        temperature = several if args.temperature is None else args.temperature
        self.sampling = Sampling(temperature, args.top_p, args.top_k, longest)
        if args.n > 1 and temperature == 0:
            raise Mistake(f"--n {args.n} with --temperature 0 gives {args.n} equal answers")
        self.columns = Columns(args.prompt, args.truth, args.system)
        next(rows_of(self.files, self.columns))  # the first row says whether the others can be read
        self.output = args.output or self.default_output()
        write.check(self.output, self.files)

    def input(self, run: Path | None) -> list[Path]:
        """The files with the questions."""
        if self.args.input:
            if not self.args.input.is_file():
                raise Mistake(f"no such file: {self.args.input}")
            return [self.args.input]
        if self.words.has("dataset"):
            return settings.dataset_files(self.config)
        if run:
            return settings.run_files(run)
        raise Mistake("name the questions: --input FILE, or dataset=NAME")

    def default_output(self) -> Path:
        """outputs/evaluate/MODEL-INPUT.jsonl."""
        names = [model.said.rstrip("/").removeprefix("outputs/") for model in self.models]
        source = self.files[0]
        where = source.stem if self.args.input else source.parent.name
        clean = "".join(c if c.isalnum() or c in "-_.@" else "_" for c in "+".join(names))[:120]
        return FOLDER / f"{clean}-{where}.jsonl"

    def asked(self) -> dict:
        """What must be the same for answers to stand in one file."""
        return {
            "models": {model.said: settings.fingerprint(model.path) for model in self.models},
            "input": [settings.fingerprint(str(file)) for file in self.files],
            "columns": list(self.columns),
            "n": self.args.n,
            "sampling": self.sampling._asdict(),
            "seed": self.args.seed,
            "template": self.args.template,
            "rewards": {name: settings.identity(subject) for name, subject in self.rewards},
        }  # fmt: skip


def ask(work: Evaluation, model: Model, store: Store) -> None:
    """Ask one model what it has not answered yet."""
    from tqdm import tqdm

    args = work.args
    missing: dict[int, Row] = {}  # that the engine has, and has not answered

    def rows() -> Iterator[Row]:
        for row in rows_of(work.files, work.columns, args.rows):
            if not store.has(model.said, row.number):
                yield row

    if next(rows(), None) is None:
        return
    how = settings.settings_of(work.config, model, args.template, args.dtype, args.context)
    print(f"loading {model.said} ...", file=sys.stderr, flush=True)
    engine: Engine = open_engine(model, how, args.engine, work.sampling.max_tokens)

    def asked() -> Iterator[Asked]:
        for row in rows():
            missing[row.number] = row
            seeds = tuple(seed_of(args.seed, row.number, i) for i in range(args.n))
            yield Asked(row.number, row.messages, seeds)

    total = known_rows(work)
    done = sum(store.done.get(model.said, b""))
    scorer = Scorer(work.rewards, store.add)
    begin = time.perf_counter()
    try:
        with tqdm(total=total, initial=done, unit=" rows", disable=None, desc=engine.name) as bar:
            for one, answers in engine.answers(asked(), work.sampling):
                scorer.add(model.said, missing.pop(one.key), answers)
                bar.update()
        scorer.finish()
        new, seconds = sum(store.done[model.said]) - done, time.perf_counter() - begin
        print(
            f"{new} questions in {seconds:.2f} s ({new * args.n / seconds:.1f} answers/s)",
            file=sys.stderr,
        )
    finally:
        scorer.close()
        engine.close()


def known_rows(work: Evaluation) -> int | None:
    """How many questions there are, where that is known without reading all."""
    import pyarrow.parquet as pq

    if any(file.suffix != ".parquet" for file in work.files):
        return work.args.rows
    count = sum(pq.read_metadata(file).num_rows for file in work.files)
    return min(count, work.args.rows or count)


def tables_of(found: dict) -> list[write.Table]:
    """The figures as tables."""
    short = short_names(list(found))
    found = {short[model]: figures for model, figures in found.items()}
    models = list(found)
    everything = {model: found[model][summary.EVERYTHING] for model in models}
    made = []
    parts = list(dict.fromkeys(part for figures in everything.values() for part in figures.means))
    if parts:
        rows = [[part, *(everything[m].means[part].cell for m in models)] for part in ranked(parts)]
        made.append(
            write.Table("Mean over questions, ± half of its 95 % interval", ["", *models], rows)
        )
    counts: list[list] = [
        [word, *(getattr(everything[m], name) for m in models)]
        for name, word in COUNTS.items()
        if name in ("questions", "answers") or any(getattr(everything[m], name) for m in models)
    ]
    counts.append(
        ["tokens of an answer, mean", *(round(everything[m].tokens.mean, 1) for m in models)]
    )
    made.append(write.Table("Answers", ["", *models], counts))
    ungraded = any(figures.ungraded for figures in everything.values())
    for part in dict.fromkeys(p for figures in everything.values() for p in figures.classes):
        classes = dict.fromkeys(
            c for f in everything.values() for c, _ in f.classes[part].most_common(12)
        )
        if len(classes) > 1 or ungraded:
            rows = [[c, *(everything[m].share(part, c) for m in models)] for c in classes]
            made.append(write.Table(f"Shares of {part}", ["", *models], rows))
    categories = sorted({c for m in models for c in found[m]} - {summary.EVERYTHING})
    for name in [p for p in parts if is_judged(p, parts)] if categories else []:
        rows = [
            [c, max(found[m][c].questions for m in models), *(found[m][c].means[name].cell for m in models)]
            for c in categories
        ]  # fmt: skip
        made.append(write.Table(f"{name} by category", ["", "questions", *models], rows))
    return made


def is_judged(part: str, parts: list[str]) -> bool:
    """Whether a reward is told by this part: right or wrong, or its score where it says neither."""
    prefix, _, name = part.rpartition("/")
    other = f"{prefix}/acc" if prefix else "acc"
    return name == "acc" or (name == "score" and other not in parts)


def ranked(parts: list[str]) -> list[str]:
    """Reward by reward; of each what is asked for first: right or wrong, the score, pass@k, maj@k."""
    first = {"acc": 0, "score": 1, "pass": 2, "maj": 3}
    rewards = list(dict.fromkeys(part.rpartition("/")[0] for part in parts))

    def place(part: str) -> tuple:
        prefix, _, name = part.rpartition("/")
        kind, _, k = name.partition("@")
        return rewards.index(prefix), first.get(kind, 4), int(k or 0)

    return sorted(parts, key=place)


def evaluate(args: argparse.Namespace) -> int:
    """Ask, score, sum up, write; returns the exit status."""
    work = Evaluation(args)
    store = Store(work.output, work.asked(), args.force)
    before = store.rows
    if before:
        print(f"{before} questions are answered already, in {store.file}", file=sys.stderr)
    try:
        for model in work.models:
            ask(work, model, store)
    except (Mistake, OSError, KeyboardInterrupt) as stop:
        held = f"{store.rows} questions are answered, in {store.file}: the same command goes on from there"
        if not isinstance(stop, KeyboardInterrupt):  # OSError: a full disk
            said = f"{store.file}: {stop.strerror}" if isinstance(stop, OSError) else str(stop)
            raise Mistake(f"{said}\n{held}" if store.rows else said) from None
        print(f"\nstopped; {held if store.rows else 'nothing was answered yet'}", file=sys.stderr)
        return 130
    finally:
        store.close()
    rewards = [one.name for one in work.rewards]
    names = write.columns_of(store)
    if missing := [column for column in args.by if column not in names]:
        raise Mistake(f"--by {missing[0]}: no such column. There is: {', '.join(names)}")
    found = summary.summarize(store.questions(), rewards, args.by, store.columns)
    made = tables_of(found)
    record = store.settings | {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": {name: v for name in PACKAGES if (v := version(name))},
        "git": git_revision(),
    }
    store.write_settings(
        summary={m: {c: f.as_dict() for c, f in of.items()} for m, of in found.items()}
    )
    try:
        write.write(write.View(store, names, made, record))
    except OSError as error:
        raise Mistake(
            f"{work.output}: {error.strerror}. All answers are in {store.file}: the same command asks nothing again"
        ) from None
    for table in made:
        print(f"\n{table.title}\n\n{tables.text(table.heads, table.rows)}")
    if not rewards:
        print("\nno reward was named, so no answer is scored: reward=NAME, such as reward=exact")
    print(
        f"\n{work.output}" + ("" if work.output == store.file else f"\nas JSON lines: {store.file}")
    )
    return 0


def main(argv: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = Parser(prog="python -m tools.evaluate", description=__doc__)
    parser.add_argument("words", nargs="+", metavar="MODEL | KEY=VALUE", help="see above")
    parser.add_argument("--input", type=Path, help="questions: parquet, JSON, JSONL or CSV")
    parser.add_argument("--output", type=Path, help=f"default {FOLDER}/MODEL-INPUT.jsonl")
    parser.add_argument(
        "--force", action="store_true", help="begin anew: the answers that are there are lost"
    )
    parser.add_argument("--rows", type=positive, help="only the first so many questions")
    parser.add_argument("--prompt", help="the column with the prompt")
    parser.add_argument("--truth", help="the column with the ground truth")
    parser.add_argument("--system", help="a system message before each prompt")
    parser.add_argument(
        "--by", action="append", default=[], help="a column: figures for each of its values"
    )
    parser.add_argument("--n", type=positive, default=1, help="answers to a question (%(default)s)")
    parser.add_argument(
        "--temperature", type=float, help=f"0: greedy. Default 0; {SAMPLED} with --n above 1"
    )
    parser.add_argument("--top-p", type=float, default=1.0, help="(%(default)s)")
    parser.add_argument("--top-k", type=int, default=0, help="0: all tokens (%(default)s)")
    parser.add_argument("--max-tokens", type=positive, help="of an answer; default the dataset's or the run's, or"
                        f" {settings.LONGEST}")  # fmt: skip
    parser.add_argument("--context", type=positive, help="tokens of prompt and answer together")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument(
        "--engine",
        choices=("auto", *ENGINES),
        default="auto",
        help="auto: vllm where it is installed",
    )
    parser.add_argument("--dtype", help="auto, float32, bfloat16, float16; default that of hw=")
    parser.add_argument(
        "--template", help="default, chatml, llama or a Jinja file; default the tokenizer's own"
    )
    args = parser.parse_intermixed_args(argv)
    resolvers.register()
    return guarded(lambda: evaluate(args), ValueError, OSError)


def positive(text: str) -> int:
    """A number from 1 on."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # vLLM's C++ parts complain about each other when an interpreter ends
