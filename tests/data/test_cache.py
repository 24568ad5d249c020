"""The host's memory map: whole or absent, checked, built once."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from array_store import random_segments, write_store

from jaxbio.config.faults import UserError
from jaxbio.data import cache
from jaxbio.data.cache import open_cache


@pytest.fixture(scope="module")
def segment_RCT():
    return random_segments(300)


@pytest.fixture(scope="module")
def store(tmp_path_factory, segment_RCT):
    return write_store(tmp_path_factory.mktemp("cache") / "store", segment_RCT)


def test_the_map_holds_every_segment_and_is_read_only(store, segment_RCT, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "CHUNK_BYTES", 7_000)  # in several pieces
    segments = open_cache(store, tmp_path)
    np.testing.assert_array_equal(segments, segment_RCT)
    assert not segments.flags.writeable
    assert {path.suffix for path in tmp_path.iterdir()} == {".int16", ".lock"}


def test_a_map_that_is_there_is_used_as_it_is(store, tmp_path):
    open_cache(store, tmp_path)
    path = tmp_path / f"{store.hash}.int16"
    before = path.stat()
    open_cache(store, tmp_path)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("damage", ["truncated", "other content"])
def test_a_map_that_is_not_the_stores_is_built_again(store, segment_RCT, tmp_path, damage):
    path = tmp_path / f"{store.hash}.int16"
    content = segment_RCT[:-1] if damage == "truncated" else segment_RCT[::-1]
    path.write_bytes(np.ascontiguousarray(content).tobytes())
    np.testing.assert_array_equal(open_cache(store, tmp_path), segment_RCT)


def test_threads_that_open_together_build_once(store, segment_RCT, tmp_path, monkeypatch):
    built, write = [], cache._write_cache
    monkeypatch.setattr(cache, "_write_cache", lambda path, store: (built.append(path), write(path, store)))
    opened: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: opened.append(open_cache(store, tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert len(opened) == 4
    for segments in opened:
        np.testing.assert_array_equal(segments, segment_RCT)


def test_a_killed_build_leaves_nothing_that_looks_finished(store, segment_RCT, tmp_path, repository):
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from jaxbio.data import cache\n"
        "from jaxbio.data.store import Store, open_store\n"
        "read = Store.read\n"
        "cache.CHUNK_BYTES = 7_000\n"
        "Store.read = lambda *rows: (time.sleep(0.05), print('reading', flush=True), read(*rows))[-1]\n"
        "cache.open_cache(open_store(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", code, str(store.path), str(tmp_path)]
    with subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        process.stdout.readline()
        time.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / f"{store.hash}.int16").exists()
    np.testing.assert_array_equal(open_cache(store, tmp_path), segment_RCT)


def test_a_disk_without_room_is_named(store, tmp_path, monkeypatch):
    full = os.statvfs_result((1, 1, 0, 0, 0, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    with pytest.raises(UserError, match="TMPDIR"):
        open_cache(store, tmp_path)


def test_a_disk_that_fills_while_writing_is_named(store, tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match="has no room"):
        open_cache(store, tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".lock"}


def test_another_users_folder_is_refused(store, tmp_path, monkeypatch):
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    with pytest.raises(UserError, match="another user"):
        open_cache(store, tmp_path)
