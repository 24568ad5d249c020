"""Agreement between processes: real ones where it is slow, the rules of one process here."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from array_data import array_program, exact_values, run
from simulated import xla_flags

from jaxbio.config.faults import EXIT_PREEMPTED, EXIT_USER_FAULT, UserError
from jaxbio.training.agreement import Agreement, Decision
from jaxbio.training.checkpoint import list_steps
from jaxbio.training.clock import Clock
from jaxbio.training.distributed import join
from jaxbio.training.pace import Timer
from jaxbio.training.peers import ALONE


def test_one_process_decides_at_once():
    agreement = Agreement(ALONE, Timer(Clock()))
    for boundary, (save, stop) in enumerate([(False, False), (True, False), (False, True)]):
        assert agreement.at_boundary(boundary, save=save, stop=stop) == Decision(save, stop)


def test_half_a_cluster_names_what_is_missing():
    with pytest.raises(UserError) as error, join(coordinator="localhost:1", process=0):
        pass
    assert [fault.field for fault in error.value.faults] == ["--processes"]


def start(processes, devices, workdir, *stop_step):
    """Run `processes` processes to their end; return (exit code, standard output) of each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    script = Path(__file__).with_name("cluster_process.py")
    root = script.parent.parent.parent
    environment = os.environ | {
        "PYTHONPATH": f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": xla_flags(devices),
        "JAX_ENABLE_COMPILATION_CACHE": "0",  # see compile_cache.use_cache_together
    }
    started = [
        subprocess.Popen(
            [sys.executable, str(script), address, str(processes), str(number), str(workdir), *stop_step],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for number in range(processes)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in started]
    return [(process.returncode, output) for process, output in zip(started, outputs)]


@pytest.mark.slow
def test_one_preempted_process_stops_all_at_the_same_step_and_another_number_of_them_continues(tmp_path):
    stopped = start(2, 1, tmp_path / "run", "7")
    assert [code for code, _ in stopped] == [EXIT_PREEMPTED, EXIT_PREEMPTED]
    (saved,) = list_steps(tmp_path / "run" / "checkpoints")
    assert 7 < saved < 30
    ((code, output),) = start(1, 2, tmp_path / "run")
    assert code == 0
    assert json.loads(output.splitlines()[-1])["resumed_from"] == saved
    program = array_program(train__steps=30, checkpoint__every_steps=100, eval__every_steps=30)
    run(program, tmp_path / "whole")
    whole, continued = exact_values(tmp_path / "whole"), exact_values(tmp_path / "run")
    assert sorted(continued) == sorted(whole)
    for step in range(1, 31):
        values = whole[step]
        assert continued[step]["data/rows_crc32"] == values["data/rows_crc32"]
        assert continued[step]["train/loss"] == pytest.approx(values["train/loss"], rel=1e-5)


@pytest.mark.slow
def test_a_file_that_one_of_two_processes_finds_broken_ends_both_with_its_name(tmp_path, capfd):
    assert [code for code, _ in start(2, 1, tmp_path / "run", "7")] == [EXIT_PREEMPTED] * 2
    (saved,) = (tmp_path / "run" / "checkpoints").iterdir()
    broken = next(path for path in sorted((saved / "params").rglob("*")) if path.is_file())
    whole = broken.read_bytes()
    broken.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    capfd.readouterr()
    assert [code for code, _ in start(2, 1, tmp_path / "run")] == [EXIT_USER_FAULT] * 2
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) >= 2
    assert all(str(broken.relative_to(saved)) in line for line in said)
    broken.write_bytes(whole)
    assert [code for code, _ in start(2, 1, tmp_path / "run")] == [0, 0]
