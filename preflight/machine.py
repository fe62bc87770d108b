"""The machine's GPUs, read without torch, and what hw=auto makes of them.

conf/hw/auto.yaml has `machine` in its defaults. No file has that name: Hydra asks `Source` for it, so
nvidia-smi and rocm-smi are called only where hw=auto is chosen. A composition can't do it by itself:
Hydra allows no `override` (a profile's default model) below an interpolated entry of a defaults list.
"""

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import OmegaConf

from preflight.mistakes import Mistake

HW = Path(__file__).resolve().parent.parent / "conf" / "hw"
TIMEOUT_S = 30  # without persistence mode the driver starts anew for each call
NVIDIA = "nvidia-smi --query-gpu=name,memory.total,compute_cap,uuid --format=csv,noheader,nounits"
AMD = "rocm-smi --showproductname --showmeminfo vram --json"
# CUDA keeps 0.2 to 0.7 GiB of what nvidia-smi says for itself: 4 % of the smallest cards.
CUDA_SHARE = 0.96
OTHERWISE = "hw=cpu runs without a GPU."


class Gpu(NamedTuple):
    """A GPU as its vendor's tool tells it; CUDA reports 1 to 4 % less memory."""

    name: str
    memory_gib: float
    vendor: str
    index: int  # type: ignore[assignment] # in place of a tuple's method that nobody asks for
    uuid: str = ""
    bf16: bool = True


