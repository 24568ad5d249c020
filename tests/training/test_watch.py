"""Watchdog, requests to stop, and the lock of a workdir."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import psutil
import pytest

from jaxbio.config.faults import UserError
from jaxbio.training import workdir
from jaxbio.training.watch import StopRequest, Watchdog


def wait_for(condition, seconds=10.0):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()


def test_stalled_step_dumps_the_stacks_of_all_threads_once(tmp_path):
    def quite_recognisable_function(done):
        done.wait()

    done = threading.Event()
    thread = threading.Thread(target=quite_recognisable_function, args=(done,))
    thread.start()
    path = tmp_path / "stalls.txt"
    with Watchdog(0.1, path) as watchdog:
        watchdog.beat("step 7")
        assert wait_for(lambda: watchdog.stalls == 1)
        time.sleep(0.3)
        assert watchdog.stalls == 1
        watchdog.beat("step 8")
        assert wait_for(lambda: watchdog.stalls == 2)
    done.set()
    thread.join()
    text = path.read_text()
    assert "step 7 has taken" in text
    assert "quite_recognisable_function" in text
    assert "test_stalled_step" in text


def test_steps_in_time_dump_nothing(tmp_path):
    with Watchdog(0.5, tmp_path / "stalls.txt") as watchdog:
        for step in range(4):
            watchdog.beat(f"step {step}")
            time.sleep(0.05)
    assert watchdog.stalls == 0
    assert not (tmp_path / "stalls.txt").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_asks_for_a_stop_and_handlers_are_given_back(number):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.asked
        os.kill(os.getpid(), number)
        assert wait_for(lambda: stop.asked)
        assert stop.name == signal.Signals(number).name
    assert signal.getsignal(number) == before


def test_second_signal_ends_at_once_even_when_the_main_thread_is_stuck():
    code = """
    import ctypes, signal, sys
    from jaxbio.training.watch import StopRequest
    with StopRequest() as stop:
        print("ready", flush=True)
        ctypes.CDLL(None).sleep(60)  # outside Python, deaf to handlers
        ctypes.CDLL(None).sleep(60)  # the first signal ends one sleep
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == 128 + signal.SIGTERM
    process.stdout.close()


def test_second_process_on_a_workdir_is_refused_and_named(tmp_path):
    code = """
    import pathlib, sys
    from jaxbio.training import workdir
    with workdir.hold(pathlib.Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
    """
    other = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"process {other.pid} on"), workdir.hold(tmp_path):
        pass
    other.communicate("")
    assert not (tmp_path / "lock").exists()
    with workdir.hold(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_lock_of_a_dead_process_is_taken_over(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    mine = workdir._describe_process(os.getpid())
    for stale in (mine | {"pid": process.pid}, mine | {"started": mine["started"] - 60}):
        (tmp_path / "lock").write_text(json.dumps(stale))
        with workdir.hold(tmp_path):
            assert json.loads((tmp_path / "lock").read_text()) == mine
    (tmp_path / "lock").write_text('{"host": "ha')  # killed while it wrote
    with workdir.hold(tmp_path):
        assert json.loads((tmp_path / "lock").read_text()) == mine


def test_lock_of_another_host_is_taken_over_only_when_it_has_stopped_beating(tmp_path):
    lock = tmp_path / "lock"
    lock.write_text(json.dumps(workdir._describe_process(os.getpid()) | {"host": "elsewhere"}))
    done = threading.Event()

    def beat():
        while not done.wait(0.02):
            os.utime(lock)

    beating = threading.Thread(target=beat)
    beating.start()
    with pytest.raises(UserError, match="elsewhere"), workdir.hold(tmp_path, beat_s=0.1):
        pass
    done.set()
    beating.join()
    with workdir.hold(tmp_path, beat_s=0.1):
        assert json.loads(lock.read_text())["pid"] == os.getpid()


def test_held_lock_beats(tmp_path):
    with workdir.hold(tmp_path, beat_s=0.02) as lock:
        first = lock.path.stat().st_mtime_ns
        assert wait_for(lambda: lock.path.stat().st_mtime_ns > first)
        lock.check()


def test_lock_that_another_process_took_over_is_noticed_and_left_to_it(tmp_path):
    """As by a process of another host, while this one stood still for three beats."""
    with workdir.hold(tmp_path, beat_s=0.02) as lock:
        taker = workdir._describe_process(os.getpid()) | {"host": "elsewhere"}
        (tmp_path / "other").write_text(json.dumps(taker))
        os.replace(tmp_path / "other", lock.path)

        def is_noticed():
            with contextlib.suppress(UserError):
                lock.check()
                return False
            return True

        assert wait_for(is_noticed)
        with pytest.raises(UserError, match=r"taken over by process \d+ on elsewhere"):
            lock.check()
    assert json.loads(lock.path.read_text()) == taker


def test_workdir_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="--workdir"):
        workdir.check_writable(tmp_path / "file" / "run")
    if psutil.Process().uids().effective:  # root writes anywhere
        (tmp_path / "sealed").mkdir(mode=0o500)
        with pytest.raises(UserError, match="Permission denied"):
            workdir.check_writable(tmp_path / "sealed")
