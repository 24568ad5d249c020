"""Device batches: every device gets its rows, ahead of the step; errors and threads end where they should."""

import os
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator

import jax
import numpy as np
import pytest
from simulated import xla_flags

from jaxbio.data.buffers import Buffers
from jaxbio.data.loader import HostBatch
from jaxbio.training.feed import local_positions, make_feed, place_batches
from jaxbio.training.sharding import dispatch_sharding, make_mesh

BATCH = 16


def host_batch(step: int, positions: np.ndarray | None = None) -> HostBatch:
    row_BM = (step * BATCH * 2 + np.arange(BATCH * 2)).reshape(BATCH, 2).astype(np.uint32)
    segment_BMCT = np.broadcast_to(row_BM.astype(np.int16)[:, :, None, None], (BATCH, 2, 2, 6)).copy()
    scale_BMC2 = np.broadcast_to(row_BM.astype(np.float32)[:, :, None, None], (BATCH, 2, 2, 2)).copy()
    crc32 = zlib.crc32(row_BM.tobytes())
    arrays = {"segment_BMCT": segment_BMCT, "scale_BMC2": scale_BMC2, "row_BM": row_BM}
    return HostBatch(
        step, crc32, {name: array if positions is None else array[positions] for name, array in arrays.items()}
    )


def host_batches(count: int) -> Iterator[HostBatch]:
    return (host_batch(step) for step in range(count))


LAYOUTS = [(8, 1, 1), (2, 2, 2), (1, 4, 2), (1, 1, 8)]


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_global_arrays_hold_every_steps_rows_in_place(layout, steps):
    mesh = make_mesh(*layout)
    with make_feed(host_batches(7), mesh, steps) as feed:
        dispatches = list(feed)
    assert [batches.step for batches in dispatches] == list(range(0, 7 - steps + 1, steps))
    for batches in dispatches:
        expected = [host_batch(step) for step in range(batches.step, batches.step + steps)]
        assert batches.rows_crc32 == tuple(batch.rows_crc32 for batch in expected)
        for name, array in batches.arrays.items():
            assert array.sharding.is_equivalent_to(dispatch_sharding(mesh), array.ndim)
            np.testing.assert_array_equal(array, np.stack([batch.arrays[name] for batch in expected]))
            assert array.dtype == expected[0].arrays[name].dtype


@pytest.mark.parametrize("order", [range(8), [0, 4, 1, 5, 2, 6, 3, 7], [7, 2, 5, 0, 3, 6, 1, 4]])
def test_every_device_holds_its_rows_whatever_their_order(order):
    mesh = make_mesh(4, 2, 1, devices=[jax.devices()[place] for place in order])
    row_BM = place_batches([host_batch(3)], mesh).arrays["row_BM"]
    for shard in row_BM.addressable_shards:
        place = list(order).index(shard.device.id)
        np.testing.assert_array_equal(shard.data[0], host_batch(3).arrays["row_BM"][place * 2 : place * 2 + 2])


@pytest.mark.parametrize("steps", [1, 2])
def test_device_arrays_stay_while_the_loaders_memory_is_used_again(steps):
    """JAX on a CPU may look into the host's array instead of copying it."""
    buffers = Buffers("<i2")

    def recycled() -> Iterator[HostBatch]:
        for step in range(16):
            segment_BMCT = buffers.take((BATCH, 2, 2, 512))
            segment_BMCT[...] = step
            yield HostBatch(step, 0, {"segment_BMCT": segment_BMCT})

    with make_feed(recycled(), make_mesh(1, 1, 1, devices=jax.devices()[:1]), steps) as feed:
        for batches in list(feed):
            expected = batches.step + np.arange(steps)
            np.testing.assert_array_equal(batches.arrays["segment_BMCT"][:, 3, 1, 1, 7], expected)


def test_one_process_holds_all_positions():
    assert local_positions(make_mesh(2, 2, 2), BATCH) is None


class SomeDevices:
    """A sharding of which this process sees only some devices, as on one host of several."""

    def __init__(self, sharding, devices):
        self._sharding, self._devices = sharding, devices

    def addressable_devices_indices_map(self, shape):
        held = self._sharding.devices_indices_map(shape)
        return {device: index for device, index in held.items() if device in self._devices}


