"""A process of a run of several that goes wrong, started by test_hosts: FAULT, then the words of the launch line.

Of a simulated pod what goes before those words comes too (tools/simulate_pod.py).

The model is linear, because a run that is to end needs no other. Everything else is the launch line's.
"""

import functools
import json
import logging
import os
import resource
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests/training")]

from jaxbio.config.faults import run_command  # noqa: E402
from launch import environment, run  # noqa: E402
from tools import simulate_pod  # noqa: E402

FAULT, sys.argv = sys.argv[1], [sys.argv[0], *sys.argv[2:]]
FAULTY_STEP = 7


def train_linear():
    """Train a linear model in the place of the recipe's."""
    from linear_run import linear_objective

    from jaxbio import objectives
    from jaxbio.planning import flops

    objectives.make_objective = lambda config, networks: linear_objective()
    flops.model_flops = lambda config, pairs, networks: flops.FlopCount(1.0, {})


def before_step(act):
    """Call `act` before the dispatch of FAULTY_STEP; the file `fault` in the workdir tells when that was."""
    from jaxbio.training import loop

    dispatch = loop._Run.dispatch

    def faulty(self):
        if self.done == FAULTY_STEP:
            (self.workdir / "fault").touch()
            act(self)
        dispatch(self)

    loop._Run.dispatch = faulty


def none():
    """Nothing goes wrong here."""


def other_code():
    from jaxbio.training import same_start

    same_start.hash_code = lambda: "0123456789abcdef"


def slow_disk():
    """The folder with which the workdir is tried stays there for longer than the other processes need to come."""
    from jaxbio.training import workdir

    make = workdir.tempfile.mkdtemp

    def make_slowly(*arguments, **options):
        place = make(*arguments, **options)
        time.sleep(4.0)
        return place

    workdir.tempfile.mkdtemp = make_slowly


def stopped_by(name):
    before_step(lambda run: os.kill(os.getpid(), signal.Signals[name]))


def killed():
    stopped_by("SIGKILL")


def frozen():
    stopped_by("SIGSTOP")


def bug():
    before_step(lambda run: 1 // 0)


def bug_while_compiling():
    from jaxbio.training import program

    def fail(*_, **__):
        raise RuntimeError("a compiler that fails on one host")

    program.build_program = fail


def full_disk():
    """The limit on file sizes stands in for the disk: both make the writing threads' writes fail."""
    before_step(lambda run: resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, resource.RLIM_INFINITY)))


def lost_lock():
    from jaxbio.training import workdir

    workdir.hold = functools.partial(workdir.hold, beat_s=0.1)

    def lose(run):
        lock = run.workdir / "lock"
        lock.with_name("other").write_text(json.dumps(json.loads(lock.read_text()) | {"host": "elsewhere"}))
        os.replace(lock.with_name("other"), lock)
        time.sleep(1.0)

    before_step(lose)


def not_finite():
    """Both processes see it: it is a value of the step."""
    from jaxbio.training import loop

    settle = loop._Run.settle

    def faulty(self, dispatched):
        if dispatched is not None and dispatched.step == FAULTY_STEP:
            dispatched.metrics["nonfinite"] = dispatched.metrics["nonfinite"] + True
        settle(self, dispatched)

    loop._Run.settle = faulty


logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
logging.getLogger("absl").setLevel(logging.WARNING)
environment.configure()
train_linear()
globals()[FAULT]()
environment.configure = lambda **_: {}  # JAX is there by now
if sys.argv[1:2] == [simulate_pod.AS_HOST]:
    simulate_pod.run_as_host(*sys.argv[2:])
run_command(run.main)
