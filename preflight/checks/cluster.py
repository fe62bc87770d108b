"""What a cluster's job needs: a profile of its nodes, and checkpoints where it may be requeued."""

from omegaconf import DictConfig, OmegaConf

from preflight import cluster
from preflight.checks import applies_to
from preflight.facts import choice
from preflight.mistakes import unknown

CONTAINER_TOOLS = ("pyxis", "apptainer")


def is_handed_over(config: DictConfig) -> bool:
    """Whether a cluster's job begins the run, and not this start."""
    return not cluster.begins_here(config)


@applies_to(is_handed_over)
def check_profile_of_nodes(config: DictConfig) -> str | None:
    """hw=auto looks at the machine of this start, which is not the one that trains."""
    if choice("hw") == "auto":
        return (f"hw=auto looks at this machine, and cluster={cluster.engine(config)} runs on another: name the"
                " profile of its nodes (hw=h100x8; `python launch.py --help` lists them).")  # fmt: skip
    return None


@applies_to(is_handed_over)
def check_requeue_saves(config: DictConfig) -> str | None:
    """verl saves each `trainer.save_freq` steps, and not when it is asked to end: a requeued run has only these."""
    if not OmegaConf.select(config, "lab.cluster.requeue") or config.trainer.save_freq != -1:
        return None
    return ("trainer.save_freq=-1 keeps no checkpoint before the end, and lab.cluster.requeue=true goes on from the"
            " last one: set trainer.save_freq=N (steps), or lab.cluster.requeue=false.")  # fmt: skip


@applies_to(is_handed_over)
def check_container_tool(config: DictConfig) -> str | None:
    """What starts the container."""
    tool = OmegaConf.select(config, "lab.cluster.container_tool")
    if tool is None or tool in CONTAINER_TOOLS:
        return None
    return unknown("lab.cluster.container_tool", tool, CONTAINER_TOOLS)
