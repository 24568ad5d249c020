"""Pieces of work on a dask.distributed cluster, by the address of its scheduler.

Its workers have jaxbio installed, one thread each (`dask worker ADDRESS --nthreads 1`), and see sources and store under
the same paths.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from jaxbio.config.faults import Fault, UserError

_ANSWERS_WITHIN_S = 30


@dataclass(frozen=True)
class DaskCluster:
    """The cluster whose scheduler has this `address`: tcp://HOST:8786."""

    address: str

    def run(self, pieces: Mapping[int, Callable[[], object]]) -> Iterator[int]:
        """Do every piece and yield its number; see `Runner`.

        What was not begun when this is left is not begun any more.
        """
        try:
            from distributed import Client, KilledWorker, as_completed
        except ImportError:
            raise UserError(Fault("--runner", "dask", "pip install -c constraints.txt -e '.[prepare]'")) from None
        if not pieces:
            return
        try:
            client = Client(self.address, timeout=_ANSWERS_WITHIN_S, set_as_default=False)
        except (OSError, ValueError) as error:
            remedy = f"no scheduler answers there ({error}): start one with `dask scheduler`, and workers"
            raise UserError(Fault("--runner", self.address, remedy)) from None
        with client:
            if not client.scheduler_info()["workers"]:
                remedy = f"has no workers: dask worker {self.address} --nthreads 1 --nworkers auto"
                raise UserError(Fault("--runner", self.address, remedy))
            futures = {client.submit(piece, pure=False): number for number, piece in pieces.items()}
            try:
                for future in as_completed(futures, loop=client.loop):
                    future.result()
                    yield futures[future]
            except KilledWorker as error:
                remedy = f"workers were ended over and over, most often for want of memory: {error}"
                raise UserError(Fault("--runner", self.address, remedy)) from None
