"""A Ray cluster of many nodes on this machine, to see what a command bears."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from imputune.errors import UserError

OBJECT_STORE = 80 * 2**20  # bytes; Ray wants 75 MiB at least
PROJECT = Path(__file__).parents[1]


@contextmanager
def simulated_nodes(count: int) -> Iterator[None]:
    """Start so many nodes of Ray with one core each, and name them in RAY_ADDRESS; end them afterwards.

    The nodes can import the benchmarks. Raises UserError without the extra `ray`.
    """
    if find_spec("ray") is None:
        raise UserError(
            "--nodes needs Ray, which is not installed: run `pip install -e '.[ray]'` in the project's folder"
        )
    ours = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # as deploy/slurm-ray.sh has it
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")])),
    }
    before = {name: os.environ.get(name) for name in (*ours, "RAY_ADDRESS")}
    os.environ.update(ours)
    try:
        from ray.cluster_utils import Cluster

        options: dict[str, Any] = {"num_cpus": 1, "object_store_memory": OBJECT_STORE, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=options)
        try:
            for _ in range(count - 1):
                cluster.add_node(**options)
            os.environ["RAY_ADDRESS"] = cluster.address
            yield
        finally:
            cluster.shutdown()
    finally:
        for name, text in before.items():
            os.environ.pop(name, None)
            if text is not None:
                os.environ[name] = text
