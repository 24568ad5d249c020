"""Where the time of a run goes, over all its starts.

clock = Clock(totals of the checkpoint)
with clock.part("step"): ...
"""

import contextlib
import time
from collections.abc import Iterator, Mapping

PARTS = ("compile", "step", "wait", "eval", "checkpoint")


class Clock:
    """Seconds by part, summed over the run (`totals`, kept in checkpoints) and since the last `lap`."""

    def __init__(self, totals: Mapping[str, float] | None = None):
        self.totals: dict[str, float] = {f"{part}_s": 0.0 for part in PARTS} | {"starts": 0.0} | dict(totals or {})
        self.totals["starts"] += 1
        self._lap = dict.fromkeys(PARTS, 0.0)

    def add(self, part: str, seconds: float) -> None:
        """Count `seconds` as spent in `part`."""
        self.totals[f"{part}_s"] += seconds
        self._lap[part] += seconds

    @contextlib.contextmanager
    def part(self, part: str) -> Iterator[None]:
        """Count the time of a with block as spent in `part`."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.add(part, time.monotonic() - started)

    def lap(self) -> dict[str, float]:
        """Return the seconds by part since the last call."""
        lap, self._lap = self._lap, dict.fromkeys(PARTS, 0.0)
        return lap
