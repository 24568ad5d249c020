"""Several processes as one run: joining a cluster, leaving it, and agreeing at a step boundary.

with join() as peers:
    agreement = Agreement(mesh)
    decision = agreement.at_boundary(dispatches, save=clock_says_so, stop=signal_came)
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxbio.config.faults import EndedByPeer, Fault, Preempted, UserError
from jaxbio.training import service
from jaxbio.training.abort import answer_abort, stop_answering
from jaxbio.training.peers import ALONE, Peers


@contextlib.contextmanager
def join(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None, limit_s: float = 300
) -> Iterator[Peers]:
    """Be one process of the cluster that is named, or that JAX finds (TPU pod, Slurm, Open MPI, Kubernetes).

    `coordinator` is HOST:PORT of process 0. Without a cluster nothing is started and `peers.ALONE` returned. Must be
    entered before any device is used; starts none itself. All processes leave together: an error in the with block of
    one ends all of them with its words and its exit code, and does not come out of it. Raises UserError when only a
    part of a named cluster is given. Processes that do not come within `limit_s` end the others, who say so.
    """
    named = {"--coordinator": coordinator, "--processes": processes, "--process": process}
    missing = [Fault(flag, None, "name it too: a cluster is all three") for flag, v in named.items() if v is None]
    if 0 < len(missing) < len(named):
        raise UserError(*missing)
    if missing and not service.finds_cluster():
        yield ALONE
        return
    peers = Peers(*service.connect(coordinator, processes, process, limit_s))
    if peers.alone:
        yield peers
        return
    answer_abort(lambda: _why_aborted(peers))
    preempted = None
    try:
        with peers.telling():
            try:
                yield peers
            except Preempted as stop:
                preempted = stop
            peers.leave()
    except BaseException as error:
        peers.end(error)
    stop_answering()
    jax.distributed.shutdown()
    if preempted is not None:
        raise preempted


def _why_aborted(peers: Peers) -> EndedByPeer | None:
    """Return the failure that made JAX abort this process; None where it was not the end of process 0."""
    if peers.failure is None and peers.hears_process_0() and service.is_reachable():
        return None
    return peers.lose_process_0().error()


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
