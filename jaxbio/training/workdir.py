"""The run folder on disk: made, found writable, and held by one process at a time.

    with hold(Path("runs/quickstart")) as lock: ...

The folder lies on a file system (a shared one where several hosts train); only process 0 writes into it.
"""

import contextlib
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from jaxbio.config.faults import Fault, UserError

BEAT_S = 20.0
_BEATS_MISSED = 3


def check_writable(folder: Path) -> None:
    """Make `folder` and try to write in it. Raises UserError when either fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"jaxbio")
            file.flush()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(Fault("--workdir", str(folder), f"{reason}: name a folder that can be written")) from error


class Lock:
    """The lock of a workdir in the hands of this process: a file that names host and process, touched at every beat."""

    def __init__(self, folder: Path, beat_s: float):
        self.path, self._beat_s = folder / "lock", beat_s
        self._me = _describe_process(os.getpid())
        _acquire(self.path, self._me, beat_s)
        self._taken_by: dict[str, Any] | None = None
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lock", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise UserError when another process has taken the folder, as it may from one that stood still."""
        if self._taken_by is not None:
            raise UserError(
                Fault(
                    "--workdir",
                    str(self.path.parent),
                    f"taken over by {_name(self._taken_by)} while this process did not touch its lock; what was saved "
                    "is whole: leave the folder to that process, or stop it and start again",
                )
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
                os.utime(self.path)


@contextlib.contextmanager
def hold(folder: Path, beat_s: float = BEAT_S) -> Iterator[Lock]:
    """Hold `folder`'s lock for the time of a with block.

    The lock of a process of this host that is no more is taken over; that of another host only when its file has not
    been touched for three beats, which are waited for. Raises UserError when another process holds the folder.
    """
    lock = Lock(folder, beat_s)
    try:
        yield lock
    finally:
        lock.release()


def _acquire(path: Path, me: dict[str, Any], beat_s: float) -> None:
    """Make the lock file, atomically; where there is one, take it over or raise UserError."""
    own = path.with_name(f"lock.{me['host']}.{me['pid']}")
    own.write_text(json.dumps(me))
    try:
        os.link(own, path)
    except FileExistsError:
        holder = _read(path)
        if holder is not None and _is_alive(path, holder, beat_s):
            raise _held(path.parent, holder) from None
        os.replace(own, path)
        if _read(path) != me:
            raise UserError(
                Fault("--workdir", str(path.parent), "another process took it at this moment; start again")
            ) from None
    finally:
        own.unlink(missing_ok=True)


def _held(folder: Path, holder: dict[str, Any]) -> UserError:
    remedy = f"held by {_name(holder)}: wait for it, stop it, or name another --workdir"
    return UserError(Fault("--workdir", str(folder), remedy))


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
    touched, until = path.stat().st_mtime_ns, time.monotonic() + _BEATS_MISSED * beat_s
    while time.monotonic() < until:
        time.sleep(min(beat_s / 4, 1.0))
        if not path.exists():
            return False
        if path.stat().st_mtime_ns != touched:
            return True
    return False


def _read(path: Path) -> dict[str, Any] | None:
    """Return who holds the lock; None where there is none, or half of one of a process killed while it wrote."""
    try:
        holder = json.loads(path.read_text())
        return holder if {"host", "pid", "started", "since"} <= set(holder) else None
    except (OSError, ValueError):
        return None
