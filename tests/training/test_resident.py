"""A store on the devices: the rows and losses of a loader, to the last bit, whatever the mesh and the dispatch."""

import argparse
import dataclasses
import itertools
import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from linear_run import linear_objective
from prepared import prepare, small_config, write_archive
from simulated import xla_flags

from jaxbio.config.faults import UserError
from jaxbio.planning.flops import FlopCount
from jaxbio.planning.plan import make_plan
from jaxbio.planning.topology import parse_topology
from jaxbio.training.program import build_program
from jaxbio.training.run_data import open_run_data
from jaxbio.training.sharding import batch_sharding, make_mesh
from tools.plan import open_data, plan_one


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resident")
    first = prepare(write_archive(folder / "one", 10, minutes=4.2), folder / "A")
    second = prepare(write_archive(folder / "two", 6, first=40, minutes=4.2), folder / "B")
    return ((str(first.path), 0.7), (str(second.path), 0.3))


def config_of(**changes):
    settings = {"train__batch": 16, "train__steps": 8, "data__streams": 8, "log__every_steps": 2}
    return small_config(**(settings | changes))


def losses(config, stores, devices, start_step=0):
    """Return the losses of every step from `start_step` and the checksums of their rows."""
    data = open_run_data(config, stores)
    program = build_program(config, linear_objective(), devices=devices, plan_data=data.resident)
    found, rows = [], []
    with data.batches(program.mesh, start_step) as batches:
        first = next(batches)
        state = program.init(first.arrays)
        for batch in itertools.chain([first], batches):
            state, metrics = program.train_step(state, dict(batch.arrays))
            found += np.asarray(metrics["train/loss"]).tolist()
            rows += batch.rows_crc32
    return found, rows


@pytest.mark.parametrize("mesh", [(1, 1, 1), (4, 1, 2)])
def test_rows_are_those_that_a_loader_reads(stores, mesh):
    """Of several stores, under a curriculum, with labels of rows; on a mesh whose parts are held twice."""
    devices = jax.devices()[: np.prod(mesh)]
    config = config_of(
        data__curriculum=((0.5, 0.4), (1.0, 1.0)), data__cache="device", data__labels=("quality_waveform",)
    )
    read = config_of(data__curriculum=config.data.curriculum, data__labels=("quality_waveform",))
    check_rows(config, read, stores, make_mesh(*mesh, devices=devices))


def check_rows(config, config_of_loader, stores, mesh):
    """See that the devices draw, step by step, the arrays that a loader reads."""
    data, read = open_run_data(config, stores), open_run_data(config_of_loader, stores)
    resident = data.resident(mesh)
    source = resident.load(data.store)
    fetch = jax.jit(resident.fetch, out_shardings=batch_sharding(mesh))
    steps = 0
    with read.batches(mesh, 0) as batches:
        for batch in batches:
            drawn = fetch(source, np.int32(batch.step))
            assert drawn.keys() == batch.arrays.keys()
            for name, array in batch.arrays.items():
                assert drawn[name].dtype == array.dtype
                np.testing.assert_array_equal(np.asarray(drawn[name]), np.asarray(array)[0], err_msg=name)
            steps += 1
    assert steps == config.train.steps


@pytest.mark.parametrize("ways", [1, 2])
def test_neighbourhoods_are_those_that_a_loader_reads(stores, ways):
    settings = {
        "data__batching": "neighbourhoods",
        "data__neighbourhood": (6, 4),
        "train__batch": 8,
        "data__streams": 2,
    }
    mesh = make_mesh(ways, 1, 1, devices=jax.devices()[:ways])
    check_rows(config_of(**settings, data__cache="device"), config_of(**settings), stores, mesh)


def test_a_device_holds_the_segments_of_its_own_streams_alone(stores):
    data = open_run_data(config_of(data__cache="device"), stores[0][0])
    whole, split = (data.resident(make_mesh(ways, 1, 1, devices=jax.devices()[:ways])) for ways in (1, 8))
    (share,) = whole.shares
    np.testing.assert_array_equal(share.row_R, np.unique(data.train.rows_NM))
    assert split.abstract["share"]["segment_BMCT"].shape[1] < len(share.row_R)
    for part, own in enumerate(split.shares):
        drawn = np.concatenate([data.rows(step)[2 * part : 2 * part + 2].ravel() for step in range(200)])
        np.testing.assert_array_equal(np.unique(drawn), own.row_R)


