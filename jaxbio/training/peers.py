"""The processes of one run, seen from one of them: what they must agree upon, and how the end of one ends all.

Everything goes over a board in process 0 (`service.Board`), never over devices. Each process has two threads: one posts
a sign of life every second and looks whether a process has failed; the other ends this process when its main thread,
blocked perhaps in a collective, has not left by itself. The first failure is everybody's: its words and its exit code.

    with peers.telling():                       # an error is told to the others before anything is tidied up
        peers.agree("start", {"train.seed": 0})
        for step in steps: peers.check()        # raises EndedByPeer when another process has failed
"""

import contextlib
import json
import logging
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

import jax

from jaxbio.config import interrupt
from jaxbio.config.faults import (
    EXIT_FAILURE,
    EXIT_PEER_GONE,
    EXIT_PREEMPTED,
    EXIT_USER_FAULT,
    EndedByPeer,
    Fault,
    Preempted,
    UserError,
    report,
)
from jaxbio.training.service import Board

BEAT_S = 1.0
GONE_S = 30.0  # without a sign of life: gone. Long enough for a process whose interpreter is held up
SUSPECT_S = 10.0  # the same, where this process has an error that the end of another would explain
TIDY_S = 8.0  # from a failure on: what a main thread has to leave by itself
LONGEST_END_S = GONE_S + 2 * BEAT_S + 5 * TIDY_S  # from a process's death to the end of all, each limit used up
_MEET_S = 300.0
_SAME_LINE = "it must be the same everywhere: start the same line, with the same files, on every host"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """What ends the run: lines to say, the exit code of all, and whose error it is (None: a matter between them)."""

    words: tuple[str, ...]
    exit_code: int
    process: int | None = None

    def error(self) -> EndedByPeer:
        """Return what is raised for it."""
        return EndedByPeer(self.words, self.exit_code)