def ask(command: str) -> str:
    """What a vendor's tool says of its GPUs; "" without the tool or a GPU. Raises Mistake if it is broken."""
    tool = command.split()[0]
    if not shutil.which(tool):
        return ""
    process = subprocess.Popen(
        command.split(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        output, errors = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()  # and no wait: one that a driver holds doesn't die
        raise Mistake(
            f"{tool} doesn't answer ({TIMEOUT_S} s): its driver hangs. {OTHERWISE}"
        ) from None
    if "No devices were found" in output:
        return ""
    if process.returncode:
        raise Mistake(f"{tool} fails: {' '.join((output or errors).split())[:200]} {OTHERWISE}")
    return output


def nvidia_gpus() -> list[Gpu]:
    """NVIDIA's GPUs in the order of the bus."""
    found = []
    for index, line in enumerate(ask(NVIDIA).splitlines()):
        try:
            name, mib, capability, uuid = line.split(", ")
            bf16 = float(capability) >= 8
            found.append(Gpu(name, int(mib) / 1024, "NVIDIA", index, uuid, bf16))
        except ValueError:  # also [N/A]: memory that is shared with the CPU has no total
            raise Mistake(f"nvidia-smi says {line!r}, which says no memory. {OTHERWISE}") from None
    return found


def amd_gpus() -> list[Gpu]:
    """AMD's GPUs; verl runs on those of the Instinct series."""
    output = ask(AMD)
    if not output:
        return []
    try:  # warnings may stand before it; "Card series" in ROCm 5, "Card Series" later
        cards = json.loads(output[output.index("{") :])
        rows = [{k.lower(): v for k, v in cards[key].items()} for key in cards if "card" in key]
        return [
            Gpu(
                row["card series"], int(row["vram total memory (b)"]) / 2**30, "AMD", index,
                bf16="instinct" in row["card series"].lower(),
            )
            for index, row in enumerate(rows)
        ]  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError):
        said = " ".join(output.split())[:200]
        raise Mistake(f"rocm-smi says {said!r}, which names no card. {OTHERWISE}") from None


def visible(found: list[Gpu], *variables: str) -> list[Gpu]:
    """Those that the first variable that is set lets through, as CUDA reads it: up to an unknown one."""
    chosen = next((os.environ[v] for v in variables if v in os.environ), None)
    if chosen is None:
        return found
    seen = []
    for key in chosen.replace(" ", "").split(","):
        if key.startswith("MIG"):
            raise Mistake(
                "hw=auto can't read slices of a GPU (MIG): name a profile, and their lab.hw.memory_gib."
            )
        match = [g for g in found if key and (str(g.index) == key or g.uuid.startswith(key))]
        if not match:
            break
        seen.append(match[0])
    return seen


@functools.cache
def gpus() -> list[Gpu]:
    """The GPUs that a run on this machine may use; none: []."""
    return visible(nvidia_gpus(), "CUDA_VISIBLE_DEVICES") or visible(
        amd_gpus(), "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"
    )


def memory_gib() -> float:
    """The computer's memory, or a container's share of it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        total = min(total, int(text))
    return total / 2**30


def shipped() -> dict[str, dict]:
    """Profiles of one card: what each file itself says under lab.hw."""
    files = {file.stem: yaml.safe_load(file.read_text()) for file in sorted(HW.glob("*.yaml"))}
    own = {name: (file.get("lab") or {}).get("hw", {}) for name, file in files.items()}
    return {name: hw for name, hw in own.items() if "cards" in hw}


def same_kind(found: list[Gpu]) -> Gpu:
    """One of them; raises Mistake where they differ, or can't train."""
    best = max(found, key=lambda gpu: gpu.memory_gib)
    if any(gpu.name != best.name for gpu in found):
        kinds = ", ".join(dict.fromkeys(gpu.name for gpu in found))
        which = ",".join(str(gpu.index) for gpu in found if gpu.name == best.name)
        variable = "HIP" if best.vendor == "AMD" else "CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA"
        raise Mistake(f"hw=auto: different GPUs here ({kinds}), and a run wants equal ones:"
                      f" {variable}_VISIBLE_DEVICES={which} python launch.py ...")  # fmt: skip
    if not best.bf16:
        needs = "an Instinct card" if best.vendor == "AMD" else "one of compute capability 8.0"
        raise Mistake(
            f"hw=auto: {best.name} can't train in bf16 with verl; {needs} can. {OTHERWISE}"
        )
    return best


def settings(own: dict, gpu: Gpu, count: int, known: bool) -> dict:
    """What of lab.hw differs from the profile on this machine."""
    hw: dict[str, Any] = {"gpus_per_node": count}
    for key in ("samples_per_step", "sft_batch_size"):
        if own[key] % count:  # the next that every GPU gets an equal, even part of
            hw[key] = count << (own[key] // count).bit_length()
    if not known:
        memory_gib = round(CUDA_SHARE * gpu.memory_gib, 1)
        hw |= {"cards": [gpu.name], "memory_gib": memory_gib}
        hw |= {"bf16_tflops": None, "memory_gb_s": None}  # another card's would be wrong
    return hw


@functools.cache
def profile() -> dict:
    """The config `hw/machine`: the card's profile, or the settings of the next smaller one's."""
    found = gpus()
    if not found:
        print("hw=auto: no GPU, so hw=cpu", file=sys.stderr)
        return {"defaults": ["cpu"]}
    gpu, count, profiles = same_kind(found), len(found), shipped()
    sizes = {
        name: hw["memory_gib"] for name, hw in profiles.items() if gpu.vendor in hw["cards"][0]
    }
    fit = [n for n in sizes if sizes[n] <= gpu.memory_gib] or [min(sizes, key=sizes.get)]
    own = [n for n in fit if gpu.name in profiles[n]["cards"] and sizes[n] <= gpu.memory_gib]
    name = own[0] if own else max(fit, key=sizes.get)
    what = f"hw={name}" if own else f"no profile has it, so the settings of hw={name}"
    values = profiles[name]
    if count >= 8 and (HW / f"{name}x8.yaml").is_file():
        name += "x8"
        values = yaml.safe_load((HW / f"{name}.yaml").read_text())["lab"]["hw"]
    print(f"hw=auto: {count} × {gpu.name}: {what}", file=sys.stderr)
    return {"defaults": [name], "lab": {"hw": settings(values, gpu, count, bool(own))}}


class Source(ConfigSource):
    """Hydra's way to a config that is not a file: `machine://` in hydra.searchpath."""

    @staticmethod
    def scheme() -> str:
        return "machine"

    def load_config(self, config_path: str) -> ConfigResult:
        config = OmegaConf.create(profile())
        return ConfigResult(self.provider, self.full_path(), config, {"package": "_global_"})

    def is_config(self, config_path: str) -> bool:
        return config_path.removesuffix(".yaml") == "hw/machine"

    def is_group(self, config_path: str) -> bool:
        return False

    def available(self) -> bool:
        return True

    def list(self, config_path: str, results_filter) -> list[str]:
        return []  # not offered: `hw=auto` is the name