@pytest.mark.parametrize("devices", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_losses_are_those_of_the_loader_to_the_last_bit(stores, devices):
    read = losses(config_of(), stores, jax.devices()[:devices])
    drawn = losses(config_of(data__cache="device"), stores, jax.devices()[:devices])
    assert len(read[0]) == 8
    assert drawn == read


@pytest.mark.slow
def test_several_steps_a_dispatch_draw_the_same_rows_and_resume_in_between(stores):
    config = config_of(train__steps_per_dispatch=4, log__every_steps=4, eval__every_steps=4)
    read, drawn = (losses(each, stores, jax.devices()[:2]) for each in (config, config_of(**DEVICE_4)))
    assert drawn == read
    assert losses(config_of(**DEVICE_4), stores, jax.devices()[:2], 4)[1] == read[1][4:]


DEVICE_4 = {"data__cache": "device", "train__steps_per_dispatch": 4, "log__every_steps": 4, "eval__every_steps": 4}


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 8])
def test_two_hundred_losses_of_device_host_and_none_are_the_same(stores, devices, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = [
        losses(config_of(train__steps=200, data__cache=cache), stores, jax.devices()[:devices])
        for cache in ("none", "host", "device")
    ]
    assert len(found[0][0]) == 200
    assert found[1] == found[0]
    assert found[2] == found[0]


def test_the_largest_batch_is_looked_for_with_the_data_of_each_and_not_beyond_the_pairs(stores, monkeypatch):
    monkeypatch.setattr("jaxbio.planning.plan.make_objective", lambda config, networks: linear_objective())
    monkeypatch.setattr("jaxbio.planning.flops.model_flops", lambda *_: FlopCount(1.0, {}))
    monkeypatch.setattr("jaxbio.planning.topology.open_topology", lambda topology: jax.devices()[:1])
    pairs = len(open_run_data(config_of(), stores[0][0]).train.rows_NM)
    largest = 2 ** (pairs.bit_length() - 1)
    config = config_of(data__cache="device", data__store=stores[0][0], train__batch=largest // 2)
    flags = argparse.Namespace(pairs=None, mfu=0.35, loader_pairs_per_s=None, largest_batch=True)
    assert plan_one(config, parse_topology("cpu:1"), {}, open_data(config), flags).largest_batch == largest


def test_a_store_larger_than_the_devices_memory_is_refused_with_its_bytes(stores, monkeypatch):
    config = config_of(data__cache="device")
    data = open_run_data(config, stores)
    monkeypatch.setattr("jaxbio.training.performance.memory_of", lambda devices: 1_000_000)
    with pytest.raises(UserError) as refused:
        build_program(config, linear_objective(), devices=jax.devices()[:1], plan_data=data.resident)
    (fault,) = refused.value.faults
    gigabytes = data.resident(make_mesh(1, 1, 1, devices=jax.devices()[:1])).bytes_per_device / 1e9
    assert (fault.field, fault.value) == ("data.cache", "device")
    assert f"{gigabytes:.2f} GB" in fault.remedy
    assert "data.cache=host" in fault.remedy


def test_a_plan_counts_the_segments_at_each_device(stores, monkeypatch):
    monkeypatch.setattr("jaxbio.planning.plan.make_objective", lambda config, networks: linear_objective())
    monkeypatch.setattr("jaxbio.planning.flops.model_flops", lambda *_: FlopCount(1.0, {}))
    data = open_run_data(config_of(data__cache="device"), stores)
    plan = make_plan(data.config, jax.devices()[:2], data=data)
    held = data.resident(make_mesh(2, 1, 1, devices=jax.devices()[:2])).bytes_per_device
    assert held > 10 * sum(plan.state_bytes.values())
    assert plan.next_batch_bytes == 0
    assert plan.step.arguments == pytest.approx(held + sum(plan.state_bytes.values()), rel=0.01)
    assert not dataclasses.replace(plan, memory_bytes=held).fits


@pytest.mark.slow
def test_two_processes_hold_their_devices_shares_and_draw_the_global_batch(stores, repository):
    code = """
import sys; sys.path[:0] = ["tests", "tests/training", "tests/data"]
import ast, jax, numpy as np
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(sys.argv[1], num_processes=2, process_id=int(sys.argv[2]))
from test_resident import config_of
from jaxbio.training.run_data import open_run_data
from jaxbio.training.sharding import batch_sharding, make_mesh
data = open_run_data(config_of(data__cache="device"), ast.literal_eval(sys.argv[3]))
devices = sorted(jax.devices(), key=lambda device: (device.id % 2, device.process_index, device.id))
mesh = make_mesh(4, 1, 1, devices=devices)
resident = data.resident(mesh)
source = resident.load(data.store)
assert len(source["share"]["row_BM"].addressable_shards) == 2
for step in range(3):
    drawn = jax.jit(resident.fetch, out_shardings=batch_sharding(mesh))(source, np.int32(step))
    for shard in drawn["row_BM"].addressable_shards:
        np.testing.assert_array_equal(shard.data, data.rows(step)[shard.index])
    for shard in drawn["segment_BMCT"].addressable_shards:
        rows = data.rows(step)[shard.index[0]]
        np.testing.assert_array_equal(np.asarray(shard.data)[:, 1], data.store.read(rows[:, 1]))
"""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": xla_flags(2),
        "JAX_ENABLE_COMPILATION_CACHE": "0",  # see compile_cache.use_cache_together
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, address, str(process), repr(stores)],
            cwd=repository,
            env=os.environ | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(2)
    ]
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors[0][-3000:] + errors[1][-3000:]
