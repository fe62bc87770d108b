"""What a cluster's job needs, and a Ray that a run joins."""

import socket

import pandas as pd
import pytest
from preflight_helpers import caught, message_of
from ray_jobs_server import Jobs, serving

from preflight import nodes, ray_jobs
from preflight.checks import ray

SLURM = "cluster=slurm"


def test_nodes_are_named_and_a_requeued_run_has_saved(configure):
    assert "name the profile of its nodes" in caught(
        "check_profile_of_nodes", configure(SLURM, "hw=auto")
    )
    nothing_saved = configure(SLURM, "trainer.save_freq=-1")
    assert "trainer.save_freq=N" in caught("check_requeue_saves", nothing_saved)
    other = configure(SLURM, "lab.cluster.container_tool=apptainr")
    assert "Did you mean apptainer?" in caught("check_container_tool", other)


@pytest.mark.parametrize("version, text", [(None, "has no jobs API"), ("2.3.1", "runs Ray 2.3.1")])
def test_a_dashboard_that_takes_no_job(configure, version, text):
    with serving(Jobs(version)) as jobs:
        config = configure("cluster=ray", f"lab.cluster.address={jobs.address}")
        assert text in caught("check_jobs_of_ray", config)
        config.lab.cluster.python = "/opt/env/bin/python"  # and Ray is what that has
        assert version is None or message_of("check_jobs_of_ray", config) is None


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:1", "127.0.0.1:1/", "http://head.invalid:8265"]
)
def test_a_dashboard_that_is_not_there(configure, address):
    config = configure("cluster=ray", f"lab.cluster.address={address}")
    assert "doesn't answer" in caught("check_jobs_of_ray", config)


def test_an_address_that_is_no_dashboards(configure, monkeypatch):
    config = configure("cluster=ray", "lab.cluster.address=ray://127.0.0.1:10001")
    assert "http://HOST:8265 is one" in caught("check_jobs_of_ray", config)
    monkeypatch.setattr(ray_jobs, "ANSWER_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections, and says nothing
        config.lab.cluster.address = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert "doesn't answer" in caught("check_jobs_of_ray", config)


def test_an_image_a_gpu_and_volumes_for_the_machines_of_others(configure):
    pods = configure("cluster=kuberay")
    assert "lab.cluster.image=NAME" in caught("check_what_only_the_user_knows", pods)
    assert "there are none" in caught("check_volumes", pods)
    pods.lab.cluster.volumes = ["team:data"]
    assert "is not CLAIM:/PATH" in caught("check_volumes", pods)
    pods.lab.cluster.volumes = ["team:/"]
    assert message_of("check_volumes", pods) is None
    rented = configure("cluster=sky", "hw=h100")
    assert "lab.cluster.accelerator=H100" in caught("check_what_only_the_user_knows", rented)


def test_what_is_measured_here_is_left_to_the_node(configure):
    """The memory of a CPU is this machine's, a GPU's is its profile's."""
    from preflight.checks import checks, is_of_the_node

    fit = checks()["check_fit"]
    assert is_of_the_node(fit, configure(SLURM, "hw=cpu"))
    assert not is_of_the_node(fit, configure(SLURM, "hw=h100"))
    chosen = configure(SLURM, "hw=cpu", "lab.plan=auto")
    assert "lab.plan=auto measures this machine" in caught("check_profile_of_nodes", chosen)


def test_databases_that_rows_name_are_among_what_the_nodes_need(configure, tmp_path):
    """Also those elsewhere than the data: a folder of a database each counts as their common one."""
    named = [tmp_path / f"many/{name}/{name}.sqlite" for name in ("a", "b")]
    named += [tmp_path / "one/c/c.sqlite", tmp_path / "url/d/d.duckdb"]
    for file in named:
        file.parent.mkdir(parents=True)
        file.touch()
    paths = [str(named[0]), [str(named[1]), str(named[2])], f"duckdb://{named[3]}"]
    infos = [{"db": path} for path in (paths[0], paths[2], "postgresql://host/shop")]
    rows = [{"prompt": [{"role": "user", "content": "?"}], "extra_info": info} for info in infos]
    rows[1]["extra_info"]["extra_dbs"] = paths[1]
    pd.DataFrame(rows).to_parquet(tmp_path / "rows.parquet")
    config = configure(f"data.train_files={tmp_path / 'rows.parquet'}")
    places = {str(tmp_path / name) for name in ("many", "one/c", "url/d")}
    assert places <= set(nodes.needed(config))
    assert nodes.places_of(["/a/x.db", "/b/x.db", "/c/d/x.db"]) == ["/a", "/b", "/c/d"]


def test_a_run_that_has_joined_a_ray_can_go_on(configure):
    """Its resolved.yaml has null where one that starts a Ray has a number."""
    words = ["ray_kwargs.ray_init.address=auto", "ray_kwargs.ray_init.num_gpus=null"]
    assert message_of("check_values", configure(*words)) is None


def test_what_listens_and_is_no_ray(configure, monkeypatch):
    monkeypatch.setattr(ray, "LOOK_S", 3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"ray_kwargs.ray_init.address=127.0.0.1:{server.getsockname()[1]}"
        assert "is it a Ray cluster" in caught("check_ray_cluster", configure(address))
