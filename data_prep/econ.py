"""Economic decisions of households: work and consumption as JSON, simulated or from your own file.

Without a FILE, households are simulated: data_prep/_econ/simulate.py says how, and the same --seed gives
the same rows. A FILE (CSV, TSV, JSON, JSONL, parquet) has a row for each household and year, with these columns:
  employed             true, false, 1, 0, yes or no; required
  wealth               savings; required
  dpi                  disposable income in a year; without it, income + transfer - tax
  income, transfer, tax, buffer_ratio
  unemployment_rate, u12 (its mean over the last year)   shares: 0.05 for 5 %
  gdp_growth, wage_inflation, price_inflation            percent: 2.0 for 2 %
  r_okun, r_phillips   correlations, as rewards/econ.py defines them
  work, consumption    the decision: from 0 to 1, both or neither
  score                how good the decision is
  household            its name: all rows of a household are on one side of the split (without it: of a prompt)
An empty cell, null and NaN mean that a value is absent. --map is for a file whose columns have other
names: --map employed=gt_employed,u12=u_mean_12m
Writes RL rows, whose ground truth is the state as JSON for `reward=econ`, and SFT rows, whose answers
are the decisions.
--few-shot K puts the decisions of K similar households of the training split into each prompt.
--good-only takes only good decisions for SFT rows and examples: the best 30 % of the employed and 60 % of
the unemployed, so that 15 % are unemployed. The score decides, or if there is none, the reward of the
decision (without its macro parts: a good year does not make a good decision). All RL rows stay.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_prep import _dataset, _read
from data_prep._econ.examples import Examples, good, pool, rewarded
from data_prep._econ.rows import COLUMNS, checked, decision, ground_truth, prompt
from data_prep._econ.simulate import simulate
from data_prep._read import BadRow, Broken
from data_prep._split import Split
from preflight.mistakes import Mistake

SIMULATION = {"seed": 0, "economies": 5, "households": 40, "years": 20}
EXTRA = dict.fromkeys(["household", "decision"], pa.string())


def _from(least: int) -> Callable[[str], int]:
    """The type of an option: a whole number, not below `least`."""

    def number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is below {least}")
        return int(text)

    return number


def _names(text: str) -> dict[str, str]:
    """The value of --map."""
    names = dict(pair.split("=", 1) for pair in text.split(",") if "=" in pair)
    unknown = sorted(set(names) - set(COLUMNS))
    if unknown or len(names) != len(text.split(",")):
        what = f"no column {', '.join(unknown)}" if unknown else f"{text!r} is not NAME=COLUMN,..."
        raise argparse.ArgumentTypeError(f"{what}; columns: {', '.join(COLUMNS)}")
    return names


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this source."""
    parser.add_argument(
        "source",
        nargs="?",
        type=Path,
        metavar="FILE",
        help="file of states (default: simulated)",
    )
    parser.add_argument(
        "--map", type=_names, metavar="NAME=COLUMN,...", help="names of the file's columns"
    )
    for name, default in SIMULATION.items():
        help_text = f"of the simulation, without FILE ({default})"
        parser.add_argument(f"--{name}", type=_from(int(name != "seed")), help=help_text)
    parser.add_argument(
        "--few-shot",
        type=_from(2),  # an employed and an unemployed household
        metavar="K",
        help="number of examples in each prompt, 2 or more",
    )
    parser.add_argument(
        "--good-only", action="store_true", help="only good decisions in SFT rows and examples"
    )
    parser.add_argument(
        "--val-share",
        type=_dataset.val_share,
        default=0.05,
        help="share of households for validation (0.05)",
    )
    _read.add_options(parser)
    _dataset.add_options(parser, "econ")


