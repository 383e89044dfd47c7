"""The Ray cluster of a command: the one that RAY_ADDRESS names, or one that a command starts here and ends.

Ray's nodes get this package from the command, and nothing else of the project.
"""

import logging
import math
import os
import re
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import imputune
from imputune import signals
from imputune.errors import UserError, one_line
from imputune.runtime.console import without_lines
from imputune.runtime.local_pool import PRELOADED
from imputune.runtime.own_ray import options_of_own, private_files
from imputune.runtime.ray_node import Mailbox, installed, prepare_node
from imputune.runtime.threads import ONE_THREAD, WAITING
from imputune.settings.names import DeviceName

ADDRESS = "RAY_ADDRESS"
OWN = ("", "local")  # addresses with which the command starts its own
AUTO = "auto"  # the address of the cluster that runs on this machine
RETRIES = 3
CONNECT_SECONDS, PREPARE_SECONDS = 5.0, 120.0
NO_NODE = "no node of the Ray cluster has a core for tasks: start one with `ray start --address=...`"
MIB = 2**20
_MISMATCH = re.compile(r"Ray: (\S+)\s+Python: (\S+)")
_TRY = re.compile(rb"gcs_client\.cc:\d+: Failed to get cluster ID")
"""The lines that Ray writes of failed tries to connect, whatever its logging is set to."""
_Node = Mapping[str, Any]
"""What Ray says of a node."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A connected cluster.

    own: whether the command has started it. home: the id of the command's node. mailbox: the actor `Mailbox`.
    expected: the versions that its nodes must have. gpus_of_task: the share of a node's GPUs that a task gets; above 0,
    only nodes with a GPU have tasks.
    """

    own: bool
    home: str
    mailbox: Any
    expected: Mapping[str, str]
    gpus_of_task: float

    def nodes(self) -> list[_Node]:
        """Return the living nodes that tasks can run on."""
        resource = "GPU" if self.gpus_of_task else "CPU"
        return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get(resource, 0) > 0]

    def cores(self) -> int:
        """Return the number of cores for tasks: that of tasks that run at a time, if nobody else uses the cluster."""
        return sum(int(node["Resources"].get("CPU", 0)) for node in self.nodes())

    @property
    def more_room(self) -> str:
        """What the user can do where an object store is too small."""
        if self.own:
            return "train with --engine local, which needs no object store"
        return "start the node with a larger --object-store-memory"

    def check_room(self, needed_bytes: int) -> None:
        """Raise UserError, naming the node, if the object store of the command's node or one for tasks is smaller."""
        home = [node for node in ray.nodes() if node["NodeID"] == self.home]
        for node in [*home, *self.nodes()]:
            has = node["Resources"].get("object_store_memory", 0.0)
            if has < needed_bytes:
                raise UserError(
                    f"the object store of Ray's node {node['NodeManagerHostname']} has {has / MIB:,.0f} MiB, and the "
                    f"cohorts of the command need {needed_bytes / MIB:,.0f}: {self.more_room}"
                )


@contextmanager
def connected(cores: int, device: DeviceName) -> Iterator[Cluster]:
    """Connect to the cluster that RAY_ADDRESS names, or start one here with so many cores; leave or end it afterwards.

    Raises UserError when no cluster answers, it has another version of Ray or Python, a node lacks a package or has
    another version of one, or `device` is cuda and no node has a GPU.
    """
    address = os.environ.get(ADDRESS, "")
    with ExitStack() as stack:
        if address in OWN:
            options = stack.enter_context(options_of_own(cores, RETRIES))
        else:
            _check_address(address)
            options = {"address": address}
        logging.getLogger("ray").setLevel(logging.ERROR)
        stack.callback(ray.shutdown)
        _initialise(options, address)
        yield _prepared(device, own=address in OWN)


def gpus_of_task(nodes: list[_Node], device: DeviceName) -> float:
    """Return the share of GPUs for a task, the same on all nodes: the smallest share that a node with GPUs has a core.

    It is 0 for device cpu, and where no node has a GPU. Raises UserError if device is cuda and none has one.
    """
    if device == "cpu":
        return 0.0
    resources = [node["Resources"] for node in nodes]
    shares = [each["GPU"] / each["CPU"] for each in resources if each.get("GPU") and each.get("CPU")]
    if not shares:
        if device == "cuda":
            raise UserError(
                "params.yaml has device: cuda, but no node of the Ray cluster has a GPU: set device to auto or cpu, or "
                "start a node with --num-gpus"
            )
        return 0.0
    share = min(shares)
    return float(math.floor(share)) if share >= 1 else max(1e-4, math.floor(share * 1e4) / 1e4)  # as Ray counts them


