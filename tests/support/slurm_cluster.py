"""A real Slurm on the loopback: munged, slurmctld and slurmd of this user, in a folder of its own, at free ports."""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
PLACES = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/local/sbin"])
START_S = 60
CONF = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=bf_interval=1,sched_min_interval=0
ReturnToService=2
KillWait=15
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def program(name: str) -> str | None:
    """Where it is; None: not installed."""
    return shutil.which(name, path=PLACES)


def missing() -> str:
    """Which of Slurm's programs are not installed, with commas; "" if all are."""
    return ", ".join(name for name in PROGRAMS if not program(name))


def free_port() -> int:
    """One that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def users_of(conf: Path) -> list[psutil.Process]:
    """The processes that have this Slurm in their environment, but for this one and its parents."""
    here = psutil.Process()
    own = {here.pid, *(parent.pid for parent in here.parents())}
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid not in own and process.environ().get("SLURM_CONF") == str(conf):
                found.append(process)
    return found


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """A Slurm with this machine as its node; gives the environment of its clients. Nothing of it stays.

    Args:
        folder: an empty one with a short path (a socket lies there).
    """
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    conf = folder / "slurm.conf"
    host = socket.gethostname().partition(".")[0]
    conf.write_text(
        CONF.format(
            folder=folder, host=host, user=getpass.getuser(), cpus=os.cpu_count(),
            controller=free_port(), node=free_port(),
        )
    )  # fmt: skip
    env = os.environ | {"SLURM_CONF": str(conf)}
    commands = [
        ["munged", "--foreground", "--force", f"--key-file={key}",
         *(f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed")),
         f"--socket={folder}/munge.socket"],
        ["slurmctld", "-D", "-f", str(conf)],
        ["slurmd", "-D", "-f", str(conf)],
    ]  # fmt: skip
    started = []
    with open(folder / "daemons.log", "w") as log:
        try:
            for command in commands:
                command[0] = program(command[0])
                started.append(subprocess.Popen(command, env=env, stdout=log, stderr=log))
                if command is commands[0]:
                    wait_for((folder / "munge.socket").exists, folder)
            idle = [program("sinfo"), "--noheader", "--format=%T"]
            wait_for(
                lambda: subprocess.run(idle, env=env, capture_output=True, text=True).stdout.strip() == "idle",
                folder,
            )  # fmt: skip
            yield env
        finally:
            subprocess.run([program("scancel"), "--full", f"--user={getpass.getuser()}"], env=env)
            for process in reversed(started):
                process.terminate()
            for process in started:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)
            for process in users_of(conf):
                with contextlib.suppress(psutil.Error):
                    process.kill()


def wait_for(condition, folder: Path) -> None:
    """Until a condition holds. Raises AssertionError with what the daemons say if it doesn't come about."""
    deadline = time.monotonic() + START_S
    while not condition():
        if time.monotonic() > deadline:
            logs = "\n".join(f.read_text()[-1500:] for f in folder.glob("*.log"))
            raise AssertionError(f"Slurm did not start:\n{logs}")
        time.sleep(0.1)
