"""Several processes as one run: joining the cluster, and leaving it together.

with join() as peers:
    train(..., peers=peers)
"""

import contextlib
from collections.abc import Iterator

import jax

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
