"""Everything that can be known of a run before it starts: all checks of preflight, the slow ones as well.

    python -m tools.check algo=grpo model=qwen2_5_coder_1_5b hw=rtx4070 reward=sql dataset=spider
    make check ARGS="algo=grpo hw=cpu"

KEY=VALUE are overrides of launch.py, which runs the quick checks of these itself. One line a check; nothing is
started. `lab.preflight.skip=[NAME,...]` leaves checks out. Exit status 2 if anything is wrong.
"""

import argparse
import sys

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from preflight import DEFAULT, SLOW, Mistake, Note, names, resolvers, results
from tools import plan

WIDTH = 28  # of a check's name
TELL_S = 1.0  # how long a check took is told from here on


def run_checks(config: DictConfig) -> list[str]:
    """Print a line a check; returns the names of those that found something wrong."""
    wrong = []
    for name, said, seconds in results(config, DEFAULT, SLOW):
        bad = said is not None and not isinstance(said, Note)
        wrong += [name] if bad else []
        name, took = name.removeprefix("check_"), f" ({seconds:.1f} s)" if seconds >= TELL_S else ""
        print(f"{name:<{WIDTH}}{'WRONG: ' if bad else ''}{said or 'ok'}{took}", flush=True)
    return wrong


def main(argv: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.check", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for launch.py")
    args = parser.parse_args(argv)
    resolvers.register()
    try:
        config = names.composed(names.check_argv(args.overrides))
        expected, _ = plan.told(config)  # first: lab.plan=auto chooses before the checks look
        wrong = run_checks(config)
    except (HydraException, OmegaConfBaseException) as error:
        print(f"error: {names.explain(error)}", file=sys.stderr)
        return 2
    except Mistake as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    print(f"\n{expected}")
    if wrong:
        told = ", ".join(name.removeprefix("check_") for name in wrong)
        print(f"\n{len(wrong)} wrong: {told}")
        return 2
    print("\nnothing is wrong: `python launch.py` with the same words starts it")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