class Source:
    """The rows, which can be read more than once."""

    def __init__(self, args: argparse.Namespace):
        given = {name: getattr(args, name) for name in SIMULATION}
        self.file, self.names, self.split = args.source, args.map or {}, Split(args.val_share)
        self.simulation = {k: SIMULATION[k] if v is None else v for k, v in given.items()}
        self.name, self.read = "simulation", _read.reader(args, there=self.file is not None)
        if self.file is None:
            if self.names:
                raise Mistake("--map is for a FILE")
            return
        if named := [name for name, value in given.items() if value is not None]:
            raise Mistake(f"--{named[0]} is of the simulation, and {self.file} is given")
        if not self.file.is_file():
            raise Mistake(f"no file {self.file}")
        self.name = self.file.name

    def rows(self) -> Iterator[dict | Broken]:
        return self.read(self.file) if self.file else simulate(**self.simulation)

    def state(self, row: dict | Broken) -> dict:
        """The checked row, with its household and split. Raises BadRow."""
        if isinstance(row, Broken):
            raise BadRow(row.why)
        for name, column in self.names.items():
            if column not in row:
                raise BadRow(f"{column}: missing, and --map takes {name} from it")
            row = row | {name: row[column]}
        state = checked(row)
        name = row.get("household")
        name = "" if name is None else str(name)
        split = self.split.of([name] if name else prompt(state, []))
        return state | {"household": name, "split": split}

    def decided(self) -> Iterator[tuple[int, dict]]:
        """(row number, state) of the good rows with a decision."""
        for number, row in enumerate(self.rows()):
            try:
                state = self.state(row)
            except BadRow:  # counted when the rows are written
                continue
            if "work" in state:
                yield number, state


def survey(source: Source) -> np.ndarray:
    """Of each row with a decision: its number, split, employment and score (NaN if there is none)."""
    kinds = [("number", "i8"), ("train", "?"), ("employed", "?"), ("score", "f8")]
    found = (
        (number, state["split"] == "train", state["employed"], state.get("score", np.nan))
        for number, state in source.decided()
    )
    return np.fromiter(found, kinds)


def good_of(decisions: np.ndarray, source: Source) -> np.ndarray:
    """Those that are good. Raises Mistake if that can't be told."""
    if not len(decisions):
        raise Mistake("--good-only needs decisions: columns work and consumption")
    scores = decisions["score"]
    if np.isnan(scores).all():
        scores = np.array(rewarded(state for _, state in source.decided()))
    elif missing := int(np.isnan(scores).sum()):
        raise Mistake(f"--good-only: {missing} decisions have no score, the others have one")
    kept = []
    for train in (True, False):
        here = np.flatnonzero(decisions["train"] == train)
        kept.append(here[good(scores[here], decisions["employed"][here])])
    return decisions[np.concatenate(kept)]


def examples_of(decisions: np.ndarray, source: Source) -> Examples:
    """The examples, of the training split among these decisions."""
    train = decisions[decisions["train"]]
    drawn = set(train["number"][pool(train["employed"], source.simulation["seed"])].tolist())
    return Examples([state for number, state in source.decided() if number in drawn])


def forms(number: int, state: dict, examples: list[tuple[str, str]]) -> tuple[dict, dict | None]:
    """(RL row, SFT row or None)."""
    asked, answer = prompt(state, examples), decision(state)
    info = {"index": number, "split": state["split"]}
    rl = {
        "data_source": "econ",
        "prompt": asked,
        "ability": "economics",
        "reward_model": {"style": "rule", "ground_truth": ground_truth(state)},
        "extra_info": {**info, "household": state["household"], "decision": answer},
    }
    return rl, {"messages": [*asked, {"role": "assistant", "content": answer}]} if answer else None


def run(args: argparse.Namespace) -> None:
    """Make the dataset."""
    source = Source(args)

    def fill(rows: _dataset.Rows) -> None:
        decisions, wanted, examples = None, None, None
        if args.good_only or args.few_shot:
            decisions = survey(source)
        if args.good_only:
            decisions = good_of(decisions, source)
            wanted = set(decisions["number"].tolist())
            rows.notes["good"] = {
                name: int((decisions["employed"] == kind).sum())
                for name, kind in (("employed", True), ("unemployed", False))
            }
        if args.few_shot:
            examples = examples_of(decisions, source)
        for number, row in rows.reading(source.rows(), source.name):
            try:
                state = source.state(row)
            except BadRow as error:
                rows.reject(number, row.text if isinstance(row, Broken) else row, str(error))
                continue
            rl, sft = forms(number, state, examples.near(state, args.few_shot) if examples else [])
            rows.add(number, row, rl, sft if wanted is None or number in wanted else None)

    _dataset.make("econ", args, fill, EXTRA, [source.file] if source.file else [])
