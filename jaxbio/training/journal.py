"""What a run says of itself while it goes on: the lines of its steps and evaluations, to the record, the console and
the trackers; a warning where an evaluation shows that it does not learn; and what it came to.

    journal = Journal(workdir, program, data.pairs_per_step, clock)
    with contextlib.ExitStack() as stack:
        journal.open(stack, restored_step=None)
        journal.write_evaluation(0, values)
"""

import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxbio.config import changes
from jaxbio.report.series import Series, extend, read_series
from jaxbio.report.verdict import judge_run
from jaxbio.training import performance
from jaxbio.training.clock import BEGAN, PARTS, Clock, Lap
from jaxbio.training.program import Program
from jaxbio.training.trackers import TrackedRun, open_tracker
from jaxbio.training.writers import METRICS, Console, MetricsFile, Writer

log = logging.getLogger(__name__)

_SUMMARY = ("train/loss", "eval/loss", "perf/pairs_per_s", "perf/mfu")


class Journal:
    """Knows the latest value of every key in every process, and writes in the one that opens it.

    `lap` is told of every dispatch; the line of a step has what the steps since the last line took.
    """

    def __init__(self, workdir: Path, program: Program, pairs_per_step: float, clock: Clock):
        self._workdir, self._program, self._pairs_per_step, self._clock = workdir, program, pairs_per_step, clock
        self.lap = Lap(clock)
        self._latest: dict[str, tuple[int, Any]] = {}
        self._evaluations: Series = {}
        self._file: MetricsFile | None = None
        self._console: Console | None = None
        self._writers: list[Writer] = []

    def open(self, stack: contextlib.ExitStack, restored_step: int | None) -> None:
        """Open what is written to, which `stack` closes; what the record holds after `restored_step` is dropped, or all
        of it where the run starts anew (None).
        """
        config = self._program.config
        kept = -1 if restored_step is None else restored_step  # a fresh run writes step 0 anew
        self._file = MetricsFile(self._workdir / METRICS, kept)
        self._evaluations = read_series(self._workdir)  # of the run before it was resumed
        self._console = Console(config.train.steps, restored_step or 0, self._pairs_per_step)
        tracked = TrackedRun(self._workdir, config.log.project, changes.to_plain(config), restored_step)
        trackers = [open_tracker(name, tracked) for name in config.log.trackers]
        self._writers = [self._file, self._console, *trackers]
        for writer in self._writers:
            stack.callback(writer.close)

    def write_start(self, step: int) -> None:
        """Write what a device holds by part, which a start fixes, at the `step` from which the run goes on."""
        self._write(step, {f"memory/{part}_bytes": held for part, held in self._program.bytes_by_part.items()})

    def write_step(self, step: int, values: Mapping[str, Any]) -> None:
        """Write the line of `step`, with what the steps since the last line took."""
        wait_s, step_s = self.lap.take()
        flops, devices = self._program.flops, self._program.mesh.devices
        mfu = None
        if flops is not None and step_s > 0:
            kind, dtype = devices.flat[0].device_kind, self._program.config.precision.compute
            mfu = performance.mfu(flops / step_s, devices.size, kind, dtype)
        line = {
            **values,
            "data/wait_s": wait_s,
            "perf/step_s": step_s,
            "perf/pairs_per_s": self._pairs_per_step / step_s if step_s > 0 else None,
            "perf/mfu": mfu,
            "perf/goodput": self._clock.goodput(),
            **{f"memory/{name}": value for name, value in performance.memory().items()},
            **{f"time/{name}": total for name, total in self._clock.totals.items() if name != BEGAN},
        }
        self._write(step, line)

    def write_evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """Write the line of an evaluation at `step`; warn of what is bad in all of them so far."""
        self._write(step, values)
        if self._file is None:  # the process that writes also warns
            return
        extend(self._evaluations, step, values)
        for finding in judge_run(self._evaluations):
            if finding.bad:
                log.warning("%s", finding.words)

    def advance(self, step: int) -> None:
        """Show on the console that `step` steps are done."""
        if self._console is not None:
            self._console.advance(step)

    def sync(self) -> None:
        """Have the record on the disk: before a checkpoint that continues from it. Raises UserError as writing does."""
        if self._file is not None:
            self._file.sync()

    def names(self) -> list[str]:
        """Return the keys of all lines since this start, sorted."""
        return sorted(self._latest)

    def value_at(self, name: str, step: int) -> Any:
        """Return the value of `name` at `step`, None where its latest is another step's."""
        written, value = self._latest.get(name, (None, None))
        return value if written == step else None

    def summary(self) -> dict[str, Any]:
        """Return the latest of the numbers that sum a run up, and the seconds of each part of the clock."""
        shown = {name: value for name, (_, value) in self._latest.items() if name in _SUMMARY}
        return shown | {f"time/{part}_s": round(self._clock.totals[f"{part}_s"], 1) for part in PARTS}

    def _write(self, step: int, values: Mapping[str, Any]) -> None:
        self._latest |= {name: (step, value) for name, value in values.items()}
        with self._clock.part("log"):
            for writer in self._writers:
                writer.write(step, values)
