"""Around verl's process: start it, watch it, and leave nothing behind.

The run's process and all that it starts (Ray, vLLM, forks, reward workers) become descendants of
this one, also when their own parents end: this process declares itself their reaper. So stopping is
"kill every descendant" (processes.py). Between it and them stands guard.py, which does the same if this process is
killed.

All of them have a temporary folder of the run's own, which goes with it.

Why own code: Ray's processes, vLLM's and the reward workers put themselves into sessions of their own,
so neither a process group nor the end of verl's process takes them along; `ray stop` would stop
everybody's Ray on the machine; and shared memory of a killed process stays until somebody removes it.
"""

import contextlib
import os
import resource
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

from launcher import ends, folders, nursery, prefork
from launcher.processes import Memory, become_reaper, clear_up, descendants, lives
from launcher.progress import StoppedEarly
from preflight import temporary

ROOT = Path(__file__).resolve().parent.parent
TICK_S = 0.5
OPEN_FILES = 65536  # a process may open so many, where the hard limit allows it
TOKEN = secrets.token_hex(32)  # of each Ray that this process has started
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


DAEMONS = (
    "gcs_server",
    "raylet",
)  # of a Ray: without one it is lost, and the rest waits a minute to see that
LOST_S = 15.0  # longer than a Ray's last moments at a good end


class Lost(Exception):
    """A process is gone that the run can't do without; its text says which."""


class Daemons:
    """Those of the run's own Ray, by the run's temporary folder in their command lines."""

    def __init__(self, folder: str):
        self.mark = f"{folder}/session"
        self.seen: dict[psutil.Process, str] = {}
        self.since: float | None = None  # one of them is gone

    def look(self) -> None:
        """Raise Lost if one has been gone for LOST_S."""
        for process in descendants():
            with contextlib.suppress(psutil.Error):
                name = process.name()
                if name in DAEMONS and self.mark in " ".join(process.cmdline()):
                    self.seen[process] = name
        gone = [process for process in self.seen if not lives(process)]
        self.since = (self.since or time.monotonic()) if gone else None
        if self.since and time.monotonic() - self.since > LOST_S:
            one = gone[0]
            raise Lost(f"ProcessKilled: {self.seen[one]} of Ray (process {one.pid}) has ended")


class Stalled(Exception):
    """The run made no progress for longer than it may."""


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


def guarded(
    commands: list[list[str]], places: list[str], warm: nursery.Nursery | None = None
) -> list[str]:
    """The command that runs these under a guard, which removes `places` if this process is killed.

    The guard is a fork of `warm`, if there is one.
    """
    launchers, program = [os.getpid()], sys.executable
    if warm:
        launchers, program = [*launchers, warm.process.pid], warm.python
        places = [*places, *warm.places]
    arguments = (launchers, sorted(folders.held), places, commands)
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        f"from launcher.guard import main; sys.exit(main(*{arguments!r}))"
    )
    return [program, "-c", code]


def can_fork() -> bool:
    """Whether the fork server works on this system."""
    return sys.platform == "linux" and hasattr(os, "pidfd_open")


def fork_server(env: dict[str, str], folder: str) -> list[str]:
    """The command of the fork server (see prefork.py), with its socket in `folder`; `env` gets what its users need."""
    env[prefork.SOCKET_ENV] = f"{folder}/fork"
    # Ray makes a token when a cluster starts, but the server's Ray must know it before.
    env.setdefault("RAY_AUTH_MODE", "token")
    env.setdefault("RAY_AUTH_TOKEN", TOKEN)
    return prefork.serving(env[prefork.SOCKET_ENV], IMPORTS)


def raise_file_limit() -> None:
    """A process of Ray or vLLM opens more files than the 256 or 1024 that a shell often allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def watch(
    process: subprocess.Popen,
    progress: Callable[[], float],
    stall_timeout_s: float,
    memory: Memory,
    daemons: Daemons,
) -> None:
    """Wait for the process to end.

    Args:
        progress: called at every tick; returns when the run last moved on (time.time()).
        stall_timeout_s: raise Stalled after so many seconds without progress.
        memory: looks every few seconds, however this ends. So do daemons, which may raise Lost.
    """
    looked = 0.0
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(TICK_S)
            with contextlib.suppress(StoppedEarly):  # it has ended by itself
                progress()
            return
        if time.time() - looked > 5:
            memory.look()
            daemons.look()
            looked = time.time()
        if time.time() - progress() > stall_timeout_s:
            raise Stalled


def ask_to_stop(process: subprocess.Popen, memory: Memory) -> None:
    """Send Ctrl-C to verl, which shuts Ray down and closes its loggers."""
    memory.look()  # before the processes that name it end
    process.send_signal(signal.SIGINT)


def let_end(process: subprocess.Popen, grace_s: float) -> None:
    """Give verl so many seconds to end by itself."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace_s)


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
    others_follow: bool = False,
) -> int:
    """Run verl's process to its end.

    Args:
        make_command: gets a private temporary folder and the command to use as Ray's `python`
            (None: the ordinary one), and returns the command to run.
        run_dir: log.txt, and stacks.txt or ray_logs/ if need be, are written there.
        env: the environment of the process.
        fork: start Python processes by forking (prefork.py).
        memory: gets what the run's processes take.
        others_follow: keep the imports for the next run of this process (nursery.py).

    Returns:
        The exit status of verl; 124 if it stalled. KeyboardInterrupt and StoppedEarly pass through.
    """
    become_reaper()
    raise_file_limit()
    memory = memory or Memory()
    places = temporary.made()  # before anything starts
    folder, code, grace_s = places[0], 1, 0.0
    env.setdefault("TORCHINDUCTOR_CACHE_DIR", temporary.compiled(folder))
    env["TMPDIR"] = folder
    with open(run_dir / "log.txt", "a") as log:
        forks = [fork_server(env, folder)] if fork and can_fork() else []
        python = f"{folder}/fork.python" if forks else None
        main = make_command(folder, python)
        warm = nursery.of_run(IMPORTS, env, run_dir) if forks and others_follow else None
        if warm:
            main[0], env[prefork.SOCKET_ENV] = python, warm.socket
        command = guarded([*forks, main], places, warm)
        process = started(command, env, log, folders.held)
        try:
            watch(process, progress, stall_timeout_s, memory, Daemons(folder))
            code = process.returncode
        except Lost as lost:
            log.write(f"{lost}\n")
        except Stalled:
            code = STALLED
            dump_stacks(run_dir / "stacks.txt")
        except (KeyboardInterrupt, StoppedEarly) as stop:
            grace_s, code = GRACE_S, int(isinstance(stop, KeyboardInterrupt))
            ask_to_stop(process, memory)
            raise
        finally:
            with ends.held_back():
                memory.look()
                let_end(process, grace_s)
                if code:
                    keep_ray_logs(Path(folder), run_dir)
                clear_up(memory, *places)
    return code if code >= 0 else 128 - code
