"""cluster=kuberay: a RayJob of the KubeRay operator (ray.io/v1), which brings its own Ray cluster."""

import importlib.metadata
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from launcher import clusters
from launcher.clusters import manifests, ray
from preflight.facts import is_rl
from preflight.mistakes import near

FILE = "rayjob.yaml"
ENDED = ("Complete", "Failed")


def pod(config: DictConfig, name: str) -> dict[str, Any]:
    """The template of a node's pod."""
    asked, hw = config.lab.cluster, config.lab.hw
    limits = {
        "cpu": asked.cpus and str(asked.cpus),
        "memory": asked.memory_gib and f"{asked.memory_gib}Gi",
        asked.gpu_resource: str(hw.gpus_per_node) if hw.device != "cpu" else None,
    }
    limits = {key: value for key, value in limits.items() if value}
    claims = [volume.partition(":")[::2] for volume in asked.volumes]
    names = {claim: f"disk-{number}" for number, claim in enumerate(dict(claims))}
    container = {
        "name": name,
        "image": asked.image,
        "resources": {"limits": limits, "requests": dict(limits)},
        "volumeMounts": [
            {"name": "shared-memory", "mountPath": "/dev/shm"},
            *({"name": names[claim], "mountPath": path} for claim, path in claims),
        ],
    }
    volumes = [
        {"name": "shared-memory", "emptyDir": {"medium": "Memory"}},  # 64 MiB without
        *(
            {"name": volume, "persistentVolumeClaim": {"claimName": claim}}
            for claim, volume in names.items()
        ),
    ]
    more = OmegaConf.to_container(asked.pod)
    more["volumes"] = volumes + more.get("volumes", [])
    return {"spec": {"containers": [container], **more}}


def manifest(config: DictConfig, run_dir: Path) -> dict[str, Any]:
    """The RayJob of a run."""
    asked = config.lab.cluster
    start = dict(word.removeprefix("--").split("=") for word in clusters.ray_words(config))
    code = asked.code or clusters.ROOT
    begin = clusters.begin(config, run_dir, f"{code}/launch.py")
    nodes = config.lab.hw.nodes if is_rl(config) else 1
    head = {
        "rayStartParams": {**start, "dashboard-host": "0.0.0.0"},
        "template": pod(config, "ray-head"),
    }
    workers = {
        "groupName": "workers",
        "replicas": nodes - 1, "minReplicas": nodes - 1, "maxReplicas": nodes - 1,
        "rayStartParams": start,
        "template": pod(config, "ray-worker"),
    }  # fmt: skip
    spec = {
        "entrypoint": f"cd {shlex.quote(str(asked.code or Path.cwd()))} && exec {begin}",
        "submissionMode": "HTTPMode",  # the command reaches its shell as it stands here
        "runtimeEnvYAML": yaml.safe_dump(ray.environment(config, "kuberay")),
        "shutdownAfterJobFinishes": True,
        "backoffLimit": asked.retries,
        **({"activeDeadlineSeconds": 60 * asked.time_min} if asked.time_min else {}),
        "rayClusterSpec": {
            "rayVersion": importlib.metadata.version("ray"),
            "headGroupSpec": head,
            "workerGroupSpecs": [workers] if nodes > 1 else [],
        },
    }
    metadata = {"generateName": f"{clusters.slug(config)}-", "namespace": asked.namespace}
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": spec}


def submit(runs: list[clusters.Handed]) -> list[str]:
    """Write the manifests and create them where kubectl is; returns lines to show. Raises Mistake if it refuses."""
    lines = []
    for run in runs:
        asked, file = run.config.lab.cluster, run.run_dir / FILE
        command = ["kubectl", "create", f"--namespace={asked.namespace}", f"--filename={file}"]
        said = shlex.join([*command[:-1], f"--filename={near(file)}"])
        manifests.write(file, manifest(run.config, run.run_dir), said)
        clusters.note(run.run_dir, "kuberay", None)
        if not (asked.submit and shutil.which("kubectl")):
            lines.append(f"{near(file)} is written. On a machine with kubectl: {said}")
            continue
        job = clusters.asked([*command, "--output=jsonpath={.metadata.name}"]).strip()
        clusters.note(run.run_dir, "kuberay", job, namespace=asked.namespace)
        lines.append(f"RayJob {job}, by {near(file)}. How it is: python launch.py status")
    return lines


def stop(job: dict) -> str:
    """The command that ends a job, and takes its Ray cluster away."""
    return f"kubectl delete rayjob --namespace={job['namespace']} {job['job']}"


def states(jobs: list[dict]) -> dict[str, str]:
    """Of those of these jobs that have not ended: waiting, running. Raises OSError where nobody answers."""
    found = {}
    for namespace in dict.fromkeys(job["namespace"] for job in jobs):
        command = ["kubectl", "get", "rayjobs", f"--namespace={namespace}", "--output=json"]
        for one in json.loads(clusters.answered(command))["items"]:
            status = one.get("status") or {}
            if (state := status.get("jobDeploymentStatus", "")) not in ENDED:
                waits = f"waiting ({state})" if state else "waiting"
                found[one["metadata"]["name"]] = "running" if state == "Running" else waits
    return found
