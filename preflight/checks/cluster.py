"""What a cluster's job needs: a profile of its nodes, and checkpoints where it may be requeued."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from preflight import cluster, nodes, ray_jobs
from preflight.checks import applies_to
from preflight.facts import choice
from preflight.mistakes import Mistake, unknown
from preflight.names import ROOT

CONTAINER_TOOLS = ("pyxis", "apptainer")


def is_handed_over(config: DictConfig) -> bool:
    """Whether a cluster's job begins the run, and not this start."""
    return not cluster.begins_here(config)


@applies_to(is_handed_over)
def check_profile_of_nodes(config: DictConfig) -> str | None:
    """hw=auto looks at the machine of this start, which is not the one that trains."""
    engine = cluster.engine(config)
    if config.lab.plan == "auto" and config.lab.hw.device == "cpu":
        return (f"lab.plan=auto measures this machine, and cluster={engine} runs on another: leave it out, or begin"
                " the run there (cluster=none).")  # fmt: skip
    if choice("hw") == "auto":
        return (f"hw=auto looks at this machine, and cluster={engine} runs on another: name the"
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


@applies_to(is_handed_over)
def check_jobs_of_ray(config: DictConfig) -> str | None:
    """The Ray cluster that gets the job answers, and has jobs."""
    if cluster.engine(config) != "ray":
        return None
    try:
        ray_jobs.client(config.lab.cluster.address, same_version=config.lab.cluster.python is None)
    except Mistake as mistake:
        return str(mistake)
    return None


@applies_to(is_handed_over)
def check_what_only_the_user_knows(config: DictConfig) -> str | None:
    """Of KubeRay the image, of SkyPilot the kind of machine."""
    engine, asked = cluster.engine(config), config.lab.cluster
    if engine == "kuberay" and not asked.image:
        return "cluster=kuberay needs an image of this project: lab.cluster.image=NAME (see docker/gpu.Dockerfile)."
    if engine == "sky" and config.lab.hw.device != "cpu" and not asked.accelerator:
        return ("cluster=sky needs SkyPilot's name of the GPU: lab.cluster.accelerator=H100 (`sky gpus list` shows"
                " them).")  # fmt: skip
    return None


@applies_to(is_handed_over)
def check_volumes(config: DictConfig) -> str | None:
    """Pods see what lies on their volumes, and nothing else of this machine."""
    asked = config.lab.cluster
    if cluster.engine(config) != "kuberay":
        return None
    places = []
    for volume in asked.volumes:
        claim, _, place = str(volume).partition(":")
        if not claim or not place.startswith("/"):
            return f"lab.cluster.volumes: {volume} is not CLAIM:/PATH."
        places.append(place)
    files = [config.lab.run_dir, *nodes.needed(config), *([] if asked.code else [str(ROOT)])]
    outside = [file for file in files if not any(Path(file).is_relative_to(p) for p in places)]
    if outside:
        more = f" and {len(outside) - 1} more" if len(outside) > 1 else ""
        return (f"{outside[0]}{more} lies on none of the volumes ({', '.join(places) or 'there are none'}), so no pod"
                " sees it: lab.cluster.volumes=[CLAIM:/PATH], the same folder at the same path as here.")  # fmt: skip
    return None
