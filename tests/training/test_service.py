"""Which devices a process takes, by what the cluster that started it says of the others on its node."""

import os
import socket
import subprocess
import sys

import pytest

from jaxbio.training import peers, service

SLURM = {
    "SLURM_JOB_ID": "17",
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_NTASKS": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_TASKS_PER_NODE": "1",
}
OPEN_MPI = {
    "OMPI_MCA_orte_hnp_uri": "4096.0;tcp://127.0.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "1",
    "OMPI_COMM_WORLD_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "1",
}

CONNECT = """
import os
from jax._src import xla_bridge
from jaxbio.training import peers, service
service.connect(None, None, None, 60)
print("visible:", xla_bridge.CUDA_VISIBLE_DEVICES.value, flush=True)
os._exit(0)
"""


@pytest.mark.parametrize(
    ("cluster", "visible"),
    [
        (SLURM, "all"),
        pytest.param(SLURM | {"SLURM_STEP_TASKS_PER_NODE": "8(x4)"}, "0", marks=pytest.mark.slow),
        (SLURM | {"JAX_LOCAL_DEVICE_IDS": "2,3"}, "2,3"),
        pytest.param(OPEN_MPI, "all", marks=pytest.mark.slow),
    ],
)
def test_a_process_that_is_alone_on_its_node_takes_all_its_devices_or_those_that_are_named(
    repository, cluster, visible
):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, **cluster, "JAX_PLATFORMS": "cpu", "JAX_COORDINATOR_PORT": port}
    command = [sys.executable, "-c", CONNECT]
    done = subprocess.run(command, env=environment, cwd=repository, capture_output=True, text=True, timeout=100)
    assert done.stdout == f"visible: {visible}\n", done.stderr


@pytest.mark.parametrize(
    ("cluster", "alone"),
    [
        ({}, False),
        (SLURM, True),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "1(x16)"}, True),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "8(x4)"}, False),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "1,2"}, False),
        (OPEN_MPI, True),
        (OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "8"}, False),
        (OPEN_MPI | SLURM | {"OMPI_COMM_WORLD_LOCAL_SIZE": "8"}, False),
    ],
)
def test_who_is_alone_is_what_the_cluster_says_that_jax_finds(monkeypatch, cluster, alone):
    for name, value in cluster.items():
        monkeypatch.setenv(name, value)
    assert service.is_alone_on_node() is alone


def test_jax_ends_no_process_before_ours_have_ended_and_named_who_is_gone():
    sent_every_s = service.HEARTBEAT_S / 2  # what JAX calls lost is counted from the last one that came
    assert service.HEARTBEAT_S - sent_every_s > peers.LONGEST_END_S
