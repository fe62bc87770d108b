"""A look at the nodes of a Ray cluster that a run joins: two real ones, on this machine."""

import subprocess
import sys

import pytest
from ray_nodes import two_nodes

from preflight.checks import ray

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def cluster():
    """The address of a Ray of two nodes."""
    with two_nodes(cpus=8) as made:
        yield made.address


def look(address: str, *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "preflight.nodes", address, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_nodes_that_are_there_and_see_the_files(cluster, tmp_path):
    done = look(cluster, "--nodes", "2", "--gpus", "1", "--files", str(tmp_path))
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_files_that_no_node_sees_are_named(cluster, tmp_path):
    done = look(
        cluster, "--nodes", "2", "--files", str(tmp_path), "/nowhere/model", "/nowhere/data"
    )
    assert done.returncode == 1
    assert done.stdout.count("doesn't see /nowhere/model and 1 more") == 2, done.stdout


def test_too_few_nodes(cluster):
    done = look(cluster, "--nodes", "3", "--gpus", "1")
    assert (
        done.returncode == 1
        and "has 2 nodes with 1 GPUs or more, and the run needs 3" in done.stdout
    )


def test_a_run_is_refused_before_it_joins(cluster, composer, tiny_model, sql_demo):
    words = ["hw=cpu", f"lab.model.path={tiny_model}", f"lab.dataset.dir={sql_demo}"]
    config = composer(*words, f"ray_kwargs.ray_init.address={cluster}", "lab.hw.nodes=2")
    assert ray.check_ray_cluster(config) is None
    config.transfer_queue.backend.SimpleStorage.num_data_storage_units = 30
    assert "asks Ray for 37 CPUs and waits for ever" in ray.check_ray_cluster(config)
    config.trainer.nnodes = 3
    assert "has 2 nodes" in ray.check_ray_cluster(config)


def test_nobody_is_there():
    done = look("127.0.0.1:1")
    assert done.returncode == 1 and "no Ray answers at 127.0.0.1:1" in done.stdout, (
        done.stdout + done.stderr
    )
