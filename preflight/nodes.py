"""A Ray cluster that a run joins: whether its nodes are there, and whether each sees the files that the run reads.

    python -m preflight.nodes HOST:PORT --nodes 2 --gpus 8 --wait 60 --files FILE...

A process of its own, because Ray is started in it. Prints what is missing, a line each; the exit status is 1 then.
"""

import argparse
import os
import socket
import sys
import time
from collections.abc import Iterable

from omegaconf import DictConfig, OmegaConf

from preflight.facts import data_files, named_files
from preflight.models import trained
from preflight.sample import sample

LOOK_S = 2.0
SAMPLED = 200  # rows of each file
ANSWER_S = 60  # until a node has answered


def needed(config: DictConfig) -> list[str]:
    """What each node reads, by absolute paths: the model, the data with its databases, the reward's file; no hub id."""
    named = [
        trained(config),
        *named_files(config),
        OmegaConf.select(config, "lab.dataset.dir"),
        OmegaConf.select(config, "reward.custom_reward_function.path"),
        *places_of(databases(config)),
    ]
    there = [os.path.abspath(name) for name in named if name and os.path.exists(name)]
    return list(dict.fromkeys(there))


def databases(config: DictConfig) -> set[str]:
    """Files of databases that some rows of the data name, by absolute paths; none that a server has (a URL)."""
    from rewards._rows import INFO_KEYS, info_of  # --cfg job doesn't wait for them
    from rewards._sql.task import strings
    from rewards._sql.url import file_of

    found = set()
    for _, _, row in sample(data_files(config), SAMPLED):
        info = info_of(row)
        named = [path for key in INFO_KEYS for path in strings(info.get(key))]
        found.update(os.path.abspath(file) for path in named if path and (file := file_of(path)))
    return found


def places_of(files: Iterable[str]) -> list[str]:
    """The folders of files. Where several of these lie in one folder (of a database each), it stands for them."""
    above: dict[str, set[str]] = {}
    for folder in {os.path.dirname(file) for file in files}:
        above.setdefault(os.path.dirname(folder), set()).add(folder)
    places = [
        [top] if len(folders) > 1 and top != os.path.dirname(top) else folders
        for top, folders in above.items()
    ]
    return sorted(folder for some in places for folder in some)


def unseen(files: list[str]) -> list[str]:
    """Those that are not there; runs on each node."""
    return [file for file in files if not os.path.exists(file)]


def alive(gpus: int) -> list[dict]:
    """The nodes with so many GPUs or more, as Ray describes them."""
    import ray

    return [n for n in ray.nodes() if n["Alive"] and n["Resources"].get("GPU", 0) >= gpus]


def complaints(
    nodes: int, gpus: int, wait_s: float, files: list[str], cpus: int = 0
) -> Iterable[str]:
    """What is missing, of a Ray that this process has joined.

    Args:
        nodes: so many are needed,
        gpus: and of each so many.
        wait_s: so long nodes may take to come.
        files: that each must see, by absolute paths.
        cpus: that Ray must count on all nodes together.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    deadline = time.monotonic() + wait_s
    while len(found := alive(gpus)) < nodes and time.monotonic() < deadline:
        time.sleep(LOOK_S)
    if len(found) < nodes:
        yield (f"the Ray cluster has {len(found)} nodes with {gpus} GPUs or more, and the run needs {nodes}"
               " (lab.hw.nodes, lab.hw.gpus_per_node).")  # fmt: skip
        return
    if (count := ray.cluster_resources().get("CPU", 0)) < cpus:
        yield (f"verl asks Ray for {cpus} CPUs and waits for ever where it counts fewer, here {count:.0f}:"
               " `ray start --num-cpus=N` on each node, even where there are fewer.")  # fmt: skip
    if not files:
        return
    look = ray.remote(num_cpus=0, max_retries=0)(unseen)
    asked = []
    for node in found:
        strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        answer = look.options(scheduling_strategy=strategy).remote(files)
        asked.append((node["NodeManagerAddress"], answer))
    for address, answer in asked:
        try:
            missing = ray.get(answer, timeout=ANSWER_S)
        except Exception as error:  # whatever a node dies of
            yield f"node {address} of the Ray cluster doesn't answer ({type(error).__name__})."
            continue
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            yield (f"node {address} of the Ray cluster doesn't see {missing[0]}{more}: put it there at the same path,"
                   " or into a folder that all nodes share.")  # fmt: skip


def answers(address: str) -> bool:
    """Whether somebody listens there; of another kind of address (auto) nobody knows."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdigit():
        return True
    try:
        with socket.create_connection((host.strip("[]"), int(port)), LOOK_S):
            return True
    except OSError:
        return False


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--cpus", type=int, default=0, help="of all nodes together")
    parser.add_argument("--wait", type=float, default=0.0, help="seconds that nodes may take")
    parser.add_argument("--files", nargs="*", default=[], help="that each node must see")
    args = parser.parse_args()
    import ray

    deadline = time.monotonic() + args.wait
    while not answers(args.address):  # ray.init itself would try for minutes
        if time.monotonic() > deadline:
            print(f"no Ray answers at {args.address}.")
            return 1
        time.sleep(LOOK_S)
    try:
        ray.init(args.address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError) as error:
        print(f"the Ray at {args.address} can't be joined: {' '.join(str(error).split())}")
        return 1
    found = list(complaints(args.nodes, args.gpus, args.wait, args.files, args.cpus))
    for line in found:
        print(line)
    ray.shutdown()
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
