"""What a cluster's job needs, and a Ray that a run joins."""

import socket

from preflight_helpers import caught

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


def test_what_listens_and_is_no_ray(configure, monkeypatch):
    monkeypatch.setattr(ray, "LOOK_S", 3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"ray_kwargs.ray_init.address=127.0.0.1:{server.getsockname()[1]}"
        assert "is it a Ray cluster" in caught("check_ray_cluster", configure(address))
