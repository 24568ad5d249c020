"""Where the time of a run goes, over all its starts.

clock = Clock(totals of the checkpoint)
with clock.part("step"): ...
"""

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

PARTS = ("compile", "step", "wait", "eval", "checkpoint", "log")
BEGAN = "began_unix_s"


@dataclass
class Span:
    """A stretch of time; `seconds` is known when it is over."""

    seconds: float = 0.0


class Clock:
    """Seconds by part, summed over all starts of the run, and when the first began: `totals`, kept in checkpoints.

    What was done after the checkpoint that a run goes on from was lost, and is in none of them.
    """

    def __init__(self, totals: Mapping[str, float] | None = None):
        fresh = {f"{part}_s": 0.0 for part in PARTS} | {"starts": 0.0, BEGAN: time.time()}
        self.totals: dict[str, float] = fresh | dict(totals or {})
        self.totals["starts"] += 1

    def goodput(self) -> float:
        """Return the share of the time since the run first began that went into steps which have lasted.

        The rest is compiling, waiting for data, evaluating, saving, being down, and doing lost steps again.
        """
        return self.totals["step_s"] / max(time.time() - self.totals[BEGAN], 1e-9)

    def add(self, part: str, seconds: float) -> None:
        """Count `seconds` as spent in `part`."""
        self.totals[f"{part}_s"] += seconds

    @contextlib.contextmanager
    def part(self, part: str) -> Iterator[Span]:
        """Count the time of a with block as spent in `part`."""
        span, started = Span(), time.monotonic()
        try:
            yield span
        finally:
            span.seconds = time.monotonic() - started
            self.add(part, span.seconds)


class Lap:
    """How long the steps since the last line of the record took: all the time from one to the next, but for what the
    clock counted meanwhile as compiling, evaluating and saving.

    The time of a dispatch is its own wait, its sending, and the reading of its metrics, which happens one dispatch
    later. What else the loop does takes its time while a device computes, and so shortens the reading: it is a step's
    time as well.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._steps, self._wait_s, self._busy_s, self._last = 0, 0.0, 0.0, (0.0, 0.0)
        self._began = self._now()

    def start(self) -> None:
        """Count from now on: what came before was no step's."""
        self._began = self._now()

    def add(self, steps: int, wait_s: float, busy_s: float) -> None:
        """Count a dispatch of `steps` steps, and what the clock counted of it."""
        self._steps, self._wait_s, self._busy_s = self._steps + steps, self._wait_s + wait_s, self._busy_s + busy_s

    def take(self) -> tuple[float, float]:
        """Return the seconds a step waited for data and the seconds a step took in all; then start anew.

        Several lines may be written for one dispatch of several steps: the later ones get the numbers of the first.
        """
        if self._steps:
            began, self._began = self._began, self._now()
            wall_s, counted_s = (now - then for now, then in zip(self._began, began, strict=True))
            step_s = (self._wait_s + self._busy_s + wall_s - counted_s) / self._steps
            self._last = self._wait_s / self._steps, step_s
            self._steps, self._wait_s, self._busy_s = 0, 0.0, 0.0
        return self._last

    def _now(self) -> tuple[float, float]:
        """Return the time, and what of it the clock has counted so far; writing the record is beside the devices."""
        return time.monotonic(), sum(self._clock.totals[f"{part}_s"] for part in PARTS if part != "log")
