"""What Ray, vLLM and torchrun need: of the machine, or of a Ray cluster that the run joins."""

import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from preflight import nodes
from preflight.checks import applies_to, of_the_node
from preflight.engines import workers
from preflight.facts import is_rl
from preflight.models import trained

KEY = "ray_kwargs.ray_init.address"
CPUS_PER_GPU = 3  # verl/single_controller/ray/base.py, ResourcePoolManager.max_colocate_count
FEWEST_FILES = 4096  # below it Ray warns of connection errors (ray/_private/worker.py)
SHM = Path("/dev/shm")
NCCL_MIB = 512
TIMEOUT_S = 3
LOOK_S = 120  # at the nodes of a cluster


def address(config: DictConfig) -> str | None:
    """Of the Ray cluster that a run joins; None if it starts one, or needs none."""
    if not is_rl(config):
        return None
    return OmegaConf.select(config, KEY)  # which $RAY_ADDRESS gives, if nothing else does


def starts_ray(config: DictConfig) -> bool:
    """Whether the run starts a Ray of its own."""
    return is_rl(config) and not address(config)


def joins_ray(config: DictConfig) -> bool:
    """Whether the run joins a Ray that is up."""
    return address(config) is not None


def own_gpus_of_reward_model(config: DictConfig) -> int:
    """GPUs of a node that only a reward model has."""
    model = config.reward.reward_model
    return model.n_gpus_per_node if model.enable and model.enable_resource_pool else 0


def gpus_of_node(config: DictConfig) -> int:
    """What verl asks Ray for on each node."""
    return config.trainer.n_gpus_per_node + own_gpus_of_reward_model(config)


def cpus_asked_for(config: DictConfig) -> int:
    """What verl asks Ray for, on all nodes together: for the workers, for the queue and its controller."""
    queue = config.transfer_queue.backend.SimpleStorage.num_data_storage_units
    return CPUS_PER_GPU * gpus_of_node(config) * config.trainer.nnodes + queue + 1


def reaches(host: str, port: int) -> bool:
    """Whether somebody listens there."""
    try:
        with socket.create_connection((host, port), TIMEOUT_S):
            return True
    except OSError:
        return False


@of_the_node
def check_ray_address(config: DictConfig) -> str | None:
    """A cluster that is named can be reached."""
    named = address(config)
    if named in (None, "auto"):
        return None
    if named == "local":
        return f"{KEY}=local: leave it out, or set null. A run without an address starts a Ray of its own."
    host, _, port = named.rpartition("://")[2].strip("/").rpartition(":")
    key = "$RAY_ADDRESS" if named == os.environ.get("RAY_ADDRESS") else KEY
    if not host or not port.isdigit():
        return f"{key}={named} is neither HOST:PORT nor auto."
    if not reaches(host.strip("[]"), int(port)):
        return f"{key}={named} doesn't answer. Start Ray there (`ray start --head --port={port}`), or leave it out."
    return None


@applies_to(starts_ray)
def check_ray_gpus(config: DictConfig) -> str | None:
    """Ray's own count of GPUs, which are logical ones on a CPU."""
    count = OmegaConf.select(config, "ray_kwargs.ray_init.num_gpus")
    if count is None:
        return None
    want = gpus_of_node(config)
    if count < want:
        return (f"trainer.n_gpus_per_node={config.trainer.n_gpus_per_node} (and the reward model's) need {want} GPUs,"
                f" and Ray counts {count}: set lab.hw.gpus_per_node, which sets both.")  # fmt: skip
    return None


@of_the_node
@applies_to(joins_ray)
def check_ray_cluster(config: DictConfig) -> str | None:
    """A cluster that is named has the nodes, and each sees the files. The look takes a few seconds."""
    if check_ray_address(config):
        return None  # nobody answers there, which is told
    hw = ["--nodes", str(config.trainer.nnodes), "--gpus", str(gpus_of_node(config))]
    hw += ["--cpus", str(cpus_asked_for(config))]
    look = [
        sys.executable,
        "-m",
        "preflight.nodes",
        address(config),
        *hw,
        "--files",
        *nodes.needed(config),
    ]
    try:
        done = subprocess.run(look, capture_output=True, text=True, timeout=LOOK_S)
    except subprocess.TimeoutExpired:
        return f"{KEY}={address(config)} doesn't answer for {LOOK_S} s: is it a Ray cluster, and of this version?"
    if done.returncode == 0:
        return None
    said = done.stdout.strip() or done.stderr.strip()
    return said.splitlines()[-1] if said else f"{KEY}={address(config)} can't be joined."


