"""Worker processes of a preparation: they end with their parent, and leave Ctrl-C to it.

with open_pool(workers) as pool:
    futures = [pool.submit(write_shard, *job) for job in jobs]
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor


@contextlib.contextmanager
def open_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Open `workers` processes for the time of a with block; work that has begun is finished before it ends.

    An interrupt is raised in the with block as KeyboardInterrupt and ends the workers at once, with the work they do.
    """
    # Spawned: the parent may hold threads (a launcher's JAX), which a fork would not survive.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_leave_with_parent) as pool, _interrupt_raised():
        others = set(multiprocessing.active_children())
        with _interrupt_blocked():  # workers inherit this, and print no traceback
            for _ in range(workers):
                pool.submit(os.getpid)  # starts a worker where none is idle
        try:
            yield pool
        except (KeyboardInterrupt, GeneratorExit):  # the latter where whoever takes the results was interrupted
            for worker in set(multiprocessing.active_children()) - others:
                worker.kill()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _interrupt_raised() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt, whatever a command has made of it; only the main thread may say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, wakeup = signal.signal(signal.SIGINT, signal.default_int_handler), signal.set_wakeup_fd(-1)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _interrupt_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_with_parent() -> None:
    """End this worker when its parent is gone, so that a killed preparation leaves nobody writing."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
