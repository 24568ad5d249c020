"""Ctrl-C in real commands, wherever they are: within seconds a line that says what is kept, and the same line goes on.

That of imports is in test_begin; that of the loop in tests/training.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from simulated import xla_flags
from tiny_recipe import TINY_RECIPE

from jaxbio.config.faults import EXIT_INTERRUPTED, EXIT_PREEMPTED
from jaxbio.data.store import open_store
from jaxbio.training.checkpoint import list_steps

ROOT = Path(__file__).resolve().parent.parent.parent
LIMIT_S = 5.0
SAVE_LIMIT_S = 15.0  # a step and a checkpoint, on cores that other tests use; alone, two seconds


class Command:
    """A command in a process group of its own, as a terminal would have it; its words are read line by line."""

    def __init__(self, *words, **surroundings):
        self.process = subprocess.Popen(
            [sys.executable, *map(str, words)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"XLA_FLAGS": xla_flags(1)} | surroundings,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self.process.stderr:
            self.lines.append(line)

    def wait_for(self, condition, limit_s=120.0):
        until = time.monotonic() + limit_s
        while not condition():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < until, self.said()
            time.sleep(0.02)

    def said(self) -> str:
        return "".join(self.lines)

    def stop(self, number=signal.SIGINT, limit_s=LIMIT_S) -> int:
        """Send the signal to all processes of the group; return the exit code, once it has come in time."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        began = time.monotonic()
        os.killpg(self.process.pid, number)
        code = self.process.wait(timeout=60)
        took_s = time.monotonic() - began
        self._reader.join(timeout=60)
        assert took_s < limit_s, f"{took_s:.1f} s: {self.said()}"
        assert "Traceback" not in self.said()
        _, alive = psutil.wait_procs(children, timeout=10)
        assert not alive
        return code


@contextlib.contextmanager
def command(*words, **surroundings):
    started = Command(*words, **surroundings)
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.process.pid, signal.SIGKILL)
        started.process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_interrupted_preparation_keeps_finished_shards_and_goes_on(tmp_path, workers):
    small = ("--config", TINY_RECIPE, "--config.prepare.shard_bytes=131072")
    line = ("tools/prepare_store.py", *small, "--source", "synthetic:60", "--out", tmp_path / "store")
    with command(*line, "--workers", workers) as preparation:
        preparation.wait_for(lambda: len(list((tmp_path / "store/parts").glob("segments-*"))) > 1)
        assert preparation.stop() == EXIT_INTERRUPTED
        said = preparation.said()
    assert f"finished shards are kept in {tmp_path / 'store'}; start the same line again" in said
    assert "resource_tracker" not in said
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("segments-*")}
    assert len(before) > 1
    assert not (tmp_path / "store/manifest.json").exists()
    subprocess.run([sys.executable, *map(str, line)], cwd=ROOT, check=True, capture_output=True)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert open_store(tmp_path / "store").rows > 30


@pytest.fixture
def line(store, tmp_path):
    return ("launch/run.py", "--config", TINY_RECIPE, f"--config.data.store={store}", "--workdir", tmp_path / "run")


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_signal_while_compiling_ends_at_once_with_nothing_to_save(line, tmp_path, number):
    larger = ("--config.model.layers=3", "--config.model.unroll=3")
    with command(*line, *larger, JAX_ENABLE_COMPILATION_CACHE="false") as run:
        run.wait_for(lambda: "parameters and their placement" in run.said())
        assert run.stop(number) == EXIT_PREEMPTED
    assert "compiled in" not in run.said()
    assert f"stopped by {number.name}: no step was done" in run.said()
    assert "start the same line again" in run.said()
    assert list_steps(tmp_path / "run" / "checkpoints") == []
    assert not (tmp_path / "run" / "lock").exists()


@pytest.mark.slow
def test_interrupted_training_saves_and_goes_on(line, tmp_path):
    endless = ("--config.train.steps=4800", "--config.eval.every_steps=2400", "--config.checkpoint.every_steps=2400")
    with command(*line, *endless) as run:
        run.wait_for(lambda: "step 1/4800" in run.said())
        assert run.stop(limit_s=SAVE_LIMIT_S) == EXIT_PREEMPTED
    (step,) = list_steps(tmp_path / "run" / "checkpoints")
    assert f"preempted: SIGINT asked for it; step {step} of 4800 is saved; start me again" in run.said()
    with command(*line, *endless) as run:  # while it restores, there is again nothing to save
        run.wait_for(lambda: "resuming from" in run.said() or "compiled in" in run.said())
        assert run.stop() == EXIT_PREEMPTED
    assert list_steps(tmp_path / "run" / "checkpoints")[0] >= step
