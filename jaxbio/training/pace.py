"""Which host holds up the others: what every process does beside its devices, compared at the meetings of all.

Devices wait for each other in every step, so that a step takes the same time everywhere. What tells hosts apart is what
a process does between its steps: waiting for data, writing, and whatever else its machine is busy with.

    pace = timer.since_last(dispatches=40)                       # in every process
    words = slow_host.judge({0: pace, 1: other_pace})       # in process 0; None: no news

A device that is slow itself does not show here: a profile of the hosts does.
"""

import statistics
import time
from collections.abc import Mapping
from typing import NamedTuple

from jaxbio.training.clock import Clock

_TOGETHER = ("compile", "step", "eval", "checkpoint")  # parts of the clock that all processes spend together
_SLOWER = 0.1  # of the time of a dispatch: less is not worth anybody's time
_TIMES = 10  # meetings in a row, each about a second, before it is said: a few may be chance


class Pace(NamedTuple):
    """What a process took since the last meeting, in seconds a dispatch: in all, beside its devices, for data alone."""

    dispatch_s: float
    own_s: float
    wait_s: float


class Timer:
    """Takes the time of one process from meeting to meeting."""

    def __init__(self, clock: Clock):
        self._clock = clock
        self._last = self._now()

    def since_last(self, dispatches: int) -> Pace:
        """Return the pace of the `dispatches` since this was last asked, or since the start."""
        before, self._last = self._last, self._now()
        wall_s, together_s, wait_s = (now - then for now, then in zip(self._last, before, strict=True))
        return Pace(*(span / dispatches for span in (wall_s, max(wall_s - together_s, 0.0), wait_s)))

    def _now(self) -> tuple[float, float, float]:
        totals = self._clock.totals
        return time.monotonic(), sum(totals[f"{part}_s"] for part in _TOGETHER), totals["wait_s"]


class SlowHost:
    """Says which process is slower than the others when it stays so; of the same one again only after another."""

    def __init__(self) -> None:
        self._process: int | None = None
        self._named: int | None = None
        self._times = 0

    def judge(self, paces: Mapping[int, Pace]) -> str | None:
        """Return the words for the console where the slowest of `paces` has been the same for long enough."""
        process = self._slowest(paces)
        self._times = self._times + 1 if process == self._process else 1
        self._process = process
        if process is None or process == self._named or self._times < _TIMES:
            return None
        self._named = process
        pace, others_s = paces[process], _median_of_others(paces, process)
        return (
            f"process {process} holds up the others: of {pace.dispatch_s:.3g} s a dispatch it spends "
            f"{pace.own_s:.3g} s beside its devices, {pace.wait_s:.3g} s of them waiting for data; "
            f"the others spend {others_s:.3g} s"
        )

    def _slowest(self, paces: Mapping[int, Pace]) -> int | None:
        if len(paces) < 2:
            return None
        process = max(paces, key=lambda process: paces[process].own_s)
        slower_s = paces[process].own_s - _median_of_others(paces, process)
        return process if slower_s > _SLOWER * paces[process].dispatch_s else None


def _median_of_others(paces: Mapping[int, Pace], process: int) -> float:
    return statistics.median(pace.own_s for other, pace in paces.items() if other != process)
