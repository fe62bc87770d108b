"""Has answers scored by a reward, as `python -m rewards` does it."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from preflight.mistakes import Mistake


def run_rewards(*arguments: object, quiet: bool = False) -> None:
    """`python -m rewards ...` in a process of its own, which may use up its own memory. Raises Mistake if it fails."""
    command = [sys.executable, "-m", "rewards", *map(str, arguments)]
    # where `rewards` is, wherever we were started
    path = os.pathsep.join([str(Path(__file__).parent.parent), *sys.path[1:]])
    env = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, env=env, capture_output=quiet, text=True)
    if done.returncode:
        last = (done.stderr or "").strip().splitlines()[-1:] or ["see above"]
        raise Mistake(f"--reward {arguments[0]}: {last[0].removeprefix('error: ')}")


def score(file: Path, args: argparse.Namespace) -> Path:
    """Have the reward score a file of answers; returns the file with the results."""
    out = file.with_name("scored.jsonl")
    options = ["--set", *args.set] if args.set else []
    run_rewards(args.reward, "--file", file, "--out", out, *options)
    return out


def check_reward(args: argparse.Namespace, folder: Path) -> None:
    """Refuse a wrong name or option before anything is read. Raises Mistake."""
    if args.set and not args.reward:
        raise Mistake("--set is for the reward: --reward NAME")
    if args.reward:
        nothing = folder / "nothing.jsonl"
        nothing.touch()
        options = ["--set", *args.set] if args.set else []
        run_rewards(args.reward, "--file", nothing, *options, quiet=True)