@of_the_node
@applies_to(starts_ray)
def check_ray_nodes(config: DictConfig) -> str | None:
    """More than this machine."""
    if config.trainer.nnodes > 1:
        return (f"trainer.nnodes={config.trainer.nnodes} needs a running Ray cluster: {KEY}=HOST:PORT"
                " (lab.hw.nodes=1 for this machine alone).")  # fmt: skip
    return None


def cpus_of_ray() -> int:
    """What Ray counts on this machine: a container's share, if it has one."""
    count = os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        share, period = quota.read_text().split()
        count = min(count, max(1, int(share) // int(period))) if share.isdigit() else count
    return count


@of_the_node
@applies_to(starts_ray)
def check_ray_cpus(config: DictConfig) -> str | None:
    """verl waits for ever for CPUs that Ray doesn't have; the number is only a count."""
    if config.trainer.nnodes > 1:
        return None
    count = OmegaConf.select(config, "ray_kwargs.ray_init.num_cpus")
    count = cpus_of_ray() if count is None else count
    want = cpus_asked_for(config)
    if count < want:
        queue = want - CPUS_PER_GPU * gpus_of_node(config)
        return (f"verl asks Ray for {want} CPUs ({CPUS_PER_GPU} a GPU, {queue} for the queue) and waits for ever"
                f" where it has {count}: set lab.hw.ray_cpus={want}, even where there are fewer.")  # fmt: skip
    return None


@of_the_node
@applies_to(starts_ray)
def check_open_files(config: DictConfig) -> str | None:
    """Ray raises its own limit as far as it may."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if most != resource.RLIM_INFINITY and most < FEWEST_FILES:
        return (f"a process may open {most} files here, and Ray wants {FEWEST_FILES}: `ulimit -Hn 65536` as root, or"
                " docker run --ulimit nofile=65536.")  # fmt: skip
    return None


@of_the_node
@applies_to(starts_ray)
def check_shared_memory(config: DictConfig) -> str | None:
    """Room in /dev/shm: on a CPU new weights reach vLLM through it, and NCCL talks there."""
    if not SHM.is_dir():
        return None
    stat = os.statvfs(SHM)
    free = stat.f_bavail * stat.f_frsize / 2**20
    if config.lab.hw.device == "cpu":
        files = Path(trained(config)).glob("*.safetensors")
        weights = sum(file.stat().st_size for file in files) / 2**20
        bucket = config.actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes
        need, what = min(weights, bucket) * workers(config), "new weights on their way to vLLM"
    else:
        need, what = NCCL_MIB if workers(config) > 1 else 0, "NCCL and vLLM"
    if free < need:
        return (f"{SHM} has {free:.0f} MiB free, and {what} need {need:.0f}: remove old files there, or docker run"
                " --shm-size=16g.")  # fmt: skip
    return None


def own_address() -> str:
    """This machine's address as Ray finds it: that of the way out, else of its name, else the loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("8.8.8.8", 80))  # sends nothing
            return probe.getsockname()[0]
        except OSError:
            pass
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return "127.0.0.1"


@of_the_node
def check_loopback(config: DictConfig) -> str | None:
    """All processes talk over TCP, at ports that the system gives: this machine must reach itself."""
    for host in ("localhost", own_address()) if is_rl(config) else ("localhost",):
        try:
            with socket.create_server((host, 0)) as server:
                if reaches(host, server.getsockname()[1]):
                    continue
                why = "a firewall lets nothing through"
        except OSError as error:
            why = error.strerror or str(error)
        return f"this machine can't reach itself as {host} ({why}): a run's processes talk over TCP. See /etc/hosts."
    return None
