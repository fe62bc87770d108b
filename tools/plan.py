"""Before a run: the memory of one GPU in each phase of a step, what to change so that it fits, and a rough time.

    python -m tools.plan algo=grpo model=qwen2_5_1_5b hw=rtx4070
    python -m tools.plan algo=grpo model=qwen2_5_7b hw=a100 lab.plan=auto

KEY=VALUE are overrides of launch.py. Nothing is started, and nothing but the model's config.json is read: from its
folder, the hub's cache, or the facts in conf/model/. Exit status 1 if it doesn't fit.
"""

import sys

from omegaconf import DictConfig

from launcher.progress import span
from launcher.results import total_steps
from preflight import names, resolvers
from preflight.memory.fit import refused
from preflight.memory.forecast import Forecast, forecast
from preflight.models import trained
from tools import guarded


def duration(found: Forecast, steps: int | None) -> str:
    """Of the whole run, without its start and its validations; nothing where the steps are not known."""
    if not found.estimate or not steps:
        return ""
    return f"{steps} steps: about {span(steps * found.estimate.step_s)}, without the start and validations"


def told(config: DictConfig) -> tuple[str, bool]:
    """The plan of a composed config as text, and whether it fits (or nothing is known)."""
    found, hw = forecast(config), config.lab.hw
    nodes = f"{hw.nodes} nodes of " if hw.nodes > 1 else ""
    where = "this CPU" if hw.device == "cpu" else f"{nodes}{hw.gpus_per_node} × {hw.memory_gib} GiB"
    lora = f", LoRA of rank {config.lab.lora_rank}" if config.lab.lora_rank else ""
    parts = [f"{trained(config)}{lora} on {where}", found.text()]
    if found.plan is None:
        return "\n\n".join(parts), True
    wrong = refused(config)
    return "\n\n".join(
        filter(None, [*parts, duration(found, total_steps(config)), wrong])
    ), wrong is None


def show(argv: list[str]) -> int:
    """Print the plan; 1 if it doesn't fit."""
    text, fits = told(names.composed(names.check_argv(argv)))
    print(text)
    return 0 if fits else 1


def main(argv: list[str]) -> int:
    """The command line; returns the exit status."""
    if "-h" in argv or "--help" in argv:
        print(__doc__)
        return 0
    resolvers.register()
    return guarded(lambda: show(argv))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
