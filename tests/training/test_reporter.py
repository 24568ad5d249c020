"""The report of a run that goes on: by the clock, at a bounded price, and without harm."""

import itertools
import time

from jaxbio.training.reporter import SHARE, Reporter


def wait_for(reporter, written, number):
    until = time.monotonic() + 10
    while len(written) < number and time.monotonic() < until:
        reporter.poll()
        time.sleep(0.005)
    return len(written)


def test_a_report_that_is_slow_to_draw_takes_no_more_than_its_share_of_a_core(tmp_path):
    written = []

    def draw(workdir):
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass
        written.append(time.monotonic())

    reporter = Reporter(draw, tmp_path, every_s=0.01)
    assert wait_for(reporter, written, 3) == 3
    reporter.close(last=False)
    assert min(later - earlier for earlier, later in itertools.pairwise(written)) > 0.05 / SHARE


def test_a_report_that_is_quick_comes_by_the_clock(tmp_path):
    written = []
    reporter = Reporter(lambda workdir: written.append(workdir), tmp_path, every_s=0.01)
    assert wait_for(reporter, written, 5) == 5
    reporter.close(last=False)


def test_a_report_that_fails_is_tried_again_and_said(tmp_path, caplog):
    calls = []

    def fail(workdir):
        calls.append(workdir)
        raise RuntimeError("no room for axes")

    reporter = Reporter(fail, tmp_path, every_s=0.01)
    assert wait_for(reporter, calls, 2) == 2
    reporter.close()
    assert "training goes on" in caplog.text