class Peers:
    """This process among the `processes` of a run; alone, nothing here waits, starts a thread or catches an error."""

    def __init__(self, board: Board | None = None, process: int = 0, processes: int = 1):
        self.process, self.processes = process, processes
        self.alone = board is None or processes == 1
        self._host = socket.gethostname()
        self._failure: Failure | None = None
        self._failed_at = self._heard_at = time.monotonic()
        self._seen: dict[int, tuple[str, float]] = {}
        self._tidy: list[Callable[[], None]] = []
        self._learning, self._ending, self._closed = threading.Lock(), threading.Lock(), threading.Event()
        if not self.alone:
            assert board is not None
            self.board = board
            self._post_life(0)
            for name, target in (("signs of life", self._exchange), ("end of the run", self._guard)):
                threading.Thread(target=target, name=name, daemon=True).start()

    @property
    def failure(self) -> Failure | None:
        """What ends the run, once this process knows."""
        return self._failure

    def check(self) -> None:
        """Raise EndedByPeer when the run has failed."""
        if self._failure is not None:
            raise self._failure.error()

    def before_end(self, tidy: Callable[[], None]) -> None:
        """Call `tidy` also when this process is ended while its main thread is blocked."""
        self._tidy.append(tidy)

    def agree(
        self, topic: str, values: Mapping[str, Any], remedies: Mapping[str, str] | None = None, limit_s: float = _MEET_S
    ) -> None:
        """Wait until every process has come to `topic`, and see that all have brought the same `values` (JSON).

        Raises EndedByPeer in all processes with the same words: each name that differs, who says what, and its remedy
        (exit code 2); or who has not come after `limit_s`.
        """
        if self.alone:
            return
        self.board.post(f"{topic}/said/{self.process}", json.dumps(values))
        until = time.monotonic() + limit_s
        if self.process != 0:
            self.wait_for(f"{topic}/agreed", 0, topic, until)
            return
        keys = [f"{topic}/said/{process}" for process in range(self.processes)]
        said = [json.loads(self.wait_for(key, process, topic, until)) for process, key in enumerate(keys)]
        faults = find_differences(said, remedies or {})
        if faults:
            words = tuple(f"error: {fault}" for fault in faults)
            raise self._fail(Failure, words, EXIT_USER_FAULT).error()
        self.board.post(f"{topic}/agreed", "")

    def wait_for(self, key: str, process: int, topic: str | None = None, until: float = math.inf) -> str:
        """Return what `process` posts at `key` as soon as it does.

        Raises EndedByPeer when the run fails instead; also when nothing has come `until` then (time.monotonic), with
        the words that the process did not come to `topic`.
        """
        while True:
            words = self.board.wait(key, BEAT_S)
            if words is not None:
                return words
            self.check()
            if time.monotonic() > until:
                late = f"error: process {process} has not come in time to where all meet: {topic}; look at its log"
                raise self._fail(Failure, (late,), EXIT_PEER_GONE).error()

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """Tell the others of an error that leaves the with block; raise EndedByPeer where the error is another's."""
        try:
            yield
        except (Preempted, EndedByPeer):
            raise
        except BaseException as error:
            if self.alone:
                raise
            failure = self._fail(self._explain, error)
            if failure.process == self.process:
                raise
            log.warning("here the end of the run showed as %s", _one_line(error))
            raise failure.error() from error

    def leave(self) -> None:
        """Wait until every process is done. Raises EndedByPeer when one fails instead."""
        if self.alone:
            return
        self.board.post(f"left/{self.process}", "")
        while len(self.board.read("left")) < self.processes:
            self.check()
            time.sleep(BEAT_S / 10)
        self._closed.set()

    def end(self, error: BaseException) -> NoReturn:
        """Say what ended this process and leave at once: JAX's own way out waits for the other processes."""
        with self._ending:
            self._end(error)

    def interrupt(self, name: str) -> NoReturn:
        """End all processes at once because signal `name` came to this one before there was anything to save."""
        words = f"preempted: {name} came to process {self.process} on {self._host}; {interrupt.kept()}"
        self.end(self._fail(Failure, (words,), EXIT_PREEMPTED, self.process).error())

    def lose_process_0(self) -> Failure:
        """Return what ends the run where the board has gone with process 0: that, unless a failure is known."""
        words = "error: process 0 is gone, killed or cut off, and the run with it: look at its log and its host"
        return self._learn(Failure((words,), EXIT_PEER_GONE))

    def hears_process_0(self) -> bool:
        """Tell whether process 0 has answered of late."""
        return time.monotonic() - self._heard_at < SUSPECT_S

    def _learn(self, failure: Failure) -> Failure:
        """Take `failure` for what ends the run, unless one is known; return the one that is."""
        with self._learning:
            if self._failure is None:
                self._failed_at = time.monotonic()  # first: from the next line on it is read by another thread
                self._failure = failure
            return self._failure

    def _fail(self, explain: Callable[..., Failure], *arguments: Any) -> Failure:
        """Post the failure that `explain(*arguments)` returns, unless one stands there; return the one that does."""
        try:
            known = self._read_failure()
            if known is None:
                failure = explain(*arguments)
                self.board.post_first("failed/first", json.dumps(asdict(failure)))
                known = self._read_failure() or failure
        except jax.errors.JaxRuntimeError:
            return self.lose_process_0()
        return self._learn(known)

    def _read_failure(self) -> Failure | None:
        posted = self.board.read("failed").get("first")
        if posted is None:
            return None
        content = json.loads(posted)
        return Failure(tuple(content["words"]), content["exit_code"], content["process"])

    def _explain(self, error: BaseException) -> Failure:
        """Return the failure behind `error`: processes that are gone, else this one's own error."""
        gone = self._find_silent()
        if gone:
            return _silence_of(gone, self.board.read("alive"))
        who = f"process {self.process} on {self._host}"
        if isinstance(error, UserError):
            return Failure(tuple(f"error: {who}: {fault}" for fault in error.faults), EXIT_USER_FAULT, self.process)
        return Failure((f"error: {who} failed: {_one_line(error)}",), EXIT_FAILURE, self.process)

    def _find_silent(self) -> list[int]:
        """Return the others that give no sign of life for SUSPECT_S; none, soon, when all have given one."""
        before, until = self.board.read("alive"), time.monotonic() + SUSPECT_S
        others = [str(process) for process in range(self.processes) if process != self.process]
        while True:
            time.sleep(BEAT_S / 4)
            now, left = self.board.read("alive"), self.board.read("left")
            silent = [int(other) for other in others if other not in left and now.get(other) == before.get(other)]
            if not silent or time.monotonic() > until or self._read_failure() is not None:
                return silent

    def _post_life(self, count: int) -> None:
        self.board.post(f"alive/{self.process}", f"{count} {self._host}")

    def _exchange(self) -> None:
        """Post signs of life and look for a failure; in process 0 look also for processes that give no sign."""
        count = 0
        while not self._closed.wait(BEAT_S):
            count += 1
            try:
                self._post_life(count)
                failure = self._read_failure()
                if failure is not None:
                    self._learn(failure)
                elif self.process == 0:
                    self._judge(self.board.read("alive"), self.board.read("left"))
            except jax.errors.JaxRuntimeError as error:
                log.debug("process 0 does not answer: %s", error)
                continue
            self._heard_at = time.monotonic()

    def _judge(self, alive: Mapping[str, str], left: Mapping[str, str]) -> None:
        now = time.monotonic()
        for process in range(self.processes):
            sign = alive.get(str(process), "")
            if self._seen.get(process, ("none yet", now))[0] != sign or str(process) in left:
                self._seen[process] = (sign, now)
        gone = [process for process, (_, since) in self._seen.items() if now - since > GONE_S]
        if gone:
            self._fail(_silence_of, gone, alive)

    def _guard(self) -> None:
        """End this process when process 0 is silent, or when its main thread has not left a failed run in time."""
        while not self._closed.wait(BEAT_S / 4):
            if time.monotonic() - self._heard_at > GONE_S:
                self.lose_process_0()
            if self._failure is None or time.monotonic() - self._failed_at < TIDY_S:
                continue
            if self._ending.acquire(timeout=2 * TIDY_S):  # the main thread, where it has it, does not give it back
                self._end(self._failure.error())
            os._exit(self._failure.exit_code)

    def _end(self, error: BaseException) -> NoReturn:
        _within(TIDY_S / 4, lambda: report(error), sys.stdout.flush, sys.stderr.flush)
        _within(TIDY_S / 4, *self._tidy, lambda: self.board.post(f"left/{self.process}", ""))
        if self.process == 0:
            _within(1.5 * TIDY_S, self._linger)
        os._exit(EXIT_FAILURE if self._failure is None else self._failure.exit_code)

    def _linger(self) -> None:
        """Stay until the others have left, who read here why the run ends: the board goes with this process."""
        gone = {process for process, (_, since) in self._seen.items() if time.monotonic() - since > SUSPECT_S}
        while len({int(process) for process in self.board.read("left")} | gone) < self.processes:
            time.sleep(BEAT_S / 10)


