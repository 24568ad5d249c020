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


def check_free(folder: Path) -> None:
    """Raise UserError when a living process of this host holds `folder`: before a device is touched."""
    holder = _read(folder / "lock")
    if holder is not None and holder["host"] == socket.gethostname() and _is_alive(folder / "lock", holder, 0.0):
        raise _held(folder, holder)


@contextlib.contextmanager
def hold(folder: Path, beat_s: float = BEAT_S) -> Iterator[Path]:
    """Hold `folder`'s lock, a file `lock` that names host and process, for the time of a with block.

    The lock of a process of this host that is no more is taken over; that of another host only when its file has not
    been touched for three beats, which are waited for. Raises UserError when another process holds the folder.
    """
    path = folder / "lock"
    me = _describe_process(os.getpid())
    _acquire(path, me, beat_s)
    done = threading.Event()
    thread = threading.Thread(target=_beat, args=(path, done, beat_s), name="lock", daemon=True)
    thread.start()
    try:
        yield path
    finally:
        done.set()
        thread.join()
        if _read(path) == me:
            path.unlink(missing_ok=True)


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
    who = f"process {holder['pid']} on {holder['host']} (started {holder['since']})"
    return UserError(Fault("--workdir", str(folder), f"held by {who}: wait for it, stop it, or name another --workdir"))


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


def _beat(path: Path, done: threading.Event, beat_s: float) -> None:
    while not done.wait(beat_s):
        with contextlib.suppress(FileNotFoundError):
            os.utime(path)
