"""Several processes as one run: joining a cluster, and agreeing at a step boundary.

processes = join_cluster()
agreement = Agreement(mesh)
decision = agreement.at_boundary(dispatches, save=clock_says_so, stop=signal_came)
"""

import logging
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxbio.config.faults import Fault, UserError

log = logging.getLogger(__name__)


def join_cluster(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None, timeout_s: int = 300
) -> int:
    """Join the cluster that JAX finds (TPU pod, Slurm, Open MPI, Kubernetes) or that is named; return our number in it.

    `coordinator` is HOST:PORT of process 0. Without a cluster nothing is started and 0 returned. Must run before any
    device is used. Raises UserError when only a part of a named cluster is given; a process that does not come within
    `timeout_s` ends the others with an error of JAX that counts who is missing.
    """
    named = {"--coordinator": coordinator, "--processes": processes, "--process": process}
    if any(value is not None for value in named.values()):
        missing = [Fault(flag, None, "name it too: a cluster is all three") for flag, v in named.items() if v is None]
        if missing:
            raise UserError(*missing)
        jax.distributed.initialize(coordinator, processes, process, initialization_timeout=timeout_s)
        return jax.process_index()
    try:
        jax.distributed.initialize(initialization_timeout=timeout_s)
    except ValueError as error:
        if "coordinator_address should be defined" not in str(error):
            raise
        return 0
    return jax.process_index()


@dataclass(frozen=True)
class Decision:
    """What all processes do at this boundary."""

    save: bool
    stop: bool


class Agreement:
    """Brings all processes to the same decision at the same step boundary, without waiting for a device.

    One process decides for itself, at once. Several reduce their wishes over the mesh, queued behind the step, and act
    on the result one boundary later, when it is there. A preemption notice that JAX's service has brought to all
    processes counts as a wish to stop of them all.
    """

    def __init__(self, mesh: Mesh):
        self._alone = jax.process_count() == 1
        self._sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._devices = mesh.devices.size
        self._any = jax.jit(lambda wish_N2: wish_N2.max(axis=0), out_shardings=NamedSharding(mesh, PartitionSpec()))
        self._pending: jax.Array | None = None

    def at_boundary(self, boundary: int, *, save: bool, stop: bool) -> Decision:
        """Return what is decided at `boundary`, which counts up by one; `save` counts on process 0 alone."""
        if self._alone:
            return Decision(save, stop)
        agreed = np.zeros(2, np.int32) if self._pending is None else np.asarray(self._pending)
        wish_2 = np.array([save and jax.process_index() == 0, stop], np.int32)
        wish_N2 = jax.make_array_from_callback(
            (self._devices, 2), self._sharding, lambda index: np.broadcast_to(wish_2, (self._devices, 2))[index]
        )
        self._pending = self._any(wish_N2)
        preempted = multihost_utils.reached_preemption_sync_point(boundary)
        return Decision(save=bool(agreed[0]), stop=bool(agreed[1]) or preempted)


def same_everywhere(number: int, meaning: str) -> None:
    """Check that all processes hold the same `number` (a hash of what they read). Raises RuntimeError otherwise."""
    if jax.process_count() == 1:
        return
    found = np.asarray(multihost_utils.process_allgather(jnp.uint32(number & 0xFFFFFFFF))).tolist()
    if len(set(found)) > 1:
        raise RuntimeError(f"{meaning} differs between processes: {found}")
