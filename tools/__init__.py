"""Programs that a person runs."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from preflight import names
from preflight.mistakes import Mistake


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, without the usage, and whose description keeps its lines."""

    def __init__(self, **options: Any):
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter} | options)

    def error(self, message: str) -> NoReturn:
        message = message.replace("the following arguments are required:", "missing:")
        self.exit(2, f"error: {message} (see `{self.prog} --help`)\n")


def guarded(run: Callable[[], int], *more: type[Exception]) -> int:
    """The exit status of `run`; 2 with a line for a person's mistake, of `more` kinds as well."""
    kinds: tuple[type[Exception], ...] = (Mistake, *more)
    try:
        return run()
    except BrokenPipeError:  # `... | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except (HydraException, OmegaConfBaseException) as error:
        print(f"error: {names.explain(error)}", file=sys.stderr)
    except kinds as error:
        print(f"error: {error}", file=sys.stderr)
    return 2
