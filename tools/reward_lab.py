"""Try a reward on a dataset before any training: reference answers, attacks, speed, and what carries signal.

    python -m tools.reward_lab reward=sql dataset=sql_demo
    python -m tools.reward_lab reward=sql dataset=sql_demo --answers outputs/RUN
    python -m tools.reward_lab reward=econ dataset=econ --model Qwen/Qwen2.5-7B-Instruct --n 8
    python -m tools.reward_lab reward=none reward.custom_reward_function.path=my_reward.py dataset=jsonl

KEY=VALUE are overrides of launch.py: the reward is called as a run would call it. Prints tables and writes a page,
outputs/reward_lab/REWARD-DATASET.html. Exit status 1 if a bar fails, each by its name, so that it can guard a CI:

    reference  every reference answer scores at least what the reward promises, or more than empty ones
    empty      the empty answer and random ones score at most what it promises
    range      every score is a number within the range that it promises, and none had to be stopped
    attack:X   an attack of that name earns less than half the way from an empty answer to a reference answer
    signal     in at least --min-signal of the groups of sampled answers, scores differ (--answers, --model)
    time       99 of 100 calls, one after another, take at most --max-seconds

What a reward promises, it says by `bars` and `reference_answer` beside its function (see rewards/__init__.py).
"""

import argparse
import asyncio
import random
import sys
import time
from pathlib import Path
from statistics import fmean, median, pstdev
from typing import NamedTuple

from preflight import names, resolvers
from preflight.checks.files import check_data_files
from preflight.mistakes import Mistake
from preflight.subject import Subject
from rewards._limits.calls import RewardError
from rewards._rows import RowError, ground_truth_of, place_of, read_rows
from tools import Parser, _lab_answers, _lab_page, guarded
from tools._lab_attacks import ATTACKS, FREE, words_of
from tools._lab_page import scores

TIMED = 100  # calls one after another


class Bar(NamedTuple):
    """A condition, by its name, whether it holds, and the figures."""

    name: str
    holds: bool
    figures: str


def rows_of(file: Path) -> list[dict]:
    """All rows of a file. Raises Mistake for a broken one."""
    rows = []
    for number, row in read_rows(file):
        if isinstance(row, RowError):
            raise Mistake(f"{place_of(file, number)}: {row}")
        rows.append(row)
    return rows


def answers_of(subject: Subject, rows: list[dict], rng: random.Random) -> dict[str, list[tuple]]:
    """(row, answer) of each kind: reference answer, empty, random, another row's reference answer, and the attacks."""
    with_reference = [
        (row, reference) for row in rows if (reference := subject.reference(row)) is not None
    ]
    # a format or a length knows no reference answer: attacks are then made of the ground truth
    begun = with_reference or [(row, str(ground_truth_of(row))) for row in rows]
    letters = "".join(word for row, reference in begun for word in words_of(row, reference)) + " \n"
    rolled = with_reference[1:] + with_reference[:1]
    kinds = {
        "reference": with_reference,
        "empty": [(row, "") for row in rows],
        "random": [(row, "".join(rng.choices(letters, k=200))) for row in rows],
        "another_reference": [
            (row, other) for (row, reference), (_, other) in zip(with_reference, rolled, strict=True)
            if other != reference
        ],
    }  # fmt: skip
    for name, attack in ATTACKS.items():
        kinds[name] = [(row, attack(row, reference, rng)) for row, reference in begun]
    return {name: pairs for name, pairs in kinds.items() if pairs}


async def measure(subject: Subject, kinds: dict, groups: list) -> dict:
    """All results, and times: of calls one after another, and of all at once."""
    mixed = [pair for pairs in zip(*kinds.values(), strict=False) for pair in pairs][:TIMED]
    await subject.score(*mixed[0])  # the first one starts processes, and reads reference answers
    seconds = []
    for row, answer in mixed:
        begin = time.perf_counter()
        await subject.score(row, answer)
        seconds.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    results = {
        name: await asyncio.gather(*(subject.score(*pair) for pair in pairs))
        for name, pairs in kinds.items()
    }
    rate = sum(map(len, results.values())) / (time.perf_counter() - begin)
    sampled = [await asyncio.gather(*(subject.score(*pair) for pair in group)) for group in groups]
    p99 = sorted(seconds)[int(0.99 * len(seconds))]
    times = {"median": median(seconds), "p99": p99, "rate": rate}
    return {"results": results, "sampled": sampled, **times}


def spreads(sampled: list[list[dict]]) -> dict[str, tuple[float, float]]:
    """Of each number of the results: mean of its standard deviation within a group, share of groups with any."""
    names_of = {
        k for group in sampled for r in group for k, v in r.items() if isinstance(v, int | float)
    }
    found = {}
    for name in sorted(names_of, key=lambda name: (name != "score", name)):
        inside = [
            pstdev(values) for group in sampled
            if len(values := [r[name] for r in group if r.get(name) == r.get(name) and r.get(name) is not None]) > 1
        ]  # fmt: skip
        if inside:
            found[name] = fmean(inside), fmean(spread > 1e-9 for spread in inside)
    return found


