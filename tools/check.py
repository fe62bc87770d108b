"""Everything that can be known of a run before it starts: all checks of preflight, the slow ones as well.

    python -m tools.check algo=grpo model=qwen2_5_coder_1_5b hw=rtx4070 reward=sql dataset=spider
    make check ARGS="algo=grpo hw=cpu"

KEY=VALUE are overrides of launch.py, which runs the quick checks of these itself. One line a check; nothing is
started. `lab.preflight.skip=[NAME,...]` leaves checks out. Exit status 2 if anything is wrong.
"""

import sys

from preflight import names, resolvers
from preflight.checks import DEFAULT, SLOW, Finding
from preflight.preparation import Preparation
from tools import Parser, guarded, plan

WIDTH = 28  # of a check's name
SHOWN_S = 1.0  # from here on, how long a check took is shown


def name_of(found: Finding) -> str:
    """The check's name, as `lab.preflight.skip` takes it."""
    return found.name.removeprefix("check_")


def line(found: Finding) -> str:
    """What a check has found."""
    took = f" ({found.seconds:.1f} s)" if found.seconds >= SHOWN_S else ""
    return f"{name_of(found):<{WIDTH}}{'WRONG: ' if found.is_wrong else ''}{found.message or 'ok'}{took}"


def show(overrides: list[str]) -> int:
    """Print checks and plan; 2 if anything is wrong."""
    config = names.composed(names.check_argv(overrides))
    preparation, wrong = Preparation(config), []
    for found in preparation.findings(DEFAULT, SLOW):
        print(line(found), flush=True)
        wrong += [name_of(found)] if found.is_wrong else []
        if found.is_last:
            print("(the checks after this one need a value that is right: they were not made)")
    print(f"\n{plan.describe(config, preparation.expected)}\n")
    if wrong:
        print(f"{len(wrong)} wrong: {', '.join(wrong)}")
        return 2
    print("nothing is wrong: `python launch.py` with the same words starts it")
    return 0


def main(argv: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = Parser(prog="python -m tools.check", description=__doc__)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for launch.py")
    args = parser.parse_args(argv)
    resolvers.register()
    return guarded(lambda: show(args.overrides))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
