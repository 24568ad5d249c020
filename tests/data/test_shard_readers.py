"""A store has more shards than a process may open files."""

import gc
import os
import resource
import threading
from pathlib import Path

import numpy as np
import pytest
from array_store import random_segments, write_store

from jaxbio.data import shard_readers

SHARDS = 120


@pytest.fixture
def few_files():
    """The process may open forty files more than it has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = max(map(int, os.listdir("/proc/self/fd"))) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (held + 40, hard))
    yield held
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def open_shards(folder: Path) -> int:
    """How many files of shards in `folder` this process has open."""
    targets = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
    return sum(os.readlink(target).startswith(f"{folder}{os.sep}") for target in targets if os.path.lexists(target))


def test_a_store_of_more_shards_than_the_limit_of_open_files_is_read_by_threads(tmp_path, few_files, monkeypatch):
    monkeypatch.setattr(shard_readers, "_SHARE", 20 / (few_files + 40))
    segment_RCT = random_segments(2 * SHARDS)
    store = write_store(tmp_path / "store", segment_RCT, shards=SHARDS)
    failed = []

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(10):
            row_N = rng.integers(0, store.rows, 64)
            if not np.array_equal(store.read(row_N), segment_RCT[row_N]):
                failed.append(row_N)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert 0 < open_shards(tmp_path) <= 20


def test_readers_are_closed_with_their_store(tmp_path):
    first = write_store(tmp_path / "first", random_segments(20), shards=10)
    second = write_store(tmp_path / "second", random_segments(20), shards=2)
    first.read(np.arange(20))
    assert open_shards(tmp_path) == 10
    del first
    gc.collect()
    second.read(np.arange(20))
    assert open_shards(tmp_path) == 2
