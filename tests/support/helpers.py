"""What tests and benches share beside fixtures: places, a run that has ended, what a run may leave behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil
from omegaconf import OmegaConf

from launcher.metrics import read_metrics

ROOT = Path(__file__).resolve().parents[2]

SHARED = ROOT.parent / "shared" / "data"
STEPS = 2  # of a real run
MARK = "LAB_TESTS"  # in the environment of all that these tests start
os.environ.setdefault(MARK, uuid.uuid4().hex)  # pytest-xdist's workers have the one of their parent
# parts of the names of what differs between two runs of one seed: times, and what comes of them
OF_THE_MACHINE = ("timing", "perf/", "mfu", "exec_ms", "cache_hit")
# how a first line ends that says hardware, date and figure
VERIFIED = re.compile(r"\. # verified: [^,]+, \d{4}-\d\d-\d\d, \S.*$")
LEFT = re.compile(
    r"ray::|raylet|gcs_server|EngineCore|main_ppo|sft_trainer|algos\.\w+ --config|prefork\.py serve"
    r"|launcher\.guard|rewards\._limits\.worker|rewards\._sql\.worker"
)


def resolved(config) -> dict:
    """A config as a plain dict with every interpolation resolved."""
    return OmegaConf.to_container(config, resolve=True)


# launch.py without verl: all before and after the child process, and of that what its Hydra makes of the command
WITHOUT_VERL = """
import runpy, subprocess, sys, time
from launcher import child, supervisor

COMPOSES = '''
import hydra
@hydra.main(config_path="conf", config_name="x", version_base=None)
def main(config):
    print("verl runs in", config.lab.run_dir, hydra.core.hydra_config.HydraConfig.get().runtime.output_dir)
main()
'''

def run(config, run_dir, memory, watch):
    command = child.command(config, run_dir, "/tmp/x", None)
    rest = command[command.index(config.lab.trainer.entry) + 1 :]
    rest = [word for word in rest if "job_logging" not in word]  # it is of verl's own tree
    with open(run_dir / "log.txt", "a") as log:
        process = supervisor.started([sys.executable, "-c", COMPOSES, *rest], child.environment(config), log)
        code = process.wait()
    while (run_dir.parent / "wait").exists():
        time.sleep(0.05)
    return code

child.run = run
sys.argv[0] = "launch.py"
runpy.run_path(str(child.ROOT / "launch.py"), run_name="__main__")
"""


def cpu_seconds(call: Callable[[], object]) -> float:
    """CPU time of this process in a call, the least of five: the garbage of all tests may be collected in one."""
    took = []
    for _ in range(5):
        begin = time.process_time()
        call()
        took.append(time.process_time() - begin)
    return min(took)


def begin_without_verl(*args, **popen) -> subprocess.Popen:
    """A start of launch.py whose child process composes the config and trains nothing; while a file `wait` lies
    beside the run's folder, it doesn't end."""
    command = [sys.executable, "-c", WITHOUT_VERL, *map(str, args)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=env, text=True, **{"cwd": ROOT, **pipes, **popen})


def launch_without_verl(*args) -> subprocess.CompletedProcess:
    """The same, to its end."""
    with begin_without_verl(*args) as process:
        out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def heed_ctrl_c() -> None:
    """For preexec_fn: tests in the background, or under nohup, ignore such signals, and so would their children."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def of_others(process: psutil.Process) -> bool:
    """Whether a process was started by somebody else than these tests: it does not have their mark.

    A process that gives itself a title writes over its environment; then nobody can tell, and it counts.
    """
    try:
        environment = process.environ()
    except psutil.Error:
        return True
    return "PATH" in environment and environment.get(MARK) != os.environ[MARK]


def leftovers() -> set[str]:
    """What a run of these tests could leave: processes of Ray or vLLM, shared memory, temporary folders."""
    names = {str(path) for place in ("/dev/shm", "/tmp") for path in Path(place).glob("*")
             if re.match(r"(psm|sem\.|verl_|torch_|plasma|verl-lab)", path.name)}  # fmt: skip
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if LEFT.search(line) and not of_others(process):
            names.add(f"{process.pid} {line[:80]}")
    return names


class Run:
    """A run that has ended."""

    def __init__(self, folder: Path, done: subprocess.CompletedProcess):
        self.folder, self.done = folder, done
        self.metrics = read_metrics(folder / "metrics.jsonl")

    def log(self) -> str:
        return (self.folder / "log.txt").read_text(errors="replace")

    def at(self, step: int, name: str) -> float:
        return self.metrics[step][name]

    def figures(self) -> dict[int, dict[str, float]]:
        """The metrics of each step that are the same in each run of one seed."""
        return {
            step: {n: v for n, v in metrics.items() if not any(p in n for p in OF_THE_MACHINE)}
            for step, metrics in self.metrics.items()
        }

    def samples(self, step: int, kind: str = "rollouts") -> list[dict]:
        """What a step's dump says of each answer, but for times and whether another one had the same result before."""
        lines = (self.folder / f"{kind}/{step}.jsonl").read_text().splitlines()
        return [
            {k: v for k, v in json.loads(line).items() if k not in OF_THE_MACHINE} for line in lines
        ]
