"""Before a run starts: what verl would find out only after minutes, or never. No torch, no verl at import.

names.py reads the command line, checks/ looks for mistakes, memory/ plans what fits and forecasts the time of a step;
`prepare` does all of it for a composed config.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from omegaconf import DictConfig

    from preflight.memory.forecast import Forecast


def prepare(config: "DictConfig", show: "Callable[[str], None] | None" = None) -> "Forecast":
    """Values, lab.plan=auto, plan, checks, in this order; each is made once.

    Args:
        config: composed; lab.plan=auto changes it.
        show: gets a line for each thing that the user should know and that is not a mistake.

    Returns:
        the plan and the time of a step, as far as they are known.

    Raises Mistake, with at most three lines, if the run can't go well.
    """
    from preflight.preparation import Preparation  # --cfg job and --help don't wait for it

    preparation = Preparation(config)
    preparation.refuse()
    for note in preparation.notes if show else ():
        show(f"note: {note}")
    return preparation.expected
