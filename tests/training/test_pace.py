"""Which host is slower than the others: told by what it does beside its devices, and only when it stays so."""

import logging
import threading
import time
from types import SimpleNamespace

import pytest

from jaxbio.training import pace as paces
from jaxbio.training.agreement import Agreement
from jaxbio.training.clock import Clock
from jaxbio.training.pace import Pace, SlowHost, Timer

EVEN = {process: Pace(0.5, 0.02, 0.01) for process in range(4)}
THIRD = EVEN | {3: Pace(0.5, 0.31, 0.3)}


def said(*meetings):
    slow_host = SlowHost()
    return [slow_host.judge(meeting) for meeting in meetings]


def test_a_host_that_stays_slower_is_named_once_with_what_it_waits_for():
    *before, words = said(*[THIRD] * paces._TIMES)
    assert before == [None] * (paces._TIMES - 1)
    assert words.startswith("process 3 holds up the others: of 0.5 s a dispatch it spends 0.31 s")
    assert "0.3 s of them waiting for data; the others spend 0.02 s" in words
    again = [*[THIRD] * (2 * paces._TIMES), EVEN, *[THIRD] * paces._TIMES]
    assert sum(found is not None for found in said(*again)) == 1


def test_a_host_that_is_slower_now_and_then_is_not_named():
    assert not any(said(*([THIRD] * (paces._TIMES - 1) + [EVEN]) * 3))
    other = EVEN | {1: THIRD[3]}
    assert not any(said(*([THIRD] * (paces._TIMES - 1) + [other]) * 3))


def test_less_than_a_tenth_of_a_dispatch_is_not_worth_a_word():
    assert not any(said(*[EVEN | {2: Pace(0.5, 0.06, 0.05)}] * (2 * paces._TIMES)))


def test_alone_there_is_nobody_to_be_slower_than():
    assert not any(said(*[{0: Pace(0.5, 0.4, 0.4)}] * (2 * paces._TIMES)))


def test_what_all_do_together_is_nobodys_own(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(paces.time, "monotonic", lambda: now[0])
    clock = Clock()
    timer = Timer(clock)
    for part, seconds in {"step": 6.0, "eval": 1.0, "checkpoint": 0.5, "wait": 2.0}.items():
        clock.add(part, seconds)
    now[0] += 10.0
    assert timer.since_last(5) == Pace(2.0, 0.5, pytest.approx(0.4))
    now[0] += 1.0
    assert timer.since_last(1) == Pace(1.0, 1.0, 0.0)


class Posted(dict):
    """A board in one process's memory."""

    def post(self, key, words):
        self[key] = words

    def read(self, folder):
        prefix = f"{folder}/"
        return {key.removeprefix(prefix): words for key, words in list(self.items()) if key.startswith(prefix)}

    def delete(self, key):
        self.pop(key, None)


def test_process_0_says_who_waits_for_data(monkeypatch, caplog):
    """Two processes in step, of which one is slow to get its batches."""
    monkeypatch.setattr("jaxbio.training.agreement._MEETING_S", 0.02)
    monkeypatch.setattr(paces, "_TIMES", 3)
    board, step = Posted(), threading.Barrier(2)

    def wait_for(key, process):
        while key not in board:
            time.sleep(0.001)
        return board[key]

    def loop(process):
        clock = Clock()
        peers = SimpleNamespace(alone=False, board=board, process=process, processes=2, wait_for=wait_for)
        agreement = Agreement(peers, Timer(clock))
        for boundary in range(1, 40):
            agreement.at_boundary(boundary, save=False, stop=False)
            with clock.part("wait"):
                time.sleep(0.02 * process)
            with clock.part("step"):
                step.wait()
                time.sleep(0.002)

    with caplog.at_level(logging.WARNING):
        others = threading.Thread(target=loop, args=(1,))
        others.start()
        loop(0)
        others.join()
    assert [record.getMessage()[:30] for record in caplog.records] == ["process 1 holds up the others:"]
    assert len([key for key in board if key.startswith("pace/")]) <= 4  # what has been read is taken away
