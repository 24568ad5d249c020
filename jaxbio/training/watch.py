"""Watching a run from outside its loop: a watchdog for stalled steps, and requests to stop.

with StopRequest() as stop, Watchdog(stall_s=600) as watchdog:
    watchdog.beat("step 17")
    if stop.asked: ...
"""

import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from jaxbio.config.interrupt import Listener, say

log = logging.getLogger(__name__)


class Watchdog:
    """Dumps the stacks of all threads, once a stall, when `beat` has not been called for `stall_s` seconds.

    The stacks go to standard error and, where `path` is given, are appended to that file.
    """

    def __init__(self, stall_s: float, path: Path | None = None):
        self._stall_s, self._path = stall_s, path
        self._doing, self._since, self._armed = "start-up", time.monotonic(), True
        self._changed = threading.Condition()
        self._closed = False
        self.stalls = 0
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def beat(self, doing: str) -> None:
        """Say what is being done from now on; the clock starts again."""
        with self._changed:
            self._doing, self._since, self._armed = doing, time.monotonic(), True

    def _watch(self) -> None:
        with self._changed:
            while not self._closed:
                waited = time.monotonic() - self._since
                if self._armed and waited >= self._stall_s:
                    self._armed = False
                    self.stalls += 1
                    self._dump(self._doing, waited)
                self._changed.wait(max(self._stall_s - waited, min(self._stall_s, 1.0)))

    def _dump(self, doing: str, waited: float) -> None:
        log.error("%s has taken %.0f s (train.stall_s = %g); the stacks of all threads:", doing, waited, self._stall_s)
        stream = sys.__stderr__
        if stream is not None:
            faulthandler.dump_traceback(file=stream.fileno(), all_threads=True)
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(f"\n{time.strftime('%Y-%m-%dT%H:%M:%S')} {doing} has taken {waited:.0f} s\n")
                file.flush()
                faulthandler.dump_traceback(file=file.fileno(), all_threads=True)


class StopRequest:
    """SIGTERM and SIGINT ask for a stop (`asked`); a second one ends the process at once.

    While there is nothing to save, until `start_saving` is called, `leave(name of the signal)` is called instead, where
    it is given.
    """

    def __init__(
        self,
        signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT),
        leave: Callable[[str], None] | None = None,
    ):
        self._listener = Listener(signals, self._answer)
        self._leave = leave
        self._asked = threading.Event()
        self.name = ""

    @property
    def asked(self) -> bool:
        return self._asked.is_set()

    def ask(self, name: str) -> None:
        """Ask for a stop, as a signal does."""
        self.name = name
        self._asked.set()

    def start_saving(self) -> None:
        """Say that from now on a stop has something to save."""
        self._leave = None

    def __enter__(self) -> "StopRequest":
        self._listener.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.__exit__(kind, error, trace)

    def _answer(self, number: signal.Signals) -> None:
        if self._leave is not None:
            self._leave(number.name)
        if self.asked:
            say(f"second {number.name}: ending at once, nothing saved")
            os._exit(128 + number)
        say(f"{number.name}: saving at the next step boundary; once more ends at once")
        self.ask(number.name)
