"""Signals that end a command: heard by a thread of their own, and answered in words instead of a traceback.

The main thread may import, compile or wait for a device, and is deaf meanwhile. A command that has nothing to save ends
at once: what jaxbio writes appears under its name only when it is whole, so nothing has to be unwound.

    end_at_once(EXIT_INTERRUPTED)                                          # for the rest of the process
    with keeping("finished shards are kept; start the same line again"): ...
"""

import contextlib
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType, TracebackType

_TIDY_S = 2.0
_UNCHANGED = "nothing was changed, what was there is kept; start the same line again"
# What is kept and what to call before leaving, the innermost last.
_kept: list[tuple[str, Callable[[], object] | None]] = [(_UNCHANGED, None)]


class Listener:
    """Calls `answer(number)` in a thread of its own for each of `signals` that comes while it is open."""

    def __init__(self, signals: Sequence[signal.Signals], answer: Callable[[signal.Signals], None]):
        self._signals, self._answer = signals, answer
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> "Listener":
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._previous_fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in self._signals:
            self._previous[number] = signal.signal(number, _wake_only)
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal itself returned
        signal.set_wakeup_fd(self._previous_fd)
        os.close(self._write)
        self._thread.join()
        os.close(self._read)

    def _listen(self) -> None:
        while received := os.read(self._read, 1):
            if received[0] in self._signals:
                self._answer(signal.Signals(received[0]))


def end_at_once(code: int, signals: Sequence[signal.Signals] = (signal.SIGINT,)) -> None:
    """From now on answer `signals` by `leave`, wherever the main thread is."""
    Listener(signals, lambda number: leave(number.name, code)).__enter__()


@contextlib.contextmanager
def keeping(words: str, tidy: Callable[[], object] | None = None) -> Iterator[None]:
    """For the time of a with block let `leave` say `words`: what is kept, and how to go on; and call `tidy` first.

    A KeyboardInterrupt that leaves the block carries the words.
    """
    entry = (words, tidy)
    _kept.append(entry)
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.args = stop.args or (words,)
        raise
    finally:
        _kept.remove(entry)


@contextlib.contextmanager
def temporary_folder(prefix: str = "jaxbio-", within: str | None = None) -> Iterator[Path]:
    """Make a folder for the time of a with block, `within` a folder that exists; `leave` removes it too."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix, dir=within))
        stack.enter_context(keeping(kept(), lambda: shutil.rmtree(folder, ignore_errors=True)))
        yield Path(folder)


def kept() -> str:
    """Return what is kept of this command at this moment, and how to go on."""
    return _kept[-1][0]


def leave(name: str, code: int) -> None:
    """End the process at once, from any thread: say that `name` asked for it and what is kept, and tidy."""
    say(f"stopped by {name}: {kept()}")
    calls = [tidy for _, tidy in reversed(_kept) if tidy is not None]
    tidying = threading.Thread(target=lambda: [call() for call in calls], daemon=True)
    tidying.start()
    tidying.join(_TIDY_S)  # a file system may be what hangs
    os._exit(code)


def say(words: str) -> None:
    """Write a line to standard error by the system alone: the main thread may hold the lock of the stream."""
    os.write(2, f"\n{words}\n".encode())


def _wake_only(number: int, frame: FrameType | None) -> None:
    """Let the wake-up pipe speak: a handler is needed for that, but Python runs it only between bytecodes."""
