"""cluster=kuberay and cluster=sky: the files, judged by the schemas of their formats where these are installed."""

import json
import os
import subprocess
import sys

import pytest
import yaml
from helpers import ROOT

from launcher.clusters import kuberay, sky

SHAPES = {
    "a CPU": ["hw=cpu"],
    "a GPU": ["hw=h100"],
    "nodes": ["hw=h100x8", "lab.hw.nodes=3"],
    "training under torchrun": ["algo=sft", "hw=h100"],
}
KUBERAY = [
    "cluster=kuberay", "lab.cluster.image=verl-lab:gpu", "lab.cluster.volumes=[team:/,team:/data,hub:/hub]",
    "lab.cluster.cpus=8", "lab.cluster.memory_gib=64", "lab.cluster.time_min=30", "lab.cluster.retries=2",
    "+lab.cluster.env_vars.HF_HOME=/hub", "+lab.cluster.pod.nodeSelector={kind: a b}",
]  # fmt: skip
SKY = [
    "cluster=sky", "lab.cluster.accelerator=H100", "lab.cluster.infra=aws", "lab.cluster.use_spot=true",
    "lab.cluster.cpus=32+", "lab.cluster.memory_gib=64", "lab.cluster.disk_gib=500", "lab.cluster.image=docker:a/b:c",
    "+lab.cluster.env_vars.HF_HOME=/hub", "+lab.cluster.file_mounts={/runs: 's3://a-bucket'}",
]  # fmt: skip


@pytest.fixture(params=SHAPES)
def job(request, composer, tmp_path):
    """The RayJob of a run in a folder with an odd name."""
    config = composer(*KUBERAY, "lab.model.path=/model", *SHAPES[request.param])
    return kuberay.manifest(config, tmp_path / "a run #1")


@pytest.fixture(params=SHAPES)
def task(request, composer, tmp_path):
    config = composer(*SKY, "lab.model.path=/model", *SHAPES[request.param])
    return sky.task(config, tmp_path / "a run #1")


def groups_of(job: dict) -> list[dict]:
    spec = job["spec"]["rayClusterSpec"]
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def test_kubernetes_takes_the_pods(job):
    import kubernetes_validate
    from kubernetes_validate import ValidationError

    for group in groups_of(job):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "node"}, **group["template"]}
        kubernetes_validate.validate(pod, "1.33", strict=True)
    broken = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "node"},
        "spec": {"containers": 1},
    }
    with pytest.raises(ValidationError):
        kubernetes_validate.validate(broken, "1.33", strict=True)


