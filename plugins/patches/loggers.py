"""Patches of verl 0.9.1: a logger that fails never ends a training. One function a patch, as in verl.py."""

import functools
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable

NEEDED = (
    "console",
    "file",
)  # metrics.jsonl is what the screen and all tools read: a full disk there ends the run
TRIES = 3  # failures in a row after which a logger gets nothing more
FINISH_S = 60.0  # that one may take to send the rest at the end
MESSAGE = "[message] "  # begins a line that the screen shows as well (launcher/progress.py)


def say(text: str) -> None:
    """One line, also on the screen."""
    print(MESSAGE + text, flush=True)


def why(error: BaseException) -> str:
    """An error in one short line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


class Loggers:
    """The failures of a run's loggers: told at the first, and given up after TRIES in a row."""

    def __init__(self):
        self.failed: Counter[str] = Counter()  # in a row
        self.told: set[str] = set()

    def attempt(self, name: str, call: Callable[[], object]) -> bool:
        """Call it, whatever it raises; returns whether the logger is worth another call."""
        try:
            call()
            self.failed[name] = 0
        except Exception as error:
            self.failed[name] += 1
            if name not in self.told:
                self.told.add(name)
                say(
                    f"{name} failed ({why(error)}): the training goes on, and all metrics are in metrics.jsonl"
                )
        return self.failed[name] < TRIES


def within(seconds: float, call: Callable[[], object]) -> bool:
    """Whether a call ends within some seconds; else it is left alone. Raises what it raises."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)

    if sys.is_finalizing():  # a thread would never begin
        run()
    else:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(seconds)
        if thread.is_alive():
            return False
    if raised:
        raise raised[0]
    return True


def start_each(tracking) -> None:
    """verl/utils/tracking.py:63, Tracking.__init__: a wrong key or no network for W&B ends the run.

    Each logger starts by itself. W&B that can't start goes on without a network: its files can be sent later.
    """
    tracker = tracking.Tracking
    init = tracker.__init__

    @functools.wraps(init)
    def __init__(self, project_name, experiment_name, default_backend="console", config=None):
        named = [default_backend] if isinstance(default_backend, str) else list(default_backend)
        init(self, project_name, experiment_name, [n for n in named if n in NEEDED], config)
        made = self.logger
        for name in (n for n in named if n not in NEEDED):
            try:
                init(self, project_name, experiment_name, [name], config)
            except AssertionError:  # verl has no such logger
                raise
            except Exception as error:
                self.logger = {}
                if name == "wandb" and os.environ.get("WANDB_MODE") != "offline":
                    self.logger = offline(init, self, project_name, experiment_name, config, error)
                else:
                    say(f"{name} did not start ({why(error)}): the training goes on without it")
            made |= self.logger
        self.logger = made

    tracker.__init__ = __init__


def offline(init, tracker, project_name, experiment_name, config, error: Exception) -> dict:
    """W&B's logger without a network, after an error with one; empty where that fails as well."""
    os.environ["WANDB_MODE"] = "offline"
    try:
        import wandb

        wandb.teardown()  # it has read the environment already
        init(tracker, project_name, experiment_name, ["wandb"], config)
    except Exception as again:
        say(
            f"wandb did not start ({why(error)}), nor offline ({why(again)}): the training goes on without it"
        )
        return {}
    where = os.path.join(os.environ.get("WANDB_DIR", "."), "wandb/offline-run-*")
    say(
        f"wandb did not start ({why(error)}): the training goes on, and `wandb sync {where}` sends it later"
    )
    return tracker.logger


def log_to_each(tracking) -> None:
    """verl/utils/tracking.py:189, Tracking.log: what a logger raises ends the run (verl issue 4904).

    W&B raises ConnectionResetError where its process was killed.
    """
    tracker = tracking.Tracking

    def log(self, data, step, backend=None):
        loggers = self.__dict__.setdefault("loggers", Loggers())
        for name, logger in list(self.logger.items()):
            if backend is not None and name not in backend:
                continue
            if name in NEEDED:
                logger.log(data=data, step=step)
            elif not loggers.attempt(name, functools.partial(logger.log, data=data, step=step)):
                del self.logger[name]

    tracker.log = log


def finish_each(tracking) -> None:
    """verl/utils/tracking.py:194, Tracking.finish: one that raises keeps the others from it, one that hangs the run."""
    tracker = tracking.Tracking
    finish = tracker.finish

    @functools.wraps(finish)
    def finish_all(self, exit_code=0):
        if getattr(self, "_finished", False):
            return
        self._finished = True
        for name, logger in getattr(self, "logger", {}).items():
            one = object.__new__(tracker)
            one.logger, one._finished = {name: logger}, False
            try:
                if name in NEEDED:
                    finish(one, exit_code)
                elif not within(FINISH_S, functools.partial(finish, one, exit_code)):
                    say(
                        f"{name} has not sent everything after {FINISH_S:.0f} s; all metrics are in metrics.jsonl"
                    )
            except Exception as error:
                if sys.is_finalizing():  # it has ended by itself, before this object went
                    continue
                say(f"{name} did not end well ({why(error)}); all metrics are in metrics.jsonl")

    tracker.finish = finish_all


def show_samples_to_each(tracking) -> None:
    """verl/utils/tracking.py:664 and below: tables of answers for W&B and its like, which end the run as well."""
    loggers = Loggers()
    for shown in (tracking.ValidationGenerationsLogger, tracking.DapoFilteredRewardTableLogger):
        log = shown.log

        def log_each(self, names, *args, log=log):
            for name in [names] if isinstance(names, str) else names:
                loggers.attempt(name, functools.partial(log, self, [name], *args))

        shown.log = functools.wraps(log)(log_each)
