"""verl's own opinion, for all that the checks of this project don't know."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from preflight.names import ROOT

TIMEOUT_S = 300
VERDICT = "verdict: "


def check_verls_verdict(config: DictConfig) -> str | None:
    """Its validation, in a process of its own: it takes seconds to import."""
    with tempfile.TemporaryDirectory(prefix="verl-lab-") as folder:
        file = Path(folder) / "resolved.yaml"
        OmegaConf.save(config, file, resolve=True)
        done = subprocess.run(
            [sys.executable, "-m", "preflight.verdict", file],
            cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S,
            env=os.environ | {key: str(value) for key, value in config.lab.env.items()},
        )  # fmt: skip
    verdicts = [line for line in done.stdout.splitlines() if line.startswith(VERDICT)]
    if verdicts:
        return f"verl refuses this config: {verdicts[-1].removeprefix(VERDICT)[:300]}"
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return f"verl's own check failed: {last[:300]}"
    return None
