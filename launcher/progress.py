"""One line a step, from a run's metrics.jsonl; the milestones of the start, from its log.txt."""

import contextlib
import re
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.best import BestModel
from launcher.metrics import parse
from launcher.samples import Samples
from launcher.tail import Tail

if TYPE_CHECKING:
    from launcher.alerts import Watch


class StoppedEarly(Exception):
    """A job of a sweep has lost its place (halving.py); `record` is what run.json says of it."""

    def __init__(self, record: dict[str, Any]):
        super().__init__()
        self.record = record


NESTED = "[stage]"  # begins a line of a stage's output in the run's own log (launcher/stages.py)
MESSAGE = "[message] "  # begins a line of the log that is shown on the screen as well
ALERT = "alert: "  # begins what is wrong in a run (launcher/alerts.py)
# What stands in the log when a part of a run is up, and what the screen shows then (None: nothing).
MILESTONES = {
    "Started a local Ray instance": "Ray is up",
    "actor and ref model engine initialized": "the model is loaded",
    "all initialize finished": "vLLM is up",
    "Saving checkpoint to": None,
    NESTED: None,
}
# The metric that a run is judged by.
ACCURACY = "val-core/.*/acc/mean@.*|val-core/.*/mean@.*"
VALIDATION = f"{ACCURACY}|val/loss"
RAY_PREFIX = re.compile(r"^(?:\((?:\w+ )?pid=\d+[^)]*\)|\[rank\d+\]:) ?")  # or torchrun's
# What rewards/_limits/calls.py raises for a reward that raises; its place and its row are in the next lines.
RAISED = re.compile(r"RewardError: (the reward .+ raised .+)")
# What plugins/patches/reward_infos.py raises if it does so too often.
TOO_MANY_RAISED = re.compile(r"RuntimeError: the reward raised for \d+ of \d+ answers.*")
ABOUT_REWARD = re.compile(rf"(?:{re.escape(NESTED)})?\s*(at .+|the row: .+)")
OF_STAGE = re.compile(rf"{re.escape(NESTED)}\s*\S+\s+({ALERT}.+)")
ANSI = re.compile(r"\x1b\[[0-9;]*m")
# column, width, format, and the metrics that can fill it (a regular expression, the first that is there)
COLUMNS = {
    "rl": [
        ("reward", "{:8.3f}", "critic/(score|rewards)/mean"),
        ("val acc", "{:8.3f}", ACCURACY),
        ("KL", "{:8.4f}", "actor/kl_loss|actor/reward_kl_penalty|actor/ppo_kl"),
        ("entropy", "{:8.3f}", "actor/entropy"),
        ("length", "{:7.1f}", "response_length/mean"),
        ("s/step", "{:7.2f}", "timing_s/step"),
    ],
    "sft": [
        ("loss", "{:8.4f}", "train/loss"),
        ("val loss", "{:8.4f}", "val/loss"),
        ("lr", "{:9.1e}", "train/lr"),
        ("grad", "{:8.3f}", "train/grad_norm"),
        ("tokens", "{:8.0f}", "train/global_tokens"),
        ("s/step", "{:7.2f}", "timing_s/step"),
    ],
    "preference": [
        ("loss", "{:8.4f}", "train/loss"),
        ("acc", "{:6.3f}", "train/accuracy"),
        ("margin", "{:8.3f}", "train/margin"),
        ("val loss", "{:8.4f}", "val/loss"),
        ("val acc", "{:8.3f}", "val/accuracy"),
        ("grad", "{:8.3f}", "train/grad_norm"),
    ],
}


def named(names: Iterable[str], pattern: str) -> str | None:
    """The first of the names that matches one of the alternatives, in their order."""
    for alternative in re.split(r"\|(?![^(]*\))", pattern):
        for name in sorted(names):
            if re.fullmatch(alternative, name):
                return name
    return None


def pick(metrics: dict, pattern: str) -> float | None:
    """The first metric that matches one of the alternatives, in their order; None if none does."""
    numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    return numbers.get(named(numbers, pattern))


