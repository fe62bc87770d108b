"""cluster=sky: a task of SkyPilot, which rents machines. It is written, and a person launches it: it costs money."""

import shlex
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from launcher import clusters
from launcher.clusters import manifests
from preflight import cluster, nodes
from preflight.facts import is_rl
from preflight.mistakes import near

FILE = "sky.yaml"
PORT = 6379  # of Ray on several nodes; SkyPilot's own has another


def task(config: DictConfig, run_dir: Path) -> dict[str, Any]:
    """The task of a run: a copy of this project, what the run reads from this machine, its command."""
    asked, hw = config.lab.cluster, config.lab.hw
    count = hw.nodes if is_rl(config) else 1
    script = clusters.render(
        "sky.sh.jinja",
        begin=clusters.begin(config, run_dir, "launch.py"),
        nodes=count,
        python=asked.python,
        ray_words=shlex.join(clusters.ray_words(config)),
        port=PORT,
        look=clusters.look(shlex.quote(asked.python), f'"$head:{PORT}"', config),
    )
    resources = {
        "infra": asked.infra,
        "accelerators": f"{asked.accelerator}:{hw.gpus_per_node}" if asked.accelerator else None,
        "use_spot": asked.use_spot,
        "cpus": asked.cpus and str(asked.cpus),
        "memory": asked.memory_gib and str(asked.memory_gib),
        "disk_size": asked.disk_gib,
        "image_id": asked.image,
    }
    mounts = OmegaConf.to_container(asked.file_mounts)
    copied = [str(run_dir), *nodes.needed(config)]
    local = [path for path in copied if not any(Path(path).is_relative_to(m) for m in mounts)]
    return {
        "name": clusters.slug(config),
        "num_nodes": count,
        "resources": {key: value for key, value in resources.items() if value is not None},
        "workdir": str(clusters.ROOT),
        "file_mounts": {**{path: path for path in local}, **mounts},
        "envs": {
            **{key: str(value) for key, value in asked.env_vars.items()},
            cluster.JOB: "sky",
        },
        "setup": "\n".join(asked.setup) + "\n",
        "run": script,
    }


def submit(runs: list[clusters.Handed]) -> list[str]:
    """Write the tasks; returns lines to show."""
    lines = []
    for run in runs:
        file, tree = run.run_dir / FILE, task(run.config, run.run_dir)
        clusters.note(run.run_dir, "sky", None)
        launch = f"sky launch --cluster {tree['name']} {shlex.quote(near(file))}"
        back = f"rsync -a {tree['name']}:{shlex.quote(f'{run.run_dir}/')} {shlex.quote(near(run.run_dir))}"
        manifests.write(
            file, tree, launch, f"{back}  # brings the run back", f"sky down {tree['name']}"
        )
        lines.append(
            f"{near(file)} is written; its first lines say how it is launched. It rents machines: {launch}"
        )
    return lines


def stop(job: dict) -> str:
    """The command that ends a job."""
    return f"sky down {job['job']}"


def states(jobs: list[dict]) -> dict[str, str]:
    """Of no job: a person launches them, and SkyPilot knows (`sky status`)."""
    return {}
