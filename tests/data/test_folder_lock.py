"""A folder held by one process, on file systems of every kind."""

import contextlib
import errno
import json
import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from jaxbio.config.faults import UserError
from jaxbio.data import folder_lock
from jaxbio.data.folder_lock import hold


def wait_for(condition, seconds=10.0):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()


@pytest.fixture(
    params=[None, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES, errno.EMLINK, errno.EXDEV, errno.EINVAL],
    ids=lambda number: "links" if number is None else errno.errorcode[number],
)
def file_system(request, monkeypatch):
    """A file system with hard links, or one that refuses them as some FUSE mount, SMB or exFAT does."""

    def link(source, *_):
        raise OSError(request.param, os.strerror(request.param), str(source))

    if request.param is not None:
        monkeypatch.setattr(os, "link", link)


def test_second_process_on_a_workdir_is_refused_and_named(tmp_path):
    code = """
    import pathlib, sys
    from jaxbio.data.folder_lock import hold
    with hold(pathlib.Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
    """
    other = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"process {other.pid} on"), hold(tmp_path):
        pass
    other.communicate("")
    assert not (tmp_path / "lock").exists()
    with hold(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_lock_of_a_dead_process_is_taken_over(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_lock, "_WRITTEN_WITHIN_S", 0.2)
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    mine = folder_lock._describe_process(os.getpid())
    for stale in (mine | {"pid": process.pid}, mine | {"started": mine["started"] - 60}):
        (tmp_path / "lock").write_text(json.dumps(stale))
        with hold(tmp_path):
            assert json.loads((tmp_path / "lock").read_text()) == mine
    (tmp_path / "lock").write_text('{"host": "ha')  # killed while it wrote
    with hold(tmp_path):
        assert json.loads((tmp_path / "lock").read_text()) == mine


def test_lock_of_another_host_is_taken_over_only_when_it_has_stopped_beating(tmp_path):
    lock = tmp_path / "lock"
    lock.write_text(json.dumps(folder_lock._describe_process(os.getpid()) | {"host": "elsewhere"}))
    done = threading.Event()

    def beat():
        while not done.wait(0.02):
            os.utime(lock)

    beating = threading.Thread(target=beat)
    beating.start()
    with pytest.raises(UserError, match="elsewhere"), hold(tmp_path, beat_s=0.1):
        pass
    done.set()
    beating.join()
    with hold(tmp_path, beat_s=0.1):
        assert json.loads(lock.read_text())["pid"] == os.getpid()


def test_held_lock_beats(tmp_path):
    with hold(tmp_path, beat_s=0.02) as lock:
        first = lock.path.stat().st_mtime_ns
        assert wait_for(lambda: lock.path.stat().st_mtime_ns > first)
        lock.check()


def test_lock_that_another_process_took_over_is_noticed_and_left_to_it(tmp_path):
    """As by a process of another host, while this one stood still for three beats."""
    with hold(tmp_path, beat_s=0.02) as lock:
        taker = folder_lock._describe_process(os.getpid()) | {"host": "elsewhere"}
        (tmp_path / "other").write_text(json.dumps(taker))
        os.replace(tmp_path / "other", lock.path)

        def is_noticed():
            with contextlib.suppress(UserError):
                lock.check()
                return False
            return True

        assert wait_for(is_noticed)
        with pytest.raises(UserError, match=r"taken over by process \d+ on elsewhere"):
            lock.check()
    assert json.loads(lock.path.read_text()) == taker


# ---- file systems without hard links


def test_a_folder_is_held_and_given_back_whatever_link_says(file_system, tmp_path):
    with hold(tmp_path) as lock:
        assert json.loads(lock.path.read_text())["pid"] == os.getpid()
        assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    assert list(tmp_path.iterdir()) == []


def test_only_one_of_many_that_come_at_once_holds_the_folder(file_system, tmp_path, monkeypatch):
    holder = folder_lock._describe_process(os.getpid())
    numbers = iter(range(1000))
    # Threads of this process pass for processes: each tells another start, and all are alive.
    monkeypatch.setattr(folder_lock, "_describe_process", lambda pid: holder | {"since": str(next(numbers))})
    monkeypatch.setattr(folder_lock, "unfinished_path", lambda path: path.with_name(f".{threading.get_ident()}"))
    held, refused, start = [], [], threading.Barrier(8)

    def come():
        start.wait()
        try:
            held.append(folder_lock.Lock(tmp_path, 20.0, "--workdir"))
        except UserError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=come) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for lock in held:
        lock.release()
    assert (len(held), len(refused)) == (1, 7)
    assert all("held by process" in line for line in refused)


def test_a_lock_that_is_being_written_is_waited_for(tmp_path):
    lock = tmp_path / "lock"
    lock.touch()  # made by another process, which has not filled it yet
    holder = json.dumps(folder_lock._describe_process(os.getpid()))
    for content in (holder[:20], holder):
        threading.Timer(0.2 if content == holder else 0.1, lock.write_text, [content]).start()
    with pytest.raises(UserError, match="held by"), hold(tmp_path):
        pass
    assert lock.read_text() == holder


def test_half_a_lock_of_a_killed_process_is_taken_over(file_system, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_lock, "_WRITTEN_WITHIN_S", 0.1)
    for content in ("", "{", "null", "[]", '"text"'):
        (tmp_path / "lock").write_text(content)
        with hold(tmp_path) as lock:
            assert json.loads(lock.path.read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_file_is_named_not_waited_for(make, tmp_path):
    make(tmp_path / "lock")
    with pytest.raises(UserError, match=r"no regular file.*remove it"), hold(tmp_path):
        pass


def test_a_lock_beats_where_times_cannot_be_set(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    with hold(tmp_path, beat_s=0.02) as lock:
        monkeypatch.setattr(os, "utime", refuse)
        first = lock.path.stat().st_mtime_ns
        assert wait_for(lambda: lock.path.stat().st_mtime_ns > first)
        lock.check()
    assert wait_for(lambda: not lock.path.exists())


def test_a_refusal_names_the_flag_and_what_it_named(tmp_path):
    with (
        hold(tmp_path),
        pytest.raises(UserError, match=r"--out = '/a/store'.*name another --out"),
        hold(tmp_path, field="--out", named="/a/store"),
    ):
        pass
