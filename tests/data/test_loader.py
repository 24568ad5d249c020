"""Host batches: the same rows whatever hosts, threads and cache; exact from any step; errors and threads that end."""

import subprocess
import sys
import threading
import time
import zlib

import numpy as np
import pytest
from array_store import neighbours, random_segments, write_store

from jaxbio.data import shard_readers
from jaxbio.data.loader import make_loader
from jaxbio.data.order import make_order
from jaxbio.data.pairs import Index
from jaxbio.data.store import StoreError, open_store

ROWS = 1_500


@pytest.fixture(scope="module")
def segment_RCT():
    return random_segments(ROWS)


@pytest.fixture(scope="module")
def store(tmp_path_factory, segment_RCT):
    return write_store(tmp_path_factory.mktemp("loader") / "store", segment_RCT)


@pytest.fixture(scope="module")
def index():
    return neighbours(ROWS)


@pytest.fixture
def cache_dir(tmp_path):
    return tmp_path / "cache"


def order_of(index, batch, **options):
    return make_order(len(index.rows_NM), batch, streams=256, seed=11, **options)


def take(loader, count):
    with loader:
        return [next(loader) for _ in range(count)]


def assert_same(batch, expected):
    assert (batch.step, batch.rows_crc32) == (expected.step, expected.rows_crc32)
    for name, array in expected.arrays.items():
        np.testing.assert_array_equal(batch.arrays[name], array)


@pytest.mark.parametrize("cache", ["none", "host"])
def test_a_batch_holds_the_segments_scales_and_rows_of_its_pairs(store, index, segment_RCT, cache_dir, cache):
    order = order_of(index, 64)
    for step, batch in enumerate(take(make_loader(store, index, order, cache=cache, cache_dir=cache_dir), 3)):
        row_BM = index.rows_NM[order.draw(step)]
        assert batch.step == step
        assert batch.rows_crc32 == zlib.crc32(store.hash.encode() + row_BM.astype("<u4").tobytes())
        np.testing.assert_array_equal(batch.arrays["row_BM"], row_BM)
        np.testing.assert_array_equal(batch.arrays["segment_BMCT"], segment_RCT[row_BM])
        np.testing.assert_array_equal(batch.arrays["scale_BMC2"][..., 0], np.stack([row_BM, row_BM], axis=-1))
        types = {name: (array.dtype, array.ndim) for name, array in batch.arrays.items()}
        assert types == {"segment_BMCT": (np.int16, 4), "scale_BMC2": (np.float32, 4), "row_BM": (np.uint32, 2)}


@pytest.mark.parametrize("batch", [64, 512, 8192])
@pytest.mark.parametrize("hosts", [1, 2, 4, 8])
def test_hosts_together_hold_the_global_batch(store, index, batch, hosts):
    """Eight devices dealt to hosts in turn, so that no host's rows are one block."""
    order = order_of(index, batch)
    expected = take(make_loader(store, index, order, start_step=5), 2)
    of_device = np.arange(batch).reshape(8, -1)
    for host in range(hosts):
        positions = np.sort(of_device[host::hosts].reshape(-1))
        for held, whole in zip(take(make_loader(store, index, order, positions=positions, start_step=5), 2), expected):
            assert held.rows_crc32 == whole.rows_crc32
            for name, array in whole.arrays.items():
                np.testing.assert_array_equal(held.arrays[name], array[positions])


