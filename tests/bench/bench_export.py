"""What tools.export takes: a LoRA run of the shape of Qwen2.5-0.5B, random weights in fp32, from the trainer's shards.

python tests/bench/bench_export.py
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from checkpoints import save_run

from preflight.names import CONF, ROOT

WAYS = {
    "weights, float32": [],
    "weights, bfloat16": ["--dtype", "bfloat16"],
    "adapter": ["--adapter"],
}
MOST_S, MOST_GIB = 60, 4.0


def make_run(folder: Path) -> Path:
    """A run with one checkpoint, LoRA of rank 16 on all linear layers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config

    facts = yaml.safe_load((CONF / "model/qwen2_5_0_5b.yaml").read_text())["facts"]
    config = Qwen2Config(**{key: value for key, value in facts.items() if key != "model_type"})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    base = folder / "base"
    model.save_pretrained(base)
    AutoTokenizer.from_pretrained(ROOT / "data/tiny_model").save_pretrained(base)
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.01)
    save_run(folder / "run", model, base)
    return folder / "run"


def rows() -> list[list[str]]:
    """Of each way: seconds of the whole command, and the highest resident memory of its process."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, __file__, "make", folder], cwd=ROOT, check=True
        )  # its memory is gone then
        for number, (name, options) in enumerate(WAYS.items()):
            out = f"{folder}/{number}"
            command = [
                sys.executable,
                "-m",
                "tools.export",
                f"{folder}/run",
                "--to",
                out,
                "--check-rows",
                "0",
                *options,
            ]
            begin = time.perf_counter()
            pid = os.posix_spawn(sys.executable, command, os.environ | {"PYTHONPATH": str(ROOT)},
                                 file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])  # fmt: skip
            _, status, used = os.wait4(pid, 0)
            seconds, gib = time.perf_counter() - begin, used.ru_maxrss / 2**20
            if status:
                raise SystemExit(
                    f"{name} ended with exit status {os.waitstatus_to_exitcode(status)}"
                )
            size = sum(file.stat().st_size for file in Path(out).iterdir()) / 2**30
            good = "yes" if seconds < MOST_S and gib < MOST_GIB else "no"
            found.append([name, f"{seconds:.1f} s", f"{gib:.2f} GiB", f"{size:.2f} GiB", good])
    return found


HEAD = [
    "a LoRA run of 0.5B",
    "time",
    "peak memory",
    "written",
    f"under {MOST_S} s and {MOST_GIB:.0f} GiB",
]

if __name__ == "__main__":
    if sys.argv[1:2] == ["make"]:
        make_run(Path(sys.argv[2]))
        sys.exit()
    for row in [HEAD, *rows()]:
        print("  ".join(f"{cell:<20}" for cell in row))
