"""Real processes of one run: whatever one of them meets ends all of them, soon, with its words and its exit code.

The few fast tests end before anything is compiled.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import psutil
import pytest
from simulated import xla_flags
from tiny_recipe import TINY_RECIPE

from jaxbio.config import changes, fields
from jaxbio.config.command_line import load_recipe
from jaxbio.config.faults import EXIT_FAILURE, EXIT_PEER_GONE, EXIT_USER_FAULT
from jaxbio.data.prepare import prepare_store
from jaxbio.data.recordings import parse_source
from jaxbio.data.store import open_store
from jaxbio.training.checkpoint import Checkpoints, Meta, list_steps
from jaxbio.training.state import State
from jaxbio.training.workdir import hold

SCRIPT = Path(__file__).with_name("faulty_process.py")
LIMIT_S = 60.0
ENDLESS = ("--config.train.steps=4000", "--config.eval.every_steps=2000", "--config.checkpoint.every_steps=10")


@dataclass
class Ended:
    code: int
    said: str
    after_s: float  # since the fault, where it says when it was, else since the first process ended


class Run:
    """Processes of one launch line; `words` are those of all, `own` of some, `fault` what goes wrong in one, `devices`
    how many some have.
    """

    def __init__(self, tmp_path, processes: int, words: Sequence[str], own=None, fault=("none", None), devices=None):
        self.folder, own = tmp_path, own or {}
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        self.processes, self.writers = [], []
        for number in range(processes):
            name = fault[0] if number == fault[1] or fault[1] == "all" else "none"
            line = ["--config", TINY_RECIPE, "--workdir", str(tmp_path / "run"), *words, *own.get(number, ())]
            line += ["--coordinator", address, "--processes", str(processes), "--process", str(number)]
            command = [sys.executable, str(SCRIPT), name, *line]
            flags = xla_flags((devices or {}).get(number, 1))
            environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
            with (tmp_path / f"{number}.log").open("w") as log:  # a process with a full disk can still speak
                writer = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=log)
            process = subprocess.Popen(command, stdout=writer.stdin, stderr=writer.stdin, env=environment)
            self.processes.append(process)
            writer.stdin.close()
            self.writers.append(writer)

    def ends(self, but: Sequence[int] = ()) -> dict[int, Ended]:
        """Wait until all processes but those in `but` have ended."""
        ended: dict[int, tuple[int, float]] = {}
        waiting, until = set(range(len(self.processes))) - set(but), time.monotonic() + 300
        while waiting and time.monotonic() < until:
            for number in list(waiting):
                code = self.processes[number].poll()
                if code is not None:
                    ended[number] = code, time.time()
                    waiting.remove(number)
            time.sleep(0.05)
        for process in self.processes:
            process.kill()
            process.wait()
        for writer in self.writers:
            writer.wait()
        assert not waiting, f"processes {waiting} hang: {self.said(min(waiting))[-3000:]}"
        fault = self.folder / "run" / "fault"
        began = fault.stat().st_mtime if fault.exists() else min(when for _, when in ended.values())
        print({number: (code, round(when - began, 1)) for number, (code, when) in ended.items()})
        return {number: Ended(code, self.said(number), when - began) for number, (code, when) in ended.items()}

    def said(self, number: int) -> str:
        return (self.folder / f"{number}.log").read_text()


def check(ended: dict[int, Ended], code: int, *words: str):
    for number, end in ended.items():
        assert end.code == code, f"process {number} ended with {end.code}: {end.said[-3000:]}"
        for word in words:
            assert word in end.said, f"process {number}: {end.said[-3000:]}"
        assert end.after_s < LIMIT_S


@pytest.fixture
def other_store(tmp_path):
    """A store of other recordings."""
    prepare_store([parse_source("synthetic:108")], load_recipe(TINY_RECIPE), tmp_path / "other_store", progress=False)
    return tmp_path / "other_store"


def damaged_copy(store, folder):
    """A copy whose shards have the right size and the wrong bytes."""
    shutil.copytree(store, folder)
    for shard in folder.glob("*.array_record"):
        content = bytearray(shard.read_bytes())
        content[64:-64] = bytes(len(content) - 128)
        shard.write_bytes(content)
    return folder


@pytest.mark.slow
def test_another_seed_another_code_and_another_store_end_both_with_the_same_words(store, other_store, tmp_path):
    own = {0: [f"--config.data.store={store}"], 1: [f"--config.data.store={other_store}", "--config.train.seed=5"]}
    ended = Run(tmp_path, 2, (), own, fault=("other_code", 1)).ends()
    check(ended, EXIT_USER_FAULT, "train.seed = {'process 0': 0, 'process 1': 5}", "error: data.store = {", "code = {")
    lines = [sorted(line for line in end.said.splitlines() if line.startswith("error: ")) for end in ended.values()]
    assert len(lines[0]) == 3
    assert lines[0] == lines[1]


def test_fault_of_one_command_line_ends_both(store, tmp_path):
    own = {1: ["--config.train.stepz=3"]}
    ended = Run(tmp_path, 2, [f"--config.data.store={store}"], own).ends()
    check(ended, EXIT_USER_FAULT, "train.stepz = '3': unknown field")
    assert "error: process 1 on " in ended[0].said


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_another_field_is_named_with_who_says_what_also_by_the_one_with_a_slow_disk(store, tmp_path, processes):
    last = processes - 1
    own = {last: ["--config.eval.every_steps=6"]}
    run = Run(tmp_path, processes, [f"--config.data.store={store}"], own, fault=("slow_disk", last))
    first = "process 0" if processes == 2 else "processes 0-2"
    check(run.ends(), EXIT_USER_FAULT, f"eval.every_steps = {{'{first}': 12, 'process {last}': 6}}")


@pytest.mark.slow
def test_hosts_of_different_numbers_of_devices_are_told_before_anything_is_compiled(store, tmp_path):
    ended = Run(tmp_path, 2, [f"--config.data.store={store}"], devices={1: 3}).ends()
    check(ended, EXIT_USER_FAULT, "devices of a process = {'process 0': 1, 'process 1': 3}: alike everywhere")
    assert "compiled in" not in ended[0].said + ended[1].said


@pytest.mark.slow
def test_store_that_one_host_cannot_open(store, tmp_path):
    own = {0: [f"--config.data.store={store}"], 1: [f"--config.data.store={tmp_path}"]}
    check(Run(tmp_path, 2, (), own).ends(), EXIT_USER_FAULT, "data.store")


@pytest.mark.slow
def test_held_workdir(store, tmp_path):
    (tmp_path / "run").mkdir()
    with hold(tmp_path / "run"):
        ended = Run(tmp_path, 2, [f"--config.data.store={store}"]).ends()
    check(ended, EXIT_USER_FAULT, f"held by process {os.getpid()}")


@pytest.mark.slow
def test_stale_list_of_checkpoints(store, tmp_path):
    """As on a host that sees an old state of the shared folder."""
    config = fields.change(load_recipe(TINY_RECIPE), {})
    (index,) = (store / "index").iterdir()
    for name, steps in (("run", (6, 12)), ("stale", (6,))):
        checkpoints = Checkpoints(tmp_path / name / "checkpoints", keep=5)
        for step in steps:
            meta = Meta(step, changes.to_plain(config), open_store(store).hash, index.name, {}, {})
            leaf = {"kernel": jnp.ones(3)}
            checkpoints.save(State(jnp.int32(step), leaf, leaf, leaf), meta)
        checkpoints.close()
    run = Run(tmp_path, 2, [f"--config.data.store={store}"], {1: ["--workdir", str(tmp_path / "stale")]})
    ended = run.ends()
    check(ended, EXIT_USER_FAULT, "checkpoints = {'process 0': [6, 12], 'process 1': [6]}")
    assert list_steps(tmp_path / "run" / "checkpoints") == [6, 12]


@pytest.mark.slow
def test_shard_that_one_host_cannot_read(store, tmp_path):
    damaged = damaged_copy(store, tmp_path / "damaged")
    own = {0: [f"--config.data.store={store}"], 1: [f"--config.data.store={damaged}"]}
    ended = Run(tmp_path, 2, ENDLESS, own).ends()
    check(ended, EXIT_FAILURE, "StoreError", "segments-0000")
    assert "error: process 1 on " in ended[0].said
    assert not (tmp_path / "run" / "lock").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "process", "processes", "code", "words"),
    [
        ("full_disk", 1, 2, EXIT_USER_FAULT, "not saved"),
        ("full_disk", 0, 4, EXIT_USER_FAULT, "= 'not "),
        ("lost_lock", 0, 2, EXIT_USER_FAULT, "taken over by process"),
        ("bug", 1, 2, EXIT_FAILURE, "ZeroDivisionError: integer division or modulo by zero"),
        ("bug", 0, 2, EXIT_FAILURE, "ZeroDivisionError: integer division or modulo by zero"),
        ("bug_while_compiling", 1, 2, EXIT_FAILURE, "a compiler that fails on one host"),
        ("not_finite", "all", 2, EXIT_FAILURE, "loss or gradient is not finite"),
    ],
)
def test_error_of_one_process_ends_all(store, tmp_path, fault, process, processes, code, words):
    ended = Run(tmp_path, processes, [*ENDLESS, f"--config.data.store={store}"], fault=(fault, process)).ends()
    check(ended, code, words)
    assert fault == "lost_lock" or not (tmp_path / "run" / "lock").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("process", "processes"), [(1, 2), (2, 4), (0, 2)])
def test_killed_process_is_named_by_the_others(store, tmp_path, process, processes):
    run = Run(tmp_path, processes, [*ENDLESS, f"--config.data.store={store}"], fault=("killed", process))
    ended = run.ends()
    assert ended.pop(process).code == -signal.SIGKILL
    check(ended, EXIT_PEER_GONE, f"process {process}", "is gone, killed or cut off")


@pytest.mark.slow
@pytest.mark.parametrize("process", [0, 1])
def test_frozen_process_is_named_by_the_other(store, tmp_path, process):
    """As a host that hangs: its connections stay."""
    run = Run(tmp_path, 2, [*ENDLESS, f"--config.data.store={store}"], fault=("frozen", process))
    status, until = psutil.Process(run.processes[process].pid).status, time.monotonic() + 200
    while status() != psutil.STATUS_STOPPED and time.monotonic() < until:
        time.sleep(0.05)
    ended = run.ends(but=[process])
    check(ended, EXIT_PEER_GONE, f"process {process}", "is gone, killed or cut off")


@pytest.mark.slow
def test_processes_that_never_come_are_counted(repository):
    code = "from jaxbio.training.distributed import join\nwith join('localhost:{}', 3, {}, limit_s={}): pass"
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    start = [
        subprocess.Popen(
            [sys.executable, "-c", code.format(port, number, 8 + 8 * number)],
            stderr=subprocess.PIPE,
            text=True,
            cwd=repository,
        )
        for number in range(2)
    ]
    said = [process.communicate(timeout=100)[1] for process in start]
    assert [process.returncode for process in start] == [EXIT_PEER_GONE] * 2
    assert "are 2 of 3, from 127.0.0.1, 127.0.0.1" in said[0]
    assert "does not answer" in said[1]


@pytest.mark.slow
def test_four_processes_finish_together_and_leave_no_lock(store, tmp_path):
    words = [f"--config.data.store={store}", "--config.train.steps=12"]
    ended = Run(tmp_path, 4, words).ends()
    check(ended, 0)
    assert list_steps(tmp_path / "run" / "checkpoints") == [6, 12]
    assert not (tmp_path / "run" / "lock").exists()
    assert all(np.isfinite(json.loads(end.said.splitlines()[-1])["train/loss"]) for end in ended.values())
