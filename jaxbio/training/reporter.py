"""The run's report, drawn anew by the clock while the run goes on; it may fail without harm.

reporter = Reporter(write_run_report, workdir, every_s=60)
reporter.poll()      # at every step boundary
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

log = logging.getLogger(__name__)
SHARE = 0.05


class Reporter:
    """Calls `report(workdir)` every `every_s` seconds in a thread of its own; a failure is logged, no more.

    On a machine that takes long to draw it calls less often: drawing takes a core `SHARE` of the time at most.
    """

    def __init__(self, report: Callable[[Path], object] | None, workdir: Path, every_s: float):
        self._report, self._workdir, self._every_s = report, workdir, every_s
        self._next = time.monotonic() + every_s
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="report")
        self._running: Future[None] | None = None

    def poll(self) -> None:
        """Start a new version when it is time and the last one is written."""
        if self._report is None or time.monotonic() < self._next:
            return
        if self._running is None or self._running.done():
            self._next = time.monotonic() + self._every_s
            self._running = self._pool.submit(self._write)

    def close(self, last: bool = True) -> None:
        """Write the `last` version and release the thread; else do not wait for a version that is being written."""
        if last and self._report is not None:
            self._pool.submit(self._write)
        self._pool.shutdown(wait=last, cancel_futures=not last)

    def _write(self) -> None:
        assert self._report is not None
        started_s = time.thread_time()
        try:
            self._report(self._workdir)
        except Exception:  # whatever a report meets, the run goes on
            log.exception("the report could not be written; training goes on")
        self._next = max(self._next, time.monotonic() + (time.thread_time() - started_s) / SHARE)
