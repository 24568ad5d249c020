"""Where the time of a run goes, over its starts."""

import contextlib

import pytest

from jaxbio.training import clock as clocks
from jaxbio.training.clock import Clock, Lap


def test_goodput_is_the_share_of_lasting_steps_since_the_run_first_began(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(clocks.time, "time", lambda: now[0])
    first = Clock()
    first.add("step", 60.0)
    now[0] = 1100.0
    assert first.goodput() == pytest.approx(0.6)
    kept = dict(first.totals)
    first.add("step", 50.0)  # lost: the run is killed before it saves them
    now[0] = 1300.0  # down for 150 s
    resumed = Clock(kept)
    resumed.add("step", 30.0)
    assert resumed.goodput() == pytest.approx(90 / 300)
    assert resumed.totals["starts"] == 2


def test_a_checkpoint_from_before_goodput_was_kept_counts_from_its_resume(monkeypatch):
    monkeypatch.setattr(clocks.time, "time", lambda: 5000.0)
    resumed = Clock({"step_s": 10.0, "starts": 1.0})
    assert resumed.totals[clocks.BEGAN] == 5000.0


@pytest.fixture
def now(monkeypatch):
    """The time that the clock sees, as a list of one number to add to."""
    now = [1000.0]
    monkeypatch.setattr(clocks.time, "monotonic", lambda: now[0])
    return now


def spend(clock, now, part, seconds):
    """Let `seconds` go by as `part`, or as none that the clock counts; return them."""
    with contextlib.nullcontext() if part is None else clock.part(part):
        now[0] += seconds
    return seconds


def test_a_step_takes_all_the_time_to_the_next_one(now):
    """Ten steps of 100 ms on a device that computes while its host writes and checks for 30 ms of each."""
    clock = Clock()
    lap = Lap(clock)
    now[0] += 50.0  # restoring: no step's
    lap.start()
    for _ in range(10):
        wait_s, sent_s = spend(clock, now, "wait", 0.01), spend(clock, now, "step", 0.001)
        spend(clock, now, None, 0.02)
        spend(clock, now, "log", 0.01)
        lap.add(1, wait_s, sent_s + spend(clock, now, "step", 0.059))
    assert lap.take() == (pytest.approx(0.01), pytest.approx(0.1))


def test_evaluations_and_checkpoints_are_no_steps_time(now):
    clock = Clock()
    lap = Lap(clock)
    lap.start()
    for seconds in (0.1, 0.3):
        lap.add(1, 0.0, spend(clock, now, "step", seconds))
        spend(clock, now, "eval", 7.0)
        spend(clock, now, "checkpoint", 5.0)
        assert lap.take()[1] == pytest.approx(seconds)


def test_a_dispatch_that_was_sent_and_not_yet_read_is_the_next_laps(now):
    """As where a device computes in the caller's thread, and the step after it is sent before its metrics are read."""
    clock = Clock()
    lap = Lap(clock)
    lap.start()
    first_s, second_s = spend(clock, now, "step", 0.1), spend(clock, now, "step", 0.3)
    lap.add(1, 0.0, first_s)
    assert lap.take()[1] == pytest.approx(0.1)
    lap.add(1, 0.0, second_s)
    assert lap.take()[1] == pytest.approx(0.3)
