"""A job's turn on a Ray cluster: its run begins once so many GPUs are free, one run at a time.

    python -m launcher.clusters.turn --nodes 2 --gpus 8 -- python launch.py resume=RUN

Ray has no queue for runs: of two that begin together, verl ends the one that finds the GPUs taken. The turn is an actor
with a name, which Ray gives to one job alone; it goes with its job, however that ends. A job has it until its run has
its GPUs (placement groups), or has ended.
"""

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from preflight.nodes import alive

LOOK_S = 1.0
NAME = "verl-lab-turn"


class Turn:
    """Nothing: to have it is the turn."""


def free(gpus: int) -> int:
    """The nodes with so many free GPUs, of a Ray that this process has joined."""
    from ray._private.state import available_resources_per_node  # verl looks there, too

    return sum(node.get("GPU", 0) >= gpus for node in available_resources_per_node().values())


def groups() -> set[str]:
    """The placement groups with GPUs that have their place on the cluster."""
    from ray.util import placement_group_table

    return {
        key
        for key, group in placement_group_table().items()
        if group["state"] == "CREATED" and any(one.get("GPU") for one in group["bundles"].values())
    }


def taken() -> object | None:
    """The turn; None if another job has it. It ends with the last name for what is returned."""
    import ray

    try:
        turn = ray.remote(num_cpus=0)(Turn).options(name=NAME, namespace=NAME).remote()
    except ValueError:  # the name is somebody's
        return None
    ray.get(turn.__ray_ready__.remote())
    return turn


def left(turn: object) -> None:
    """It is the next one's turn."""
    import ray

    ray.kill(turn)


def begun(command: list[str], nodes: int, gpus: int, tell: Callable[[str], None]) -> int:
    """Run a command in its turn; returns its exit status.

    Args:
        nodes: so many are needed,
        gpus: and of each so many free ones.
        tell: gets a line if the command has to wait.
    """
    if len(alive(gpus)) < nodes:  # for ever: the run itself says so
        return subprocess.call(command)
    said, turn = False, taken()
    while turn is None or free(gpus) < nodes:
        if not said:
            tell(
                f"waits for {nodes} nodes with {gpus} free GPUs each, and for runs that begin before it"
            )
            said = True
        time.sleep(LOOK_S)
        turn = turn or taken()
    # Ray sends the end of a job to all its processes: the run ends by it, and this one after the run.
    signal.signal(signal.SIGTERM, lambda *_: None)
    before = groups()
    process = subprocess.Popen(command)
    while process.poll() is None and not groups() - before:
        time.sleep(LOOK_S)
    left(turn)
    return process.wait()


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--gpus", type=int, required=True)
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    import ray

    ray.init("auto", namespace=NAME, log_to_driver=False, logging_level="ERROR")
    code = begun(args.command, args.nodes, args.gpus, lambda line: print(line, flush=True))
    ray.shutdown()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
