"""A folder held by one process at a time, on any file system, with a lock file that says by whom.

    with hold(Path("runs/quickstart")) as lock: ...

Nothing is asked of the file system but a file that only one process can make: no flock, and hard links where there are
any.
"""

import contextlib
import errno
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.regular_files import NotRegularError, read_text
from jaxbio.data.whole_files import unfinished_path, whole_file

BEAT_S = 20.0
_BEATS_MISSED = 3
# How long a lock without content is taken for one that is being written, where there are no hard links.
_WRITTEN_WITHIN_S = 5.0


class Lock:
    """The lock of a folder in the hands of this process: a file that names host and process, touched at every beat.

    `field` is the flag that names the folder, for the words of a refusal, `named` what it names where that is not the
    folder itself.
    """

    def __init__(self, folder: Path, beat_s: float, field: str, named: Path | None = None):
        self.path, self._beat_s = folder / "lock", beat_s
        self._field, self._named = field, str(named or folder)
        self._me = _describe_process(os.getpid())
        self._acquire()
        self._taken_by: dict[str, Any] | None = None
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lock", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise UserError when another process has taken the folder, as it may from one that stood still."""
        if self._taken_by is not None:
            raise self._refusal(
                f"taken over by {_name(self._taken_by)} while this process did not touch its lock; what was saved "
                "is whole: leave the folder to that process, or stop it and start again"
            )

    def release(self) -> None:
        """Give the folder back, unless another process has it; from any thread, more than once."""
        self._released.set()
        if _read(self.path) == self._me:
            self.path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._released.wait(self._beat_s):
            holder = _read(self.path)
            if holder is not None and holder != self._me:
                self._taken_by = holder
                return
            with contextlib.suppress(OSError):  # a file system that is away for a while: the next beat tries again
                _touch(self.path)

    def _acquire(self) -> None:
        """Make the lock file, whole at once; where there is one, take it over or raise UserError."""
        if _make(self.path, self._me):
            return
        try:
            holder = _read_when_written(self.path)
        except NotRegularError as error:
            raise self._refusal(f"{error}: remove it") from None
        if holder is not None and _is_alive(self.path, holder, self._beat_s):
            remedy = f"held by {_name(holder)}: wait for it, stop it, or name another {self._field}"
            raise self._refusal(remedy)
        with whole_file(self.path) as unfinished:
            unfinished.write_text(json.dumps(self._me))
        if _read(self.path) != self._me:
            raise self._refusal("another process took it at this moment; start again")

    def _refusal(self, remedy: str) -> UserError:
        return UserError(Fault(self._field, self._named, remedy))


@contextlib.contextmanager
def hold(
    folder: Path, beat_s: float = BEAT_S, *, field: str = "--workdir", named: Path | None = None
) -> Iterator[Lock]:
    """Hold `folder`'s lock for the time of a with block.

    The lock of a process of this host that is no more is taken over; that of another host only when its file has not
    been touched for three beats, which are waited for. Raises UserError when another process holds the folder.
    """
    lock = Lock(folder, beat_s, field, named)
    try:
        yield lock
    finally:
        lock.release()


def name_holder(folder: Path, beat_s: float = BEAT_S) -> str | None:
    """Return which living process holds `folder`'s lock, in words, or None; the lock is left alone.

    A process of another host shows within three beats whether it lives.
    """
    holder = _read(folder / "lock")
    return _name(holder) if holder is not None and _is_alive(folder / "lock", holder, beat_s) else None


def _make(path: Path, me: dict[str, Any]) -> bool:
    """Make the lock file where there is none, and return whether it was made.

    A link makes it with its content. Many file systems have none (mounted buckets, SMB, exFAT, virtiofs), and say so by
    many error numbers: there the file is made empty, by one process alone, and then filled.
    """
    own = unfinished_path(path)
    own.write_text(json.dumps(me))
    try:
        os.link(own, path)
    except FileExistsError:
        return False
    except OSError:
        return _make_alone(path, me)
    finally:
        own.unlink(missing_ok=True)
    return True


def _make_alone(path: Path, me: dict[str, Any]) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w") as file:
        file.write(json.dumps(me))
    return True


def _touch(path: Path) -> None:
    """Let the lock's time be now; where times cannot be set, write its content again."""
    try:
        os.utime(path)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
            raise
        with whole_file(path) as unfinished:
            unfinished.write_text(path.read_text())


def _name(holder: dict[str, Any]) -> str:
    return f"process {holder['pid']} on {holder['host']} (started {holder['since']})"


def _describe_process(pid: int) -> dict[str, Any]:
    started = psutil.Process(pid).create_time()
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(started))
    return {"host": socket.gethostname(), "pid": pid, "started": started, "since": since}


def _is_alive(path: Path, holder: dict[str, Any], beat_s: float) -> bool:
    """Tell whether the process that wrote the lock still runs; pids are used again, so its start counts too."""
    if holder["host"] == socket.gethostname():
        try:
            return abs(psutil.Process(holder["pid"]).create_time() - holder["started"]) < 1.0
        except psutil.NoSuchProcess:
            return False
    try:
        touched, until = path.stat().st_mtime_ns, time.monotonic() + _BEATS_MISSED * beat_s
        while time.monotonic() < until:
            time.sleep(min(beat_s / 4, 1.0))
            if path.stat().st_mtime_ns != touched:
                return True
    except FileNotFoundError:
        pass  # given back meanwhile
    return False


def _read_when_written(path: Path) -> dict[str, Any] | None:
    """Return who holds the lock; one without whole content is waited for a little, as it may be being written.

    None where there is no lock any more, or half of one that a killed process left. Raises NotRegularError.
    """
    until = time.monotonic() + _WRITTEN_WITHIN_S
    while (holder := _read(path)) is None and path.exists() and time.monotonic() < until:
        if not path.is_file():
            raise NotRegularError(path)
        time.sleep(0.05)
    return holder


def _read(path: Path) -> dict[str, Any] | None:
    """Return who holds the lock; None where there is none, or half of one."""
    try:
        holder = json.loads(read_text(path))
        return holder if {"host", "pid", "started", "since"} <= set(holder) else None
    except (OSError, ValueError, TypeError):
        return None