def test_skypilot_takes_the_task(task):
    schemas = pytest.importorskip("sky.utils.schemas")
    import jsonschema

    jsonschema.validate(task, schemas.get_task_schema())
    jsonschema.validate(task["resources"], schemas.get_resources_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(task | {"command": "x"}, schemas.get_task_schema())


def test_the_nodes_of_a_rayjob_are_those_of_the_profile(composer, tmp_path):
    job = kuberay.manifest(composer(*KUBERAY, *SHAPES["nodes"], "lab.model.path=/model"), tmp_path)
    head, workers = groups_of(job)
    assert (workers["replicas"], workers["minReplicas"], workers["maxReplicas"]) == (2, 2, 2)
    for group in (head, workers):
        (container,) = group["template"]["spec"]["containers"]
        assert group["rayStartParams"]["num-gpus"] == "8"
        assert container["resources"]["limits"] == {
            "cpu": "8",
            "memory": "64Gi",
            "nvidia.com/gpu": "8",
        }
        places = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert places["/"] == places["/data"] != places["/hub"]
        claims = {v["name"]: v["persistentVolumeClaim"]["claimName"]
                  for v in group["template"]["spec"]["volumes"] if "persistentVolumeClaim" in v}  # fmt: skip
        assert {claims[places["/data"]], claims[places["/hub"]]} == {"team", "hub"}
        assert group["template"]["spec"]["nodeSelector"] == {"kind": "a b"}
    assert job["spec"]["activeDeadlineSeconds"] == 1800 and job["spec"]["backoffLimit"] == 2
    assert yaml.safe_load(job["spec"]["runtimeEnvYAML"])["env_vars"]["HF_HOME"] == "/hub"
    assert job["spec"]["entrypoint"].endswith(f"resume={tmp_path}")


def test_logical_gpus_of_a_cpu_are_rays_alone(composer, tmp_path):
    job = kuberay.manifest(composer(*KUBERAY, "hw=cpu_x2", "lab.model.path=/model"), tmp_path)
    (head,) = groups_of(job)
    assert head["rayStartParams"].items() >= {"num-gpus": "2", "num-cpus": "32"}.items()
    limits = head["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert "nvidia.com/gpu" not in limits


def test_bash_takes_the_command_of_a_task(task, tmp_path):
    file = tmp_path / "run.sh"
    file.write_text(task["run"])
    done = subprocess.run(["bash", "-n", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_task_on_several_machines_starts_ray_over_them(composer, tmp_path):
    task = sky.task(composer(*SKY, *SHAPES["nodes"], "lab.model.path=/model"), tmp_path)
    assert task["num_nodes"] == 3 and task["resources"]["accelerators"] == "H100:8"
    assert (
        "--nodes 3 --gpus 8" in task["run"] and "ray_kwargs.ray_init.address=$head" in task["run"]
    )
    alone = sky.task(composer(*SKY, *SHAPES["a GPU"], "lab.model.path=/model"), tmp_path)
    assert alone["num_nodes"] == 1 and "ray_init.address" not in alone["run"]


def test_what_a_run_reads_is_copied_but_for_what_a_bucket_has(
    composer, sql_demo, tiny_model, tmp_path
):
    words = [f"lab.dataset.dir={sql_demo}", f"lab.model.path={tiny_model}"]
    task = sky.task(composer("cluster=sky", *words), tmp_path / "run")
    for place in (sql_demo, tiny_model, tmp_path / "run"):
        assert task["file_mounts"][str(place)] == str(place)
    config = composer("cluster=sky", *words)
    config.lab.cluster.file_mounts = {str(tmp_path): "s3://runs"}
    mounts = sky.task(config, tmp_path / "run")["file_mounts"]
    assert str(tmp_path / "run") not in mounts and mounts[str(tmp_path)] == "s3://runs"


def start(*words: str, **env: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "launch.py", *words]
    env = os.environ | env
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)


@pytest.fixture
def base(sql_demo, tiny_model):
    return [f"lab.dataset.dir={sql_demo}", f"lab.model.path={tiny_model}", "lab.check_data=false"]


def test_kubectl_creates_the_job_and_says_how_it_is(base, tmp_path):
    programs, asked = tmp_path / "bin", tmp_path / "asked"
    programs.mkdir()
    items = [{"metadata": {"name": "grpo-x1"}, "status": {"jobDeploymentStatus": "Initializing"}}]
    (tmp_path / "items").write_text(json.dumps({"items": items}))
    (programs / "kubectl").write_text(
        f'#!/bin/bash\necho "$@" >> {asked}\n'
        f"[[ $1 == get ]] && cat {tmp_path / 'items'} || echo -n grpo-x1\n"
    )
    (programs / "kubectl").chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    words = ["cluster=kuberay", "lab.cluster.image=i", "lab.cluster.volumes=[team:/]", *base]
    folder = tmp_path / "run"
    done = start(*words, f"hydra.run.dir={folder}", PATH=path)
    assert done.returncode == 0 and "RayJob grpo-x1" in done.stdout, done.stderr
    assert f"create --namespace=default --filename={folder / 'rayjob.yaml'}" in asked.read_text()
    tree = yaml.safe_load((folder / "rayjob.yaml").read_text())
    assert (tree["kind"], tree["apiVersion"]) == ("RayJob", "ray.io/v1")
    assert "waiting (Initializing)" in start("status", str(folder), PATH=path).stdout
    again = start(f"resume={folder}", PATH=path)
    assert (
        again.returncode == 2
        and "kubectl delete rayjob --namespace=default grpo-x1" in again.stderr
    )
    items[0]["status"]["jobDeploymentStatus"] = "Failed"
    (tmp_path / "items").write_text(json.dumps({"items": items}))
    assert "ended early" in start("status", str(folder), PATH=path).stdout


def test_a_file_that_nobody_submits_here(base, tmp_path):
    words = ["cluster=kuberay", "lab.cluster.image=i", "lab.cluster.volumes=[team:/]", *base]
    done = start(*words, "lab.cluster.submit=false", f"hydra.run.dir={tmp_path / 'pods'}")
    assert "On a machine with kubectl: kubectl create" in done.stdout, done.stderr
    done = start("cluster=sky", *base, f"hydra.run.dir={tmp_path / 'rented'}")
    assert "sky launch --cluster" in done.stdout, done.stderr
    for file in ("pods/rayjob.yaml", "rented/sky.yaml"):
        assert "none was run by this project" in (tmp_path / file).read_text()
    assert start("status", str(tmp_path)).stdout.count("not submitted") == 2
