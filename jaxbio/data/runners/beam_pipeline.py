"""Pieces of work as the elements of a Beam pipeline, on whatever runner Beam's own options name."""

import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from urllib.error import URLError

from jaxbio.config.faults import Fault, UserError
from jaxbio.config.refusals import error_number


@dataclass(frozen=True)
class BeamPipeline:
    """A pipeline with these options, as one text: `--runner=FlinkRunner --flink_master=HOST:8081`."""

    options: str = ""

    def run(self, pieces: Mapping[int, Callable[[], object]]) -> Iterator[int]:
        """Do every piece and yield its number once all are done; see `Runner`. Beam moves the calls alone."""
        try:
            import apache_beam as beam
            from apache_beam.options.pipeline_options import PipelineOptions
        except ImportError:
            raise UserError(Fault("--runner", "beam", "pip install -c constraints.txt -e '.[prepare]'")) from None
        if not pieces:
            return
        options = PipelineOptions(shlex.split(self.options))
        try:
            with beam.Pipeline(options=options) as pipeline:
                # Reshuffled, or a runner would fuse both steps and do every piece where the list was made.
                _ = pipeline | beam.Create(list(pieces.values())) | beam.Reshuffle() | beam.Map(_do)
        except RuntimeError as error:
            if isinstance(error.__cause__ or error.__context__, URLError):
                remedy = f"{str(error).splitlines()[0]}; start that runner's job server yourself, and name it with "
                remedy += "--runner=PortableRunner --job_endpoint=HOST:8099"
                raise UserError(Fault("--runner", f"beam:{self.options}", remedy)) from None
            # Beam tells of a worker's exception by its text alone
            if error_number(error):
                raise OSError(error_number(error), str(error).strip().splitlines()[-1]) from error
            raise
        yield from pieces


def _do(piece: Callable[[], object]) -> None:
    piece()
