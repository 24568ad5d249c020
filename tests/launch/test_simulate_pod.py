"""A pod on this machine: what it finds different, and one that is killed and goes on."""

import argparse
import random
import subprocess
from collections import Counter
from signal import SIGKILL, SIGTERM

import pytest
from linear_pod import make_linear_pod
from tiny_recipe import TINY_RECIPE

from jaxbio.config.command_line import load_recipe
from jaxbio.config.faults import EXIT_PEER_GONE, EXIT_PREEMPTED, UserError
from tools import simulate_pod
from tools.simulate_pod import Run, compare, is_right_end

PAIRS = [(0, 1), (2, 3), (4, 5), (6, 7)]
LOSSES = {"train/loss": {1: 2.0, 2: 1.0}}
WHOLE = Run(LOSSES, {0: [Counter(PAIRS)], 1: [Counter(PAIRS[::-1])]})


def found(losses=LOSSES, **tries):
    rows = {0: [Counter(PAIRS)], 1: [Counter(PAIRS)]} | {int(step[1:]): rows for step, rows in tries.items()}
    return list(compare(WHOLE, Run(losses, rows), 1e-5))


def test_a_run_that_was_ended_in_the_middle_of_a_step_may_lack_rows_of_it_once():
    assert found() == []
    assert found(_1=[Counter(PAIRS[:2]), Counter(PAIRS)]) == []
    assert found(_1=[Counter(PAIRS), Counter(PAIRS[:2])]) == ["rows of step 1"]


@pytest.mark.parametrize("rows", [PAIRS[:3], [*PAIRS, PAIRS[0]], [*PAIRS[:3], (8, 9)], []])
def test_rows_that_are_missing_come_twice_or_are_others_are_found(rows):
    assert found(_0=[Counter(rows)]) == ["rows of step 0"]
    if not set(rows) < set(PAIRS):
        assert found(_0=[Counter(rows), Counter(PAIRS)]) == ["rows of step 0"]


def test_another_loss_and_a_missing_one_are_found():
    assert found({"train/loss": {1: 2.0, 2: 1.000009}}) == []
    assert found({"train/loss": {1: 2.0, 2: 1.00002}}) == ["train/loss at step 2: 1.00002 instead of 1.0"]
    assert found({"train/loss": {1: 2.0}}) == ["train/loss of 1 steps, not 2"]


def test_what_does_not_go_together_is_named_together(tmp_path):
    data = load_recipe(TINY_RECIPE).data
    flags = argparse.Namespace(devices=4, out=str(tmp_path))
    with pytest.raises(UserError) as refused:
        simulate_pod.check(flags, [2, 3], data)
    assert [fault.field for fault in refused.value.faults] == ["--hosts", "data.store", "--out"]


@pytest.mark.parametrize("flag", ["--hosts=2,x", "--hosts=0", "--hosts=", "--devices=0", "--within_steps=0"])
def test_numbers_that_count_nothing_are_refused_by_the_name_of_their_flag(tmp_path, flag):
    with pytest.raises(UserError, match=flag.partition("=")[0]):
        simulate_pod.main(["--config", TINY_RECIPE, "--config.data.store=s", "--out", str(tmp_path / "pod"), flag])
    assert not (tmp_path / "pod").exists()


@pytest.fixture
def sleepers(tmp_path):
    """A pod of two processes that do nothing for a minute, and start with a limit of half a second."""
    pod = simulate_pod.Pod((), tmp_path, devices=2, delay_s=0.0, limit_s=1.0, start_limit_s=0.5)
    started = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    yield pod, started
    assert [process.poll() for process in started] == [-SIGKILL] * 2


def test_a_start_whose_batches_do_not_come_ends_by_name(sleepers, tmp_path):
    pod, started = sleepers
    with pytest.raises(
        RuntimeError, match=r"run: process [01] has 0 batches of [1-3] after 0.5 s, see .*run\.[01]\.log"
    ):
        pod._kill_one(started, tmp_path / "run", random.Random(0), 3)


def test_a_start_that_does_not_end_is_ended_by_name(sleepers, tmp_path):
    pod, started = sleepers
    with pytest.raises(RuntimeError, match=r"run: processes \[0, 1\] run on after 0.5 s, see .*run\.0\.log"):
        pod._check_done(started, tmp_path / "run")


def test_a_process_ends_right_with_the_code_and_the_number_of_the_one_that_got_the_signal():
    gone = "error: process 2 on a, process 13 on b is gone, killed or cut off: no sign of life"
    assert is_right_end(SIGKILL, 13, EXIT_PEER_GONE, gone)
    assert is_right_end(SIGKILL, 2, EXIT_PEER_GONE, gone)
    assert not is_right_end(SIGKILL, 1, EXIT_PEER_GONE, gone)
    assert not is_right_end(SIGKILL, 2, EXIT_PREEMPTED, gone)
    assert not is_right_end(SIGTERM, 2, EXIT_PREEMPTED, gone)


@pytest.mark.slow
def test_a_killed_pod_goes_on_with_another_number_of_hosts_as_if_nothing_had_happened(tmp_path, monkeypatch):
    """With a linear model, which compiles in a second."""
    monkeypatch.setattr(simulate_pod, "HOST", simulate_pod.HOST)  # the pod changes it
    flags = ["--hosts", "1,2", "--devices", "2", "--kills", "1", "--config.train.steps=12"]
    done = make_linear_pod(["--out", str(tmp_path / "pod"), *flags])
    assert done["kills"] == 1
    assert done["longest_end_s"] < 60
