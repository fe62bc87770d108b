"""What the machine does: each GPU by nvidia-smi where there is one, else CPU and memory; the last minutes of it."""

import shutil
import subprocess
import time
from collections import deque

import psutil

QUERY = "index,name,utilization.gpu,memory.used,memory.total,power.draw,temperature.gpu"
KEPT = 300  # looks
EVERY_S = 2.0
TIMEOUT_S = 5
GIB = 2**30


def gpus() -> list[dict]:
    """One entry a GPU; empty where nvidia-smi is not there, or does not answer."""
    program = shutil.which("nvidia-smi")
    if not program:
        return []
    command = [program, f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return []
    found = []
    for line in done.stdout.splitlines() if done.returncode == 0 else ():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == len(QUERY.split(",")):
            figures = [number(cell) for cell in cells[2:]]
            used, total = (None if mib is None else mib / 1024 for mib in figures[1:3])
            found.append({"name": f"{cells[0]}: {cells[1]}", "busy": figures[0], "used_gib": used, "total_gib": total,
                          "power_w": figures[3], "temperature_c": figures[4]})  # fmt: skip
    return found


def number(cell: str) -> float | None:
    """A figure; None for "[N/A]"."""
    try:
        return float(cell)
    except ValueError:
        return None


class Machine:
    """The state of the machine; `look` adds the one of now, not more often than every two seconds."""

    def __init__(self) -> None:
        self.past: deque[dict] = deque(maxlen=KEPT)
        self.looked = 0.0
        psutil.cpu_percent()  # the first call has nothing to compare with

    def look(self) -> None:
        """Take the figures of now."""
        if time.monotonic() - self.looked < EVERY_S:
            return
        self.looked = time.monotonic()
        memory = psutil.virtual_memory()
        self.past.append({
            "time": time.time(),
            "cpu": psutil.cpu_percent(),
            "cores": psutil.cpu_count(),
            "used_gib": (memory.total - memory.available) / GIB,
            "total_gib": memory.total / GIB,
            "gpus": gpus(),
        })  # fmt: skip

    def summary(self) -> dict | None:
        """The newest figures, and lines of the last minutes: CPU in percent, the mean of the GPUs."""
        past = list(self.past)
        if not past:
            return None
        busy = [[g["busy"] for g in look["gpus"] if g["busy"] is not None] for look in past]
        return {
            **past[-1],
            "cpu_past": [look["cpu"] for look in past],
            "gpu_past": [sum(b) / len(b) for b in busy if b],
        }
