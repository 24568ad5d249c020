"""The host's memory map: whole or absent, checked, built once."""

import os
import signal
import stat
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


# ---- patients' signals in a place that every user can reach


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_nobody_else_may_enter_the_folder_or_read_a_file(store, tmp_path, mask):
    before = os.umask(mask)
    try:
        open_cache(store, tmp_path / "cache")
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "cache") == 0o700
    assert {mode_of(path) for path in (tmp_path / "cache").iterdir()} == {0o600}


def test_a_folder_and_files_that_were_open_to_others_are_closed(store, segment_RCT, tmp_path):
    open_cache(store, tmp_path)
    tmp_path.chmod(0o777)
    for path in tmp_path.iterdir():
        path.chmod(0o666)
    np.testing.assert_array_equal(open_cache(store, tmp_path), segment_RCT)
    assert mode_of(tmp_path) == 0o700
    assert {mode_of(path) for path in tmp_path.iterdir()} == {0o600}


@pytest.mark.parametrize("dangling", [True, False])
def test_a_folder_that_is_a_link_is_refused_and_nothing_written_behind_it(store, tmp_path, dangling):
    if not dangling:
        (tmp_path / "target").mkdir()
    (tmp_path / "cache").symlink_to(tmp_path / "target")
    with pytest.raises(UserError, match="TMPDIR"):
        open_cache(store, tmp_path / "cache")
    assert dangling or not list((tmp_path / "target").iterdir())


@pytest.mark.parametrize("suffix", [".int16", ".lock"])
def test_a_link_in_the_folder_is_not_followed(store, segment_RCT, tmp_path, suffix):
    victim = tmp_path / "victim"
    victim.write_bytes(segment_RCT.tobytes())
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    (folder / f"{store.hash}{suffix}").symlink_to(victim)
    if suffix == ".lock":
        with pytest.raises(UserError, match=r"data\.cache"):
            open_cache(store, folder)
    else:
        np.testing.assert_array_equal(open_cache(store, folder), segment_RCT)
        assert not (folder / f"{store.hash}.int16").is_symlink()
    assert victim.read_bytes() == segment_RCT.tobytes()


@pytest.mark.parametrize("suffix", [".int16", ".lock"])
def test_a_pipe_in_the_folder_is_not_waited_for(store, segment_RCT, tmp_path, suffix):
    os.mkfifo(tmp_path / f"{store.hash}{suffix}")
    if suffix == ".lock":
        with pytest.raises(UserError, match=r"data\.cache"):
            open_cache(store, tmp_path)
    else:
        np.testing.assert_array_equal(open_cache(store, tmp_path), segment_RCT)


def test_a_file_system_without_locks_serves_too(store, segment_RCT, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(cache.fcntl, "flock", refuse)
    np.testing.assert_array_equal(open_cache(store, tmp_path), segment_RCT)


def test_another_fault_of_the_disk_asks_for_no_room(store, tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match=r"the disk or its mount fails.*data\.cache=none") as caught:
        open_cache(store, tmp_path)
    assert "room" not in str(caught.value)