def judge(
    subject: Subject, measured: dict, parts: dict, min_signal: float, max_seconds: float
) -> list[Bar]:
    """Every bar that can be measured; `parts`: what `spreads` found."""
    results, promised = measured["results"], subject.bars
    low, high = promised["range"]
    everything = [r for some in [*results.values(), *measured["sampled"]] for r in some]
    outside = [s for s in scores(everything) if not low - 1e-9 <= s <= high + 1e-9]
    stopped = sum(result["stopped"] != "no" for result in everything)
    empty = scores(results["empty"]) + scores(results["random"])
    least = promised["empty"] if promised["empty"] is not None else max(empty, default=0.0)
    bars = [Bar("range", not outside and not stopped, f"{len(outside)} of {len(everything)} scores outside of"
                f" [{low:g}, {high:g}], {stopped} stopped")]  # fmt: skip
    reference = scores(results.get("reference", []))
    if reference:
        bar = (
            promised["reference"]
            if promised["reference"] is not None
            else max(empty, default=0.0) + 1e-9
        )
        good = sum(score >= bar - 1e-9 for score in reference)
        missing = len(results["reference"]) - len(reference)
        figures = f"{good} of {len(results['reference'])} score at least {bar:.4g}, {missing} could not be graded;"
        figures += f" the lowest {min(reference):.4g}"
        bars.append(Bar("reference", good == len(reference) and not missing, figures))
    if promised["empty"] is not None and empty:
        bad = sum(score > least + 1e-9 for score in empty)
        bars.append(
            Bar(
                "empty",
                not bad,
                f"{bad} of {len(empty)} score above {least:.4g}; the highest {max(empty):.4g}",
            )
        )
    half = (least + fmean(reference)) / 2 if reference else None
    for name in ATTACKS:
        earned = scores(results.get(name, []))
        if half is not None and half > least and earned and name not in (*FREE, *promised["free"]):
            bars.append(
                Bar(
                    f"attack:{name}",
                    fmean(earned) < half,
                    f"mean {fmean(earned):.4g}, half the way is {half:.4g}",
                )
            )
    if measured["sampled"]:
        share = parts.get("score", (0.0, 0.0))[1]
        bars.append(
            Bar(
                "signal",
                share >= min_signal,
                f"scores differ in {share:.0%} of {len(measured['sampled'])} groups",
            )
        )
    p99 = measured["p99"]
    bars.append(Bar("time", p99 <= max_seconds, f"p99 {p99:.4f} s, at most {max_seconds:g} s"))
    return bars


def main(argv: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = Parser(prog="python -m tools.reward_lab", description=__doc__)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for launch.py")
    parser.add_argument("--rows", type=int, default=64, help="of the validation file (%(default)s)")
    parser.add_argument("--answers", type=Path, help="sampled answers: a file, or a run's folder")
    parser.add_argument("--model", help="a model that samples answers: a run, a folder, a hub id")
    parser.add_argument("--n", type=int, default=8, help="answers to a prompt (%(default)s)")
    parser.add_argument("--groups", type=int, default=32, help="of sampled answers (%(default)s)")
    parser.add_argument("--min-signal", type=float, default=0.1, help="(%(default)s)")
    parser.add_argument("--max-seconds", type=float, default=5.0, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of rows and attacks (%(default)s)")
    parser.add_argument(
        "--out", type=Path, help="the page; default outputs/reward_lab/REWARD-DATASET.html"
    )
    args = parser.parse_intermixed_args(argv)
    resolvers.register()
    try:
        return guarded(lambda: try_reward(args), ValueError, OSError)
    except RewardError as error:
        row = next(line for line in str(error).splitlines() if line.startswith("the row: "))
        print(f"error: {error.brief}\n    {row}", file=sys.stderr)
        return 2


def try_reward(args: argparse.Namespace) -> int:
    """Measure, print, write the page; 1 if a bar fails."""
    config = names.composed(names.check_argv(args.overrides))
    subject, rng = Subject(config), random.Random(args.seed)
    if wrong := check_data_files(config):
        raise Mistake(wrong)
    rows = rows_of(Path(config.data.val_files))
    rows = rng.sample(rows, min(args.rows, len(rows)))
    groups = []
    if args.answers:
        groups = _lab_answers.from_files(args.answers, args.groups)
    elif args.model:
        longest, template = (
            config.data.max_response_length,
            dict(config.lab.model.chat_template_kwargs),
        )
        groups = _lab_answers.from_model(resolvers.model_path(args.model), rows[: args.groups], args.n, longest,
                                         template, args.seed)  # fmt: skip
    kinds = answers_of(subject, rows, rng)
    measured = asyncio.run(measure(subject, kinds, groups))
    parts = spreads(measured["sampled"])
    bars = judge(subject, measured, parts, args.min_signal, args.max_seconds)
    tables = _lab_page.tables(measured, bars, parts)
    reward = subject.path.rpartition(".")[2] if "://" in subject.path else Path(subject.path).stem
    title = f"{reward} on {config.lab.dataset.dir}"
    for table in tables:
        print(table)
    page = (
        args.out
        or Path("outputs/reward_lab") / f"{title.replace(' on data/', '-').replace('/', '_')}.html"
    )
    examples = {
        name: (pairs[0][1], measured["results"][name][0]["score"]) for name, pairs in kinds.items()
    }
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(_lab_page.page(title, tables, measured, parts, examples), encoding="utf-8")
    failed = [bar.name for bar in bars if not bar.holds]
    print(page, f"failed: {', '.join(failed)}" if failed else "all bars hold", sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
