"""Before a run: the memory of one GPU in each phase of a step, what to change so that it fits, and a rough time.

    python -m tools.plan algo=grpo model=qwen2_5_1_5b hw=rtx4070
    python -m tools.plan algo=grpo model=qwen2_5_7b hw=a100 lab.plan=auto

KEY=VALUE are overrides of launch.py. Nothing is started, and nothing but the model's config.json is read: from its
folder, the hub's cache, or the facts in conf/model/. Exit status 1 if it doesn't fit.
"""

import sys

from omegaconf import DictConfig

from launcher.progress import span
from preflight import names, resolvers
from preflight.memory.cures import refusal
from preflight.memory.forecast import Forecast, total_steps
from preflight.models import trained
from preflight.preparation import Preparation
from tools import guarded


def subject(config: DictConfig) -> str:
    """Which model is trained, and where."""
    hw = config.lab.hw
    nodes = f"{hw.nodes} nodes of " if hw.nodes > 1 else ""
    where = "this CPU" if hw.device == "cpu" else f"{nodes}{hw.gpus_per_node} × {hw.memory_gib} GiB"
    lora = f", LoRA of rank {config.lab.lora_rank}" if config.lab.lora_rank else ""
    return f"{trained(config)}{lora} on {where}"


def duration(config: DictConfig, expected: Forecast) -> str:
    """Of the whole run, without its start and its validations; nothing where the steps are not known."""
    if not expected.estimate or not (steps := total_steps(config)):
        return ""
    seconds = steps * expected.estimate.step_s
    return f"{steps} steps: about {span(seconds)}, without the start and validations"


def describe(config: DictConfig, expected: Forecast) -> str:
    """What is expected of a run, for a person."""
    parts = [subject(config), expected.text(), duration(config, expected)]
    return "\n\n".join(filter(None, parts))


def show(argv: list[str]) -> int:
    """Print the plan; 1 if it doesn't fit."""
    config = names.composed(names.check_argv(argv))
    expected = Preparation(config).expected
    print(describe(config, expected))
    wrong = refusal(config, expected.plan) if expected.plan else None
    if wrong:
        print(f"\n{wrong}")
    return 1 if wrong else 0


def main(argv: list[str]) -> int:
    """The command line; returns the exit status."""
    if "-h" in argv or "--help" in argv:
        print(__doc__)
        return 0
    resolvers.register()
    return guarded(lambda: show(argv))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
