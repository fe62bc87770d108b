"""Around verl's process: start it, watch it, and leave nothing behind.

The run's process and all that it starts (Ray, vLLM, forks, reward workers) become descendants of
this one, also when their own parents end: this process declares itself their reaper. So stopping is
"kill every descendant", with no name to guess and nobody else's process hit. Linux; elsewhere
orphans of a crashed parent may be missed.

Why own code: Ray's processes, vLLM's and the reward workers put themselves into sessions of their own,
so neither a process group nor the end of verl's process takes them along; `ray stop` would stop
everybody's Ray on the machine; and shared memory of a killed process stays until somebody removes it.
"""

import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from launcher import folders, prefork

PR_SET_CHILD_SUBREAPER = 36
TICK_S = 0.5
STALLED = 124  # the exit status that `timeout` has
GRACE_S = float(os.getenv("LAB_GRACE_S", "10"))  # from asking verl to stop to killing it
IMPORTS = [
    "ray._private.node",
    "transfer_queue",
    "verl.trainer.main_ppo",
    "verl.trainer.ppo.v1",
    "verl.workers.engine_workers",
    "verl.experimental.agent_loop",
    "verl.experimental.reward_loop",
    "verl.workers.engine.fsdp.transformer_impl",
    "verl.workers.rollout.vllm_rollout.vllm_async_server",
    "verl.workers.rollout.vllm_rollout.vllm_rollout",
    "vllm.v1.engine.core",
    "vllm.v1.worker.cpu_worker",
    "vllm.entrypoints.openai.api_server",
    "vllm.model_executor.models.qwen2",
    "transformers.models.qwen2.modeling_qwen2",
    "plugins.rollout.agent_loop",
]


@dataclass
class Memory:
    """Of a run's processes. shared: files in /dev/shm that they have mapped; peak: bytes of all together, at most."""

    shared: set[str] = field(default_factory=set)
    peak: int = 0

    def look(self) -> None:
        """Note what is in use now."""
        processes = descendants()
        self.shared.update(shared_memory_of(processes))
        self.peak = max(self.peak, sum(map(memory_of, processes)))


class Stalled(Exception):
    """The run made no progress for longer than it may."""


def become_reaper() -> None:
    """Adopt orphaned descendants from now on."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants() -> list[psutil.Process]:
    """All processes below this one."""
    return psutil.Process().children(recursive=True)


def lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):  # its parent may wait for it at any time
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def shared_memory_of(processes: list[psutil.Process]) -> set[str]:
    """Files in /dev/shm that the processes have mapped."""
    found = set()
    for process in processes:
        with contextlib.suppress(OSError), open(f"/proc/{process.pid}/maps") as maps:
            lines = (line.split(maxsplit=5) for line in maps if "/dev/shm/" in line)
            found.update(fields[5].strip() for fields in lines if len(fields) == 6)
    return found


def memory_of(process: psutil.Process) -> int:
    """Bytes of a process's memory, of what it shares with others its part; 0 where the system doesn't say."""
    with contextlib.suppress(psutil.Error, OSError):
        return getattr(process.memory_full_info(), "pss", 0)
    return 0


def is_tracker(process: psutil.Process) -> bool:
    """Whether it is multiprocessing's resource tracker, which unlinks semaphores as its last act."""
    with contextlib.suppress(psutil.Error):
        return "multiprocessing.resource_tracker" in " ".join(process.cmdline())
    return False


def stop_all() -> None:
    """Kill every descendant, until none is left (a dying parent may still fork)."""
    for attempt in range(50):
        left = [process for process in descendants() if lives(process)]
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                if attempt > 20 or not is_tracker(process):  # trackers end when all others have
                    process.kill()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:  # reap the orphans that came to this process
                pass
        if not left:
            return
        time.sleep(0.1)


def dump_stacks(file: Path) -> None:
    """Write what every Python process of the run is doing, with py-spy where it may look."""
    with open(file, "w") as out:
        for process in descendants():
            with contextlib.suppress(psutil.Error, subprocess.TimeoutExpired, FileNotFoundError):
                out.write(f"\n=== {process.pid} {' '.join(process.cmdline())[:200]}\n")
                out.flush()
                py_spy = str(Path(sys.executable).parent / "py-spy")
                command = [py_spy, "dump", "--pid", str(process.pid)]
                subprocess.run(command, stdout=out, stderr=out, timeout=20)


