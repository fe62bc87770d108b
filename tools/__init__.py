"""Programs that a person runs."""

import os
import sys
from collections.abc import Callable

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from preflight import names
from preflight.mistakes import Mistake


def guarded(run: Callable[[], int], *more: type[Exception]) -> int:
    """The exit status of `run`; 2 with a line for a person's mistake, of `more` kinds as well."""
    kinds: tuple[type[Exception], ...] = (Mistake, *more)
    try:
        return run()
    except BrokenPipeError:  # `... | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (HydraException, OmegaConfBaseException) as error:
        print(f"error: {names.explain(error)}", file=sys.stderr)
    except kinds as error:
        print(f"error: {error}", file=sys.stderr)
    return 2