@pytest.mark.parametrize("batch", [64, 512])
@pytest.mark.parametrize("hosts", [2, 4, 8])
def test_hosts_of_contiguous_parts_share_at_most_a_shard_at_each_border(
    tmp_path, index, segment_RCT, batch, hosts, monkeypatch
):
    """Over a whole epoch, in which all shards are opened by somebody; a pair lies in one of 25 shards of 60 records."""
    within = index.rows_NM[:, 0] // 60 == index.rows_NM[:, 1] // 60
    index = Index(index.rows_NM[within], index.difficulty_N[within], "neighbours")
    opened = []
    reader = shard_readers.ArrayRecordReader
    monkeypatch.setattr(
        shard_readers, "ArrayRecordReader", lambda path, options: (opened[-1].add(path), reader(path, options))[1]
    )
    folder = write_store(tmp_path / "store", segment_RCT, shards=25).path
    order = order_of(index, batch)
    for positions in np.split(np.arange(batch), hosts):
        opened.append(set())
        loader = make_loader(open_store(folder), index, order, positions=positions)
        take(loader, -(-len(index.rows_NM) // batch))
    assert len(set.union(*opened)) == 25
    assert sum(map(len, opened)) - 25 <= hosts - 1


@pytest.mark.parametrize("batch", [64, 512, 8192])
@pytest.mark.parametrize("cache", ["none", "host"])
def test_threads_change_nothing(store, index, cache_dir, batch, cache):
    order, settings = order_of(index, batch), {"cache": cache, "cache_dir": cache_dir}
    expected = take(make_loader(store, index, order, read_threads=1, prefetch=1), 4)
    for threads in (1, 2, 4):
        loader = make_loader(store, index, order, read_threads=threads, prefetch=threads + 1, **settings)
        for batch_, whole in zip(take(loader, 4), expected):
            assert_same(batch_, whole)


def test_continues_exactly_from_any_step(store, index):
    order = order_of(index, 64)
    expected = take(make_loader(store, index, order), 120)
    for start in (1, 17, 71, 118):
        for batch, whole in zip(take(make_loader(store, index, order, start_step=start), 2), expected[start:]):
            assert_same(batch, whole)


def test_continues_exactly_across_the_stages_of_a_curriculum(store, index):
    stages = ((4, 0.4), (8, 1.0))
    order = order_of(index, 64, difficulty=index.difficulty_N, stages=stages)
    expected = take(make_loader(store, index, order), 12)
    for start in (2, 4, 7, 8):
        assert_same(take(make_loader(store, index, order, start_step=start), 1)[0], expected[start])
    assert (np.diff(expected[3].arrays["row_BM"].astype(int), axis=1) == 1).all()  # the easy pairs
    assert (np.diff(expected[11].arrays["row_BM"].astype(int), axis=1) > 1).any()


def test_stops_at_the_stop_step(store, index):
    with make_loader(store, index, order_of(index, 64), start_step=3, stop_step=6) as loader:
        assert [batch.step for batch in loader] == [3, 4, 5]


def test_batches_that_are_held_stay_as_they_are(store, index, segment_RCT):
    """Their memory is used again, but only once nobody looks at it."""
    loader, held = make_loader(store, index, order_of(index, 64)), []
    with loader:
        for step in range(40):
            batch = next(loader)
            if step % 4 == 0:
                held.append((batch.arrays["segment_BMCT"][5:7], batch.arrays["row_BM"][5:7]))
            del batch
    for segment_BMCT, row_BM in held:
        np.testing.assert_array_equal(segment_BMCT, segment_RCT[row_BM])


@pytest.mark.parametrize("cache", ["none", "host"])
def test_rows_outside_the_store_are_named(store, cache_dir, cache):
    index = neighbours(ROWS + 500)
    loader = make_loader(store, index, order_of(index, 512), cache=cache, cache_dir=cache_dir)
    with pytest.raises(IndexError, match=r"rows? \d+.* 1500"):
        take(loader, 1)


def test_a_damaged_shard_is_named_by_the_reading_thread(tmp_path, index):
    store = write_store(tmp_path / "store", random_segments(ROWS, length=5_000))
    shard = store.path / store.shards[1]["name"]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0x10
    shard.write_bytes(content)
    with pytest.raises(StoreError, match=r"segments-00001-of-00003.*records"):
        take(make_loader(store, index, order_of(index, 512)), 40)


def test_closing_ends_the_threads(store, index):
    before = set(threading.enumerate())
    loader = make_loader(store, index, order_of(index, 512), read_threads=4, prefetch=4)
    next(loader)
    assert set(threading.enumerate()) - before
    loader.close()
    loader.close()
    deadline = time.monotonic() + 10
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not set(threading.enumerate()) - before


def test_a_process_that_forgets_to_close_ends(store, repository):
    code = (
        "import sys; sys.path.insert(0, 'tests/data')\n"
        "from array_store import neighbours\n"
        "from jaxbio.data.loader import make_loader\n"
        "from jaxbio.data.order import make_order\n"
        "from jaxbio.data.store import open_store\n"
        f"index = neighbours({ROWS})\n"
        "order = make_order(len(index.rows_NM), 64, streams=256, seed=0)\n"
        "loader = make_loader(open_store(sys.argv[1]), index, order)\n"
        "print(next(loader).step)\n"
    )
    command = [sys.executable, "-c", code, str(store.path)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "0\n"


@pytest.mark.slow
def test_memory_stays_within_a_gibibyte(tmp_path, index):
    """A minute of batches of 512 pairs of QualityFM's segments, in a process of its own."""
    write_store(tmp_path / "store", random_segments(ROWS, length=9_000), rate_hz=300.0)
    code = (
        "import sys, time; sys.path.insert(0, 'tests/data')\n"
        "from pathlib import Path\n"
        "from array_store import neighbours\n"
        "from jaxbio.data.loader import make_loader\n"
        "from jaxbio.data.order import make_order\n"
        "from jaxbio.data.store import open_store\n"
        f"index = neighbours({ROWS})\n"
        "order = make_order(len(index.rows_NM), 512, streams=256, seed=0)\n"
        "until = time.monotonic() + 60\n"
        "with make_loader(open_store(sys.argv[1]), index, order) as loader:\n"
        "    while time.monotonic() < until:\n"
        "        next(loader)\n"
        "    status = Path('/proc/self/status').read_text()\n"
        "print(int(status.partition('VmRSS:')[2].split()[0]) * 1024)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    assert int(done.stdout) <= 2**30
