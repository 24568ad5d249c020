"""Watchdog and requests to stop."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

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
