"""A profile of a few dispatches, taken at a chosen step.

profiler = Profiler(workdir / "profile", at=1000)
profiler.before(step, steps_per_dispatch)      # before every dispatch
"""

import logging
from pathlib import Path

import jax

log = logging.getLogger(__name__)


class Profiler:
    """Takes a profile of a few dispatches into `folder`, from the one that holds step `at` (None: never)."""

    def __init__(self, folder: Path, at: int | None, dispatches: int = 3):
        self._folder, self._at, self._left = folder, at, dispatches
        self._running = False

    def before(self, step: int, steps_per_dispatch: int) -> None:
        """Start or stop, before the dispatch of the steps from `step`, counted from 0."""
        if self._running:
            self._left -= 1
            if self._left == 0:
                self.close()
        elif self._at is not None and step <= self._at < step + steps_per_dispatch:
            jax.profiler.start_trace(str(self._folder))
            self._running = True

    def close(self) -> None:
        """Write what has been taken."""
        if self._running:
            jax.profiler.stop_trace()
            self._running, self._at = False, None
            log.info("profile written to %s", self._folder)
