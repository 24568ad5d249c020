"""Pieces of work in processes of this machine; one worker is this process itself."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.workers import open_pool


@dataclass(frozen=True)
class LocalProcesses:
    """So many `workers`, which end with this process."""

    workers: int = 1

    def run(self, pieces: Mapping[int, Callable[[], object]]) -> Iterator[int]:
        """Do every piece and yield its number; see `Runner`."""
        if self.workers <= 1 or len(pieces) <= 1:
            for number, piece in pieces.items():
                piece()
                yield number
            return
        try:
            with open_pool(min(self.workers, len(pieces))) as pool:
                futures = {pool.submit(piece): number for number, piece in pieces.items()}
                for future in as_completed(futures):
                    future.result()
                    yield futures[future]
        except BrokenProcessPool:
            remedy = "a worker was ended from outside, most often for want of memory: start again with fewer --workers"
            raise UserError(Fault("--workers", self.workers, remedy)) from None
