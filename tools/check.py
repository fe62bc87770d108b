"""Everything that can be known of a run before it starts: all checks of preflight, the slow ones as well.

    python -m tools.check algo=grpo model=qwen2_5_coder_1_5b hw=rtx4070 reward=sql dataset=spider
    make check ARGS="algo=grpo hw=cpu"

KEY=VALUE are overrides of launch.py, which runs the quick checks of these itself. One line a check; nothing is
started. `lab.preflight.skip=[NAME,...]` leaves checks out. Exit status 2 if anything is wrong.
"""

import argparse
import sys

from omegaconf import DictConfig

from preflight import names, resolvers
from preflight.checks import DEFAULT, SLOW, Note, findings
from tools import guarded, plan

WIDTH = 28  # of a check's name
TELL_S = 1.0  # how long a check took is told from here on


def run_checks(config: DictConfig) -> list[str]:
    """Print a line a check; returns the names of those that found something wrong."""
    wrong = []
    for name, said, seconds in findings(config, DEFAULT, SLOW):
        bad = said is not None and not isinstance(said, Note)
        wrong += [name] if bad else []
        name, took = name.removeprefix("check_"), f" ({seconds:.1f} s)" if seconds >= TELL_S else ""
        print(f"{name:<{WIDTH}}{'WRONG: ' if bad else ''}{said or 'ok'}{took}", flush=True)
    return wrong


def show(overrides: list[str]) -> int:
    """Print checks and plan; 2 if anything is wrong."""
    config = names.composed(names.check_argv(overrides))
    expected, _ = plan.told(config)  # first: lab.plan=auto chooses before the checks look
    wrong = run_checks(config)
    print(f"\n{expected}\n")
    if wrong:
        print(f"{len(wrong)} wrong: {', '.join(name.removeprefix('check_') for name in wrong)}")
        return 2
    print("nothing is wrong: `python launch.py` with the same words starts it")
    return 0


def main(argv: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.check", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for launch.py")
    args = parser.parse_args(argv)
    resolvers.register()
    return guarded(lambda: show(args.overrides))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