def started(command: list[str], env: dict[str, str], log, keep: Iterable = ()) -> subprocess.Popen:
    """A process in a session of its own, so that Ctrl-C reaches it from here only; it has the descriptors `keep`."""
    return subprocess.Popen(
        command, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
        pass_fds=tuple(keep),
    )  # fmt: skip


def can_fork() -> bool:
    """Whether the fork server works on this system."""
    return sys.platform == "linux" and hasattr(os, "pidfd_open")


@contextlib.contextmanager
def fork_server(env: dict[str, str], folder: str, log):
    """Start the fork server (see prefork.py); yields the command that stands for `python`."""
    path = f"{folder}/fork"
    env[prefork.SOCKET_ENV] = path
    # Ray makes a token when a cluster starts, but the server's Ray must know it before.
    env.setdefault("RAY_AUTH_MODE", "token")
    env.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    command = [sys.executable, prefork.__file__, "serve", path, *IMPORTS]
    server = started(command, env | {"VLLM_LOGGING_LEVEL": "WARN"}, log)
    try:
        yield f"{path}.python"
    finally:
        server.kill()
        server.wait()


def watch(
    process: subprocess.Popen,
    progress: Callable[[], float],
    stall_timeout_s: float,
    memory: Memory,
) -> None:
    """Wait for the process to end.

    Args:
        progress: called at every tick; returns when the run last moved on (time.time()).
        stall_timeout_s: raise Stalled after so many seconds without progress.
        memory: looks every few seconds, however this ends.
    """
    looked = 0.0
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(TICK_S)
            progress()
            return
        if time.time() - looked > 5:
            memory.look()
            looked = time.time()
        if time.time() - progress() > stall_timeout_s:
            raise Stalled


def ask_to_stop(process: subprocess.Popen, memory: Memory) -> None:
    """Send Ctrl-C to verl, which shuts Ray down and closes its loggers."""
    memory.look()  # before the processes that name it end
    process.send_signal(signal.SIGINT)


def leave_nothing(process: subprocess.Popen, grace_s: float, memory: Memory) -> None:
    """End whatever still runs, and remove the shared memory that it leaves.

    Args:
        grace_s: how long verl may take to end by itself.
        memory: what was seen in use before.
    """
    memory.look()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace_s)
    stop_all()
    for file in memory.shared:
        with contextlib.suppress(OSError):
            os.remove(file)


def keep_ray_logs(folder: Path, run_dir: Path) -> None:
    """Copy Ray's own logs of a failed run into its folder."""
    for session in folder.glob("session_2*/logs"):
        with contextlib.suppress(OSError, shutil.Error):
            shutil.copytree(session, run_dir / "ray_logs", dirs_exist_ok=True)


def run(
    make_command: Callable[[str, str | None], list[str]],
    run_dir: Path,
    env: dict[str, str],
    progress: Callable[[], float],
    stall_timeout_s: float,
    fork: bool,
    memory: Memory | None = None,
) -> int:
    """Run verl's process to its end.

    Args:
        make_command: gets a private temporary folder and the command to use as Ray's `python`
            (None: the ordinary one), and returns the command to run.
        run_dir: log.txt, and stacks.txt or ray_logs/ if need be, are written there.
        env: the environment of the process.
        fork: start Python processes by forking (prefork.py).
        memory: gets what the run's processes take.

    Returns:
        The exit status of verl; 124 if it stalled. KeyboardInterrupt passes through.
    """
    become_reaper()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = tempfile.mkdtemp(prefix="verl-lab-")  # short: Ray's sockets lie in it
    memory = memory or Memory()
    code, grace_s = 1, 0.0
    with contextlib.ExitStack() as stack, open(run_dir / "log.txt", "a") as log:
        python = stack.enter_context(fork_server(env, folder, log)) if fork and can_fork() else None
        process = started(make_command(folder, python), env, log, folders.held)
        try:
            watch(process, progress, stall_timeout_s, memory)
            code = process.returncode
        except Stalled:
            code = STALLED
            dump_stacks(run_dir / "stacks.txt")
        except KeyboardInterrupt:
            grace_s = GRACE_S
            ask_to_stop(process, memory)
            raise
        finally:
            # a second Ctrl-C must not stop the stopping
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            leave_nothing(process, grace_s, memory)
            if code:
                keep_ray_logs(Path(folder), run_dir)
            shutil.rmtree(folder, ignore_errors=True)
            signal.signal(signal.SIGINT, signal.default_int_handler)
    return code if code >= 0 else 128 - code
