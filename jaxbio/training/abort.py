"""What a process does when JAX aborts it because process 0 is gone.

JAX's client of the coordination service ends a process by abort(), a C++ stack and exit code 134, at the moment when
process 0 is lost. It can be told to call something instead only from C++. So the signal of abort() is answered here.

    answer_abort(why)
"""

import ctypes
import os
import signal
from collections.abc import Callable

from jaxbio.config.faults import EndedByPeer, report

_Handler = ctypes.CFUNCTYPE(None, ctypes.c_int)
_answering: list[object] = []  # what C calls must not be collected


def answer_abort(why: Callable[[], EndedByPeer | None]) -> None:
    """On abort() say what `why` returns and leave with its exit code; where that is None, abort.

    Python's own handlers run in the main thread, which may be blocked, and abort() does not wait for them.
    """

    def answer(number: int) -> None:
        reason = why()
        if reason is not None:
            os._exit(report(reason))

    handler = _Handler(answer)
    _answering[:] = [handler]
    _set(ctypes.cast(handler, ctypes.c_void_p))


def stop_answering() -> None:
    """Let abort() abort."""
    _set(ctypes.c_void_p(signal.SIG_DFL))


def _set(handler: ctypes.c_void_p) -> None:
    set_handler = ctypes.CDLL(None).signal
    set_handler.argtypes, set_handler.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    set_handler(signal.SIGABRT, handler)
