"""A Ray of two nodes on this machine, with a jobs API, in a temporary folder of its own and at free ports."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from types import SimpleNamespace


@contextlib.contextmanager
def two_nodes(cpus: int) -> Iterator[SimpleNamespace]:
    """Nodes with one logical GPU and so many CPUs each; gives `address` and `dashboard`."""
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short: sockets lie there
    # each node has an agent for jobs, and all have the same port unless they are told
    node = {"num_cpus": cpus, "num_gpus": 1, "dashboard_agent_listen_port": 0}
    head = {**node, "temp_dir": folder, "include_dashboard": True, "dashboard_port": 0}
    made = Cluster(initialize_head=True, head_node_args=head)
    try:
        made.add_node(**node)
        yield SimpleNamespace(address=made.address, dashboard=f"http://{made.webui_url}")
    finally:
        made.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
