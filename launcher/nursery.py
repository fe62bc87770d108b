"""One set of imports for all runs of a sweep: a process that has imported verl and vLLM, and stays from run to run.

Each run's guard is a fork of it, the run's fork server (prefork.py) a fork of the guard, and verl's main process one of
the server. So a run of a sweep has processes, a Ray, a temporary folder and an end of its own, as every run has, and
begins without the imports. Runs whose environments differ have another one: modules read some variables when they are
imported.
"""

import atexit
import os
import subprocess
import time
from pathlib import Path

from launcher import prefork
from launcher.processes import remove, spared
from preflight import temporary

# Nothing that RL imports reads these.
OF_A_RUN = ("LAB_SEED", "TMPDIR", "TORCHINDUCTOR_CACHE_DIR", prefork.SOCKET_ENV)
LOOK_S = 0.02


class Nursery:
    """The process, which begins to import.

    Args:
        modules: that it imports.
        env: of a run.
        kind: what of that all its runs have in common.
    """

    def __init__(self, modules: list[str], env: dict[str, str], kind: dict[str, str]):
        self.kind, self.places = kind, temporary.made()
        temporary.compiled(self.places[0])
        self.socket = f"{self.places[0]}/fork"
        self.python = f"{self.socket}.python"  # the command that forks
        self.process = subprocess.Popen(
            prefork.serving(self.socket, modules),
            env=env | {"TMPDIR": self.places[0]}, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        spared.add(self.process.pid)
        while self.lives() and not os.path.exists(self.python):
            time.sleep(LOOK_S)

    def lives(self) -> bool:
        return self.process.poll() is None

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        spared.discard(self.process.pid)
        remove(*self.places)


kept: list[Nursery] = []  # one at most


def of_run(modules: list[str], env: dict[str, str], run_dir: Path) -> Nursery | None:
    """The one for a run with this environment: that of the run before, or a new one in its place.

    None if it ended at once: then the run imports for itself.
    """
    own = str(run_dir)
    kind = {name: value for name, value in env.items() if name not in OF_A_RUN and own not in value}
    if not (kept and kept[0].lives() and kept[0].kind == kind):
        end()
        kept.append(Nursery(modules, env, kind))
    return kept[0] if kept[0].lives() else None


@atexit.register
def end() -> None:
    """No run follows."""
    while kept:
        kept.pop().end()