@pytest.mark.parametrize("hosts", [1, 2, 4, 8])
@pytest.mark.parametrize("batch", [64, 512, 8192])
@pytest.mark.parametrize("order", [range(8), [0, 4, 1, 5, 2, 6, 3, 7]])
def test_positions_of_the_hosts_cover_the_batch_once(monkeypatch, hosts, batch, order):
    from jaxbio.training import feed, sharding

    devices, whole = jax.devices(), sharding.batch_sharding
    mesh = make_mesh(4, 2, 1, devices=[devices[place] for place in order])
    found = []
    for host in range(hosts):
        local = devices[host * 8 // hosts : (host + 1) * 8 // hosts]
        monkeypatch.setattr(sharding, "batch_sharding", lambda mesh, local=local: SomeDevices(whole(mesh), local))
        positions = feed.local_positions(mesh, batch)
        positions = np.arange(batch) if positions is None else positions
        assert (np.diff(positions) > 0).all()
        place = [list(order).index(device.id) for device in local]
        assert set(positions // (batch // 8)) == set(place)
        found.append(positions)
    np.testing.assert_array_equal(np.sort(np.concatenate(found)), np.arange(batch))


def test_the_next_dispatch_is_placed_while_the_caller_computes():
    def slow() -> Iterator[HostBatch]:
        for step in range(6):
            time.sleep(0.1)
            yield host_batch(step)

    waited_s = 0.0
    with make_feed(slow(), make_mesh(8, 1, 1), 1) as feed:
        next(feed)
        for _ in range(4):
            time.sleep(0.3)  # the step
            started = time.perf_counter()
            next(feed)
            waited_s += time.perf_counter() - started
    assert waited_s < 0.2  # reading alone took 0.4


def test_an_error_of_the_loader_is_raised_at_its_dispatch():
    def broken() -> Iterator[HostBatch]:
        yield host_batch(0)
        raise RuntimeError("segments-00003-of-00009: record 17")

    with make_feed(broken(), make_mesh(8, 1, 1), 1) as feed:
        assert next(feed).step == 0
        with pytest.raises(RuntimeError, match="segments-00003"):
            next(feed)


def test_closing_ends_the_worker_and_the_loader():
    closed, before = [], set(threading.enumerate())

    def endless() -> Iterator[HostBatch]:
        try:
            for step in range(10**9):
                yield host_batch(step)
        finally:
            closed.append(True)

    feed = make_feed(endless(), make_mesh(8, 1, 1), 2, ahead=3)
    next(feed)
    feed.close()
    assert closed
    assert not set(threading.enumerate()) - before


@pytest.mark.slow
def test_two_processes_build_the_same_global_batches(tmp_path, repository):
    """Two real processes with four devices each, in an order that interleaves them: each holds its rows."""
    code = """
import sys; sys.path[:0] = ["tests", "tests/training"]
import jax, numpy as np
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(sys.argv[1], num_processes=2, process_id=int(sys.argv[2]))
from test_feed import BATCH, host_batch
from jaxbio.training.feed import local_positions, make_feed
from jaxbio.training.sharding import make_mesh
devices = sorted(jax.devices(), key=lambda device: (device.id % 2, device.process_index, device.id))
mesh = make_mesh(4, 2, 1, devices=devices)
positions = local_positions(mesh, BATCH)
assert positions.size == BATCH // 2 and (np.diff(positions) > 1).any(), positions
with make_feed((host_batch(step, positions) for step in range(4)), mesh, 2) as feed:
    batches = [next(feed), next(feed)]
for batch in batches:
    assert batch.arrays["row_BM"].shape == (2, BATCH, 2)
    for shard in batch.arrays["row_BM"].addressable_shards:
        whole = np.stack([host_batch(batch.step + k).arrays["row_BM"] for k in range(2)])
        np.testing.assert_array_equal(shard.data, whole[shard.index])
    total = jax.jit(lambda row: row.sum())(batch.arrays["row_BM"])
    with open(sys.argv[3], "a") as seen:
        print(batch.step, int(total), batch.rows_crc32, file=seen)
"""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": xla_flags(4),
        "JAX_ENABLE_COMPILATION_CACHE": "0",  # see compile_cache.use_cache_together
    }
    processes = [
        subprocess.Popen(
            # what was seen goes into a file: the collectives' threads write to the standard output as they please
            [sys.executable, "-c", code, address, str(process), str(tmp_path / f"{process}.txt")],
            cwd=repository,
            env=os.environ | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors[0][-3000:] + errors[1][-3000:]
    seen = [(tmp_path / f"{process}.txt").read_text() for process in range(2)]
    assert len(seen[0].splitlines()) == 2
    assert seen[0] == seen[1]