def _check_address(address: str) -> None:
    if "://" in address:
        raise UserError(
            f"{ADDRESS} is {address}, an address of Ray's client: run the command on a node of the cluster "
            "with the address of the cluster itself, such as 10.0.0.1:6379"
        )
    host, _, port = address.rpartition(":")
    if address == AUTO:
        return
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UserError(f"{ADDRESS} is {address!r}: it must be auto, or host:port such as 10.0.0.1:6379")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise UserError(_no_cluster(f"at {address} ({error.strerror or error})")) from None


def _no_cluster(where: str) -> str:
    return (
        f"no Ray cluster answers {where}: start one with `ray start --head`, correct {ADDRESS}, or unset it to train "
        "on this machine"
    )


def _initialise(options: Mapping[str, object], address: str) -> None:
    """Connect; ray.init replaces the SIGTERM handler: restore ours, and repeat a SIGTERM that came meanwhile.

    Processes that Ray starts inherit what is blocked: a stop of the process group ends the command, which ends them.
    """
    environment = {
        "py_modules": [str(Path(imputune.__file__).parent)],
        "excludes": ["**/__pycache__"],
        "env_vars": ONE_THREAD | WAITING,
    }
    handlers = {number: signal.getsignal(number) for number in signals.STOPS}
    ended = False
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals.STOPS)
    try:
        with private_files() if address in OWN else without_lines(_TRY):
            ray.init(
                **options,
                runtime_env=environment,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=True,
            )
    except SystemExit:
        ended = True
    except Exception as error:  # Ray raises a plain one where a node takes too long to start, among others
        raise UserError(refusal(address, error)) from None
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if ended:
        signal.raise_signal(signal.SIGTERM)


def refusal(address: str, error: Exception) -> str:
    """Return in one line why a cluster cannot be used."""
    found = _MISMATCH.findall(str(error))
    if len(found) == 2:
        (ray_there, python_there), (ray_here, python_here) = found
        return (
            f"the Ray cluster at {address} has Ray {ray_there} and Python {python_there}, this machine has Ray "
            f"{ray_here} and Python {python_here}: install the same versions on every node"
        )
    if address in OWN:
        return f"cannot start Ray on this machine: {one_line(error)}; try again, or train with --engine local"
    where = f"on this machine ({ADDRESS} is {AUTO})" if address == AUTO else f"at {address}"
    if "multiple active Ray instances" in str(error):
        return f"several Ray clusters run on this machine: set {ADDRESS} to host:port of the one to use"
    if isinstance(error, ConnectionError):
        return _no_cluster(where)
    return f"cannot use the Ray cluster {where}: {one_line(error)}; correct {ADDRESS}, or train with --engine local"


def _prepared(device: DeviceName, *, own: bool) -> Cluster:
    """Start the mailbox on this node, then check the nodes and load what tasks need in a worker of each."""
    share = gpus_of_task([node for node in ray.nodes() if node["Alive"]], device)
    home = ray.get_runtime_context().get_node_id()
    # First, because it would take the worker that is prepared for tasks.
    mailbox: Any = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=_only_on(home))(Mailbox).remote()
    cluster = Cluster(own=own, home=home, mailbox=mailbox, expected=installed(), gpus_of_task=share)
    prepare = ray.remote(num_cpus=0, max_retries=RETRIES)(prepare_node)
    nodes = cluster.nodes()
    if not nodes:
        raise UserError(NO_NODE)
    checks = [
        (node, prepare.options(scheduling_strategy=_only_on(node["NodeID"])).remote(cluster.expected, PRELOADED))
        for node in nodes
    ]
    until = time.monotonic() + PREPARE_SECONDS
    for node, check in checks:
        _wait_for_check(node, check, until)
    if not cluster.nodes():
        raise UserError(NO_NODE)
    return cluster


def _only_on(node_id: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node_id, soft=False)


def _wait_for_check(node: _Node, check: Any, until: float) -> None:
    """Wait for a node's check until then; raise UserError, naming the node, if it fails or does not end.

    A node that has died is left out, as one that dies later: Ray names a dead node for some seconds.
    """
    name = node["NodeManagerHostname"]  # several nodes may have the same
    try:
        ray.get(check, timeout=max(0.0, until - time.monotonic()))
    except GetTimeoutError:
        raise UserError(f"Ray's node {name} did not answer for {PREPARE_SECONDS:.0f} s: restart or remove it") from None
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise UserError(f"Ray's node {name} cannot load imputune: {one_line(error.cause)}") from None
    except RayError as error:
        if any(each["NodeID"] == node["NodeID"] and each["Alive"] for each in ray.nodes()):
            raise UserError(f"Ray's node {name} cannot be prepared: {one_line(error)}") from None
        logger.debug("Ray's node %s has died", name)