ALONE = Peers()


def find_differences(said: Sequence[Mapping[str, Any]], remedies: Mapping[str, str]) -> list[Fault]:
    """Return a fault for each name whose value is not the same in all of `said`, one mapping a process."""
    faults = []
    for name in dict.fromkeys(name for values in said for name in values):
        by_value: dict[str, list[int]] = {}
        for process, values in enumerate(said):
            by_value.setdefault(repr(values[name]) if name in values else "missing", []).append(process)
        if len(by_value) > 1:
            shown = {_name_all(processes): said[processes[0]].get(name, "missing") for processes in by_value.values()}
            faults.append(Fault(name, shown, remedies.get(name, _SAME_LINE)))
    return faults


def _silence_of(processes: Sequence[int], alive: Mapping[str, str]) -> Failure:
    hosts = [alive.get(str(process), "").partition(" ")[2] or "an unknown host" for process in processes]
    names = ", ".join(f"process {process} on {host}" for process, host in zip(processes, hosts))
    words = f"error: {names} is gone, killed or cut off: no sign of life any more; look at its log and its host"
    return Failure((words,), EXIT_PEER_GONE)


def _name_all(processes: Sequence[int]) -> str:
    """Return the rising numbers in words: "process 3", "processes 0-2, 5"."""
    runs: list[list[int]] = []
    for process in processes:
        if runs and process == runs[-1][-1] + 1:
            runs[-1].append(process)
        else:
            runs.append([process])
    shown = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return f"{'process' if len(processes) == 1 else 'processes'} {shown}"


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:1000]


def _within(limit_s: float, *calls: Callable[[], object]) -> None:
    """Make the calls and wait for them at most `limit_s`: file system, service or terminal may be what hangs."""

    def make() -> None:
        for call in calls:
            try:
                call()
            except Exception as error:  # the process is leaving: nothing may keep it
                log.debug("while leaving: %s", error)

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    thread.join(limit_s)
