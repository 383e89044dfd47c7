"""A Ray cluster of small nodes on this machine, for measurements and tests; a node can be killed."""

import os
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from imputune.errors import UserError
from imputune.runtime.environment import environment

MIB = 2**20
STORE = 100 * MIB  # of the objects of a node


class SmallCluster:
    """Nodes of one core each on this machine, and the address by which a command finds them."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster

        self.folder = folder
        Path("/tmp/ray").mkdir(exist_ok=True)  # Ray notes the address of a cluster there, wherever its folder is
        first = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False, "temp_dir": str(folder)}
        self.cluster: Any = Cluster(initialize_head=True, head_node_args=first)

    @property
    def address(self) -> str:
        """What RAY_ADDRESS must be."""
        return str(self.cluster.address)

    def add(self, store: int = STORE) -> Any:
        """Start a node beside the first; return it."""
        return self.cluster.add_node(num_cpus=1, object_store_memory=store)

    def kill(self, node: Any) -> None:
        """End a node's processes at once, as a machine does that fails."""
        self.cluster.remove_node(node, allow_graceful=False)


@contextmanager
def small_cluster(nodes: int, importable: Sequence[Path] = (), *, with_token: bool = False) -> Iterator[SmallCluster]:
    """Start so many nodes, set RAY_ADDRESS for the block, and end them after it.

    importable: folders from which the nodes can import, beside the package, which a command sends. with_token: whether
    nodes ask for a secret token; only once in a process, and before Ray is loaded, which reads it then. Raises
    UserError without the extra `ray`.
    """
    if find_spec("ray") is None:
        raise UserError("Ray is not installed: run `pip install -e '.[ray]'` in the project's folder")
    ours = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # as deploy/slurm-ray.sh has it; by default workers wait for whatever else runs
        "PYTHONPATH": os.pathsep.join([*map(str, importable), os.environ.get("PYTHONPATH", "")]),
    }
    if with_token:
        ours |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with (
        tempfile.TemporaryDirectory(prefix="small-", dir="/tmp", ignore_cleanup_errors=True) as folder,
        environment(ours),
    ):
        cluster = SmallCluster(Path(folder))
        try:
            for _ in range(nodes - 1):
                cluster.add()
            with environment({"RAY_ADDRESS": cluster.address}):
                yield cluster
        finally:
            cluster.cluster.shutdown()
