"""Where the time of a run goes, over its starts."""

import pytest

from jaxbio.training import clock as clocks
from jaxbio.training.clock import Clock


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
