"""Worker processes of a preparation: they end with their parent, and leave Ctrl-C to it.

with open_pool(workers) as pool:
    futures = [pool.submit(write_shard, *job) for job in jobs]
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from types import FrameType
from typing import Any


@contextlib.contextmanager
def open_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Open `workers` processes for the time of a with block; work that has begun is finished before it ends.

    An interrupt is raised in the with block as KeyboardInterrupt and ends the workers at once, with the work they do.
    """
    # Spawned: the parent may hold threads (a launcher's JAX), which a fork would not survive.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_leave_with_parent) as pool, _interrupt_raised():
        others = set(multiprocessing.active_children())
        try:
            with _interrupt_deferred():
                for _ in range(workers):
                    pool.submit(os.getpid)  # starts a worker where none is idle
            yield pool
        except (KeyboardInterrupt, GeneratorExit):  # the latter where whoever takes the results was interrupted
            for worker in set(multiprocessing.active_children()) - others:
                worker.kill()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _interrupt_raised() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt, whatever a command has made of it."""
    with _handling(signal.default_int_handler):
        before = signal.set_wakeup_fd(-1) if _in_main_thread() else -1
        try:
            yield
        finally:
            if _in_main_thread():
                signal.set_wakeup_fd(before)


@contextlib.contextmanager
def _interrupt_deferred() -> Iterator[None]:
    """Raise KeyboardInterrupt behind the with block where SIGINT came in it; processes that start there are deaf to it.

    So no worker is interrupted while it starts, nor left without what its parent was about to send: both show as
    tracebacks.
    """
    came: list[int] = []
    with _handling(lambda number, frame: came.append(number)):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if came:
        raise KeyboardInterrupt


@contextlib.contextmanager
def _handling(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Handle SIGINT by `handler`; only the main thread may say so, and elsewhere nothing is changed."""
    before = signal.signal(signal.SIGINT, handler) if _in_main_thread() else None
    try:
        yield
    finally:
        if _in_main_thread():
            signal.signal(signal.SIGINT, before)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _leave_with_parent() -> None:
    """End this worker when its parent is gone, so that a killed preparation leaves nobody writing."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
