"""Who does the work of a preparation: processes of this machine, a dask cluster, or whatever runs Beam pipelines.

A piece of work is a call that leaves its result on a disk which all workers share. So no waveform and no table passes
through a runner, and a piece that is done twice leaves the same bytes.

    runner = parse_runner("dask:tcp://scheduler:8786")
    for number in runner.run(pieces): ...      # by number: functools.partial of write_planned, out, 7 and a hash
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.runners.beam_pipeline import BeamPipeline
from jaxbio.data.runners.dask_cluster import DaskCluster
from jaxbio.data.runners.local_processes import LocalProcesses

__all__ = ["BeamPipeline", "DaskCluster", "LocalProcesses", "Piece", "Runner", "parse_runner"]

Piece = Callable[[], object]


class Runner(Protocol):
    """Whatever does pieces of work."""

    def run(self, pieces: Mapping[int, Piece]) -> Iterator[int]:
        """Do every piece, in any order and anywhere, and yield the number of each when its result is on the disk.

        Raises what a piece raised, and UserError where the workers are not there or are lost.
        """
        ...


def parse_runner(text: str, workers: int = 1) -> Runner:
    """Return the runner of `--runner`: `local` (so many `workers`), `dask:ADDRESS`, or `beam:` and Beam's own options.

    Raises UserError for anything else.
    """
    name, _, rest = text.partition(":")
    if text == "local":
        return LocalProcesses(workers)
    if name == "dask" and rest:
        return DaskCluster(rest)
    if name == "beam":
        return BeamPipeline(rest)
    remedy = "local, dask:tcp://HOST:8786, or 'beam:--runner=DirectRunner ...' with any options of Beam"
    raise UserError(Fault("--runner", text, remedy))
