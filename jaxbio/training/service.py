"""JAX's coordination service: is there a cluster, joining it, and a board on which its processes post words.

The service lives in process 0 and needs no device, so that it works before anything is compiled and while devices hang.
What JAX keeps private of it is used in this file alone: the detection of clusters, the key-value store, and the number
of a process (`jax.process_index` would start the devices).

    if finds_cluster():
        board, process, processes = connect(None, None, None, limit_s=300)
        board.post(f"alive/{process}", "17")
"""

import os
import re
import socket
import threading
from typing import Any, NoReturn, Protocol

import jax
import psutil
from jax._src import clusters, distributed

from jaxbio.config.faults import EXIT_PEER_GONE, EndedByPeer, report

_PREFIX = "jaxbio/"
# JAX ends a process by abort() after this long without a heartbeat. It sends one in half that time, so the end comes at
# any time from a half of it on after a process died. Ours (`peers.LONGEST_END_S`) comes sooner, and has a name.
HEARTBEAT_S = 150
# By the time a process shuts down, all have said that they are done.
_SHUTDOWN_S = 30


class Board(Protocol):
    """Where the processes of a run post words for each other; keys are paths.

    Every call raises JaxRuntimeError when process 0 cannot be reached.
    """

    def post(self, key: str, words: str) -> None:
        """Post `words` in the place of what stood there."""

    def post_first(self, key: str, words: str) -> None:
        """Post `words` unless something stands there."""

    def read(self, folder: str) -> dict[str, str]:
        """Return everything under `folder`, by the rest of its key."""

    def wait(self, key: str, limit_s: float) -> str | None:
        """Return what stands at `key` as soon as something does; None after `limit_s`."""

    def delete(self, key: str) -> None:
        """Take away what stands at `key`, if anything does."""


class JaxBoard:
    """The board in the key-value store of JAX's service."""

    def __init__(self) -> None:
        self._client: Any = distributed.global_state.client

    def post(self, key: str, words: str) -> None:
        self._client.key_value_set(_PREFIX + key, words, allow_overwrite=True)

    def post_first(self, key: str, words: str) -> None:
        try:
            self._client.key_value_set(_PREFIX + key, words)
        except jax.errors.JaxRuntimeError as error:
            if error.error_code_string != "ALREADY_EXISTS":
                raise

    def read(self, folder: str) -> dict[str, str]:
        prefix = f"{_PREFIX}{folder}/"
        return {key.removeprefix(prefix): words for key, words in self._client.key_value_dir_get(prefix)}

    def wait(self, key: str, limit_s: float) -> str | None:
        try:
            return self._client.blocking_key_value_get(_PREFIX + key, int(1000 * limit_s))
        except jax.errors.JaxRuntimeError as error:
            if error.error_code_string != "DEADLINE_EXCEEDED":
                raise
            return None

    def delete(self, key: str) -> None:
        self._client.key_value_delete(_PREFIX + key)


def finds_cluster() -> bool:
    """Tell whether `jax.distributed.initialize` would find a cluster by itself."""
    return "JAX_COORDINATOR_ADDRESS" in os.environ or _found_cluster() is not None


def _found_cluster() -> str | None:
    """Return JAX's name of the kind of cluster that it finds."""
    kinds = (kind for kind in clusters.ClusterEnv._cluster_types if not kind.opt_in_only_method)
    return next((kind.name for kind in kinds if kind.is_env_present()), None)


def is_alone_on_node() -> bool:
    """Tell whether Slurm or Open MPI, where one of them started this process, started no other one on its node."""
    found = _found_cluster()
    if found == "slurm":  # "1(x4)": on each of four nodes; where nodes differ, each process takes one device
        return re.fullmatch(r"1(\(x\d+\))?", os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")) is not None
    return found == "ompi" and os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") == "1"


def connect(
    coordinator: str | None, processes: int | None, process: int | None, limit_s: float
) -> tuple[JaxBoard, int, int]:
    """Join the cluster that is named, or found; return the board, our number, and how many processes there are.

    A process that is alone on its node takes all devices that it sees, unless JAX_LOCAL_DEVICE_IDS names some. When not
    all processes have come after `limit_s`, this one says who was waited for and ends with `EXIT_PEER_GONE`: JAX itself
    would abort.
    """
    # Under Slurm and Open MPI, JAX gives a process the one device of its number on the node unless it is given a list;
    # an empty one restricts nothing.
    takes_all = is_alone_on_node() and "JAX_LOCAL_DEVICE_IDS" not in os.environ
    limit = threading.Timer(limit_s, _end_waiting, [limit_s])
    limit.daemon = True
    limit.start()
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process,
            local_device_ids=[] if takes_all else None,
            initialization_timeout=int(limit_s) + 60,  # later than our own limit
            heartbeat_timeout_seconds=HEARTBEAT_S,
            shutdown_timeout_seconds=_SHUTDOWN_S,
        )
    finally:
        limit.cancel()
    return JaxBoard(), distributed.global_state.process_id, distributed.global_state.num_processes


def is_reachable(limit_s: float = 2.0) -> bool:
    """Tell whether somebody still listens where process 0 carries the service."""
    host, _, port = _address().rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), limit_s).close()
    except OSError:
        return False
    return True


def _address() -> str:
    return distributed.global_state.coordinator_address or "unknown:0"


def _end_waiting(limit_s: float) -> NoReturn:
    state = distributed.global_state
    if state.coordinator_address is None:
        who = "JAX is still looking for the address of process 0"
    elif state.process_id == 0:
        come = _connected(int(_address().rpartition(":")[2]))
        who = f"connected to process 0 at {_address()} are {len(come)} of {state.num_processes}, from {', '.join(come)}"
    elif is_reachable():
        who = f"process 0 at {_address()} is there; its log says from where processes have come"
    else:
        who = f"process 0 at {_address()} does not answer"
    words = f"error: not all processes of the run have come within {limit_s:g} s: {who}. Does every host run the line?"
    os._exit(report(EndedByPeer([words], EXIT_PEER_GONE)))


def _connected(port: int) -> list[str]:
    """Return the addresses that are connected to our `port`, this process's own included."""
    return sorted(
        connection.raddr.ip.removeprefix("::ffff:")
        for connection in psutil.Process().net_connections("tcp")
        if connection.status == psutil.CONN_ESTABLISHED and connection.laddr.port == port
    )
