"""verl's platform "cpu": real runs on a machine without an accelerator.

verl 0.9.1 knows CUDA, NPU and ROCm, and lets others register (verl.plugin.platform). A Ray "GPU" is
here a logical slot: Ray is started with `num_gpus` = number of workers. Tensors travel through
POSIX shared memory, collectives through gloo. Chosen by VERL_PLATFORM=cpu, or by verl itself where
no accelerator is found.
"""

import resource
import types
from contextlib import nullcontext
from typing import Any

import psutil
import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry


def _nothing(*_args, **_kwargs) -> None:
    """What a CPU has to do for "empty the cache", "synchronize" and their like."""


def device_module() -> types.ModuleType:
    """A stand-in for `torch.cuda`: the functions that verl calls on the device's module. Bytes."""
    module: Any = types.ModuleType("verl_lab_cpu_device")
    for name in [
        "empty_cache",
        "synchronize",
        "set_device",
        "ipc_collect",
        "reset_peak_memory_stats",
        "set_per_process_memory_fraction",
        "manual_seed",
        "manual_seed_all",
    ]:
        setattr(module, name, _nothing)
    module.memory_allocated = module.memory_reserved = lambda *_: psutil.Process().memory_info().rss
    module.max_memory_allocated = module.max_memory_reserved = lambda *_: (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    module.mem_get_info = lambda *_: (
        psutil.virtual_memory().available,
        psutil.virtual_memory().total,
    )
    module.is_available = lambda: False  # "there is no accelerator's memory to clean up"
    module.device_count = lambda: 1
    module.current_device = lambda: "cpu"
    module.get_device_name = lambda *_: "cpu"
    module.get_rng_state, module.set_rng_state = torch.get_rng_state, torch.set_rng_state
    module.current_stream, module.stream = torch.cpu.current_stream, torch.cpu.stream
    module.Stream = torch.cpu.Stream
    return module


class PlatformCPU(PlatformBase):
    """One CPU "device" a process."""

    device_name = "cpu"
    device_module = device_module()

    @property
    def vendor_name(self) -> str:
        # Only EngineRegistry.get_engine_cls() asks, right before it looks an engine up: the engines
        # are registered there, so that no other process pays for their import. (model.external_lib,
        # the documented way, is not imported in the critic's worker.)
        from plugins.cpu import engine  # noqa: F401

        return "cpu"

    def is_available(self) -> bool:
        return True

    def current_device(self):
        return "cpu"  # verl only ever does tensor.to(get_device_id()); .to(0) would ask for CUDA

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index) -> None:
        pass

    def synchronize(self, device_index=None) -> None:
        pass

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def set_allocator_settings(self, settings: str) -> None:
        pass

    def empty_cache(self) -> None:
        pass

    def get_device_capability(self, device_index: int = 0):
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    def ray_resource_name(self) -> str:
        return "GPU"  # verl reads get_accelerator_ids()[name]: Ray fills it only for known names

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False  # weights go through shared memory instead of CUDA IPC

    def cudart(self):
        return None

    def profiler_start(self) -> None:
        pass

    def profiler_stop(self) -> None:
        pass

    def nvtx_range(self, msg: str):
        return nullcontext()


def register() -> None:
    """Make the platform known. It comes last in verl's search, so accelerators go first."""
    if PlatformRegistry.get("cpu") is None:
        PlatformRegistry.register(platform="cpu")(PlatformCPU)