def span(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, s = divmod(int(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


def plain(line: str) -> str:
    """A line without colours."""
    return ANSI.sub("", line)


class Progress:
    """Prints what is new in a run's folder each time it is called.

    Args:
        run_dir: the run's folder.
        kind: "rl" or "sft": which columns.
        total_steps: of the run, for the time left; None if unknown.
        keep_best: whether the best model is kept (best.py).
        show_samples: every how many steps some answers are shown (samples.py); 0: never.
        watch: is given each step, and what it finds is shown.
    """

    def __init__(
        self,
        run_dir: Path,
        kind: str,
        total_steps: int | None,
        keep_best: bool = False,
        show_samples: int = 0,
        watch: "Watch | None" = None,
    ):
        self.watch = watch
        self.best = BestModel(run_dir) if keep_best else None
        self.samples = Samples(run_dir, show_samples)
        self.columns, self.total = COLUMNS[kind], total_steps
        self.start = self.moved = time.time()
        self.stamp: int | None = None  # of metrics.jsonl: a sample that is scored moves it as well
        self.printed = 0.0
        # a resumed run goes on after what is there
        self.metrics, self.log = (Tail(run_dir / f, None) for f in ("metrics.jsonl", "log.txt"))
        self.recent: list[tuple[float, int]] = []  # when the last steps ended
        self.header = False
        self.raised = 0  # lines of the log that say that the reward raised
        self.place_follows = False
        self.tty = sys.stdout.isatty()

    def __call__(self) -> float:
        """Print what is new; returns when the run last moved on (time.time()).

        Raises StoppedEarly for a job of a sweep that is to end here.
        """
        for line in map(plain, self.log.lines()):
            said = RAY_PREFIX.sub("", line)
            if said.startswith(MESSAGE):
                self._milestone(said.removeprefix(MESSAGE).rstrip())
            if of_stage := OF_STAGE.match(said):
                self._milestone(of_stage[1].rstrip())
            self._told_of_reward(line)
            for mark, text in MILESTONES.items():
                if mark in line:
                    self._milestone(text)
        with contextlib.suppress(OSError):
            stamp = self.metrics.file.stat().st_mtime_ns
            if stamp != self.stamp:
                self.stamp, self.moved = stamp, time.time()
        for line in self.metrics.lines():
            if record := parse(line):
                self._step(*record)
                for alert in self.watch.step(*record) if self.watch else ():
                    self._milestone(ALERT + alert.words())
                self.samples.made(record[0])
                if self.best and (name := named(record[1], VALIDATION)):
                    self.best.validated(record[0], name, record[1][name])
        for line in self.samples.lines():
            self._show(line)
        if self.best:
            self.best.update()
        if self.tty:
            print(f"\r{span(time.time() - self.start):>7}  ", end="", flush=True)
        if self.watch and self.watch.lost:
            raise StoppedEarly(self.watch.lost)
        return self.moved

    def _told_of_reward(self, line: str) -> None:
        """Show the first error of a reward at once: its answers are left out, and the run may go on."""
        if self.place_follows and (place := ABOUT_REWARD.match(RAY_PREFIX.sub("", line))):
            self._show(f"{'':>7}  {place[1].rstrip()}")
        found = RAISED.search(line)
        self.place_follows = bool(found) and not self.raised
        if self.place_follows:
            self._show(f"{span(time.time() - self.start):>7}  {found[1].rstrip()}")
        self.raised += bool(found)

    def _milestone(self, text: str | None) -> None:
        self.moved = time.time()
        if text:
            self._show(f"{span(self.moved - self.start):>7}  {text}")

    def _show(self, text: str) -> None:
        print(("\r\x1b[K" if self.tty else "") + text, flush=True)

    def _step(self, step: int, metrics: dict) -> None:
        now, left = time.time(), ""
        trained = pick(metrics, "train/loss|training/global_step") is not None
        if trained:
            self.recent = [*self.recent[-20:], (now, step)]
            (then, first), done = self.recent[0], len(self.recent) > 1
            if self.total and done:
                left = span((self.total - step) * (now - then) / max(1, step - first))
        # Steps of a small model last milliseconds: a line in two seconds, but the end and each
        # validation.
        if (
            trained
            and now - self.printed < 2
            and step != self.total
            and pick(metrics, VALIDATION) is None
        ):
            return
        self.printed = now
        if not self.header:
            self.header = True
            if "train/accuracy" in metrics:  # SFT has none
                self.columns = COLUMNS["preference"]
            names = "".join(f" {name:>{len(form.format(0))}}" for name, form, _ in self.columns)
            self._show(f"{'time':>7}  {'step':>9}{names}   left")
        cells = ""
        for _, form, pattern in self.columns:
            value = pick(metrics, pattern)
            cells += " " + (" " * len(form.format(0)) if value is None else form.format(value))
        of = f"{step}/{self.total}" if self.total else str(step)
        self._show(f"{span(now - self.start):>7}  {of:>9}{cells}   {left}")
