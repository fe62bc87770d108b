"""The signals that end a run: Ctrl-C, SIGTERM (a scheduler, `kill`), SIGHUP (its terminal was closed)."""

import contextlib
import ctypes
import signal
import sys
from collections.abc import Iterator

PR_SET_PDEATHSIG = 1
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(KeyboardInterrupt):
    """Such a signal came; `number` is which."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


def heed() -> None:
    """From now on the first of these signals raises Ended, and no later one disturbs the stopping.

    What was ignored when this process began stays so: `nohup` wants that of SIGHUP, a shell of its background
    jobs' SIGINT.
    """

    def end(number, _frame):
        for one in ENDING:
            signal.signal(one, signal.SIG_IGN)
        raise Ended(number)

    for one in ENDING:
        if signal.getsignal(one) is not signal.SIG_IGN:
            signal.signal(one, end)


def status(stop: KeyboardInterrupt) -> int:
    """The exit status that a shell gives to a process that this has ended."""
    return 128 + (stop.number if isinstance(stop, Ended) else signal.SIGINT)


def go_with_parent() -> None:
    """For preexec_fn: SIGTERM for the process when the one that starts it has ended. Linux alone can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Such a signal waits until the block has ended. No process may be started in it: it would inherit that."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
