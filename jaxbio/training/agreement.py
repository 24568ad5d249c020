"""Agreeing at a step boundary: when all processes save, and when they stop; and who is slower than the others.

agreement = Agreement(peers, Timer(clock))
decision = agreement.at_boundary(dispatches, save=clock_says_so, stop=signal_came)
"""

import json
import logging
import time
from dataclasses import dataclass
from typing import Any

from jax.experimental import multihost_utils

from jaxbio.training.pace import Pace, SlowHost, Timer
from jaxbio.training.peers import Peers

log = logging.getLogger(__name__)

_MEETING_S = 1.0  # between two meetings


@dataclass(frozen=True)
class Decision:
    """What all processes do at this boundary."""

    save: bool
    stop: bool


class Agreement:
    """Brings all processes to the same decision at the same step boundary, without devices.

    One process decides for itself, at once. Several meet on their board, at a boundary about every second: process 0
    says there what is done at the next meeting, and at which boundary that is. A collective would need every device,
    and a failed process would leave the others waiting in it. A preemption notice that JAX's service has brought to
    all processes counts as a wish to stop of them all.
    """

    def __init__(self, peers: Peers, timer: Timer):
        self._peers, self._timer, self._slow_host, self._wished = peers, timer, SlowHost(), False
        self._meetings, self._met_at, self._met_boundaries = 0, time.monotonic(), (0, 0)
        self._stride, self._boundary, self._decided = 1, 1, Decision(save=False, stop=False)

    def at_boundary(self, boundary: int, *, save: bool, stop: bool) -> Decision:
        """Return what is decided at `boundary`, which counts up by one from 1; `save` counts in process 0 alone."""
        if self._peers.alone:
            return Decision(save, stop)
        if stop and not self._wished:
            self._wished = True
            self._peers.board.post(f"stop/{self._peers.process}", "")
        preempted = multihost_utils.reached_preemption_sync_point(boundary)
        if boundary < self._boundary:
            return Decision(save=False, stop=preempted)
        decided = self._decided
        self._compare_paces(boundary)
        self._meet(save)
        return Decision(decided.save, decided.stop or preempted)

    def _meet(self, save: bool) -> None:
        """Learn what is done at the next meeting; in process 0, decide it."""
        self._meetings += 1
        key = f"meeting/{self._meetings}"
        if self._peers.process == 0:
            self._set_stride()
            stop = bool(self._peers.board.read("stop"))
            said: dict[str, Any] = {"boundary": self._boundary + self._stride, "save": save, "stop": stop}
            self._peers.board.post(key, json.dumps(said))
            # What the meeting before the last one said has been read: a step needs all processes.
            self._peers.board.delete(f"meeting/{self._meetings - 2}")
        else:
            said = json.loads(self._peers.wait_for(key, 0))
        self._boundary, self._decided = said["boundary"], Decision(said["save"], said["stop"])

    def _compare_paces(self, boundary: int) -> None:
        """Say how fast this process was since the last meeting; in process 0, compare what all said at that meeting."""
        board, process, (before, last) = self._peers.board, self._peers.process, self._met_boundaries
        self._met_boundaries = last, boundary
        pace = self._timer.since_last(boundary - last)
        if process == 0:
            said = {int(other): Pace(*json.loads(words)) for other, words in board.read(f"pace/{last}").items()}
            words = self._slow_host.judge(said) if len(said) == self._peers.processes else None
            if words is not None:
                log.warning("%s", words)
        if last > 0:  # the first steps hold what starting up took
            board.post(f"pace/{boundary}/{process}", json.dumps(pace))
        board.delete(f"pace/{before}/{process}")  # process 0 has read it, as in `_meet`

    def _set_stride(self) -> None:
        """Set the boundaries to the next meeting: as many as take a second, and at most twice the last ones."""
        now = time.monotonic()
        in_time = round(self._stride * _MEETING_S / max(now - self._met_at, 1e-3))
        self._stride, self._met_at = max(1, min(in_time, 2 * self._stride)), now
