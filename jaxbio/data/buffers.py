"""Memory for batches that is used again once nobody looks at it.

A fresh buffer of some 40 MB costs as much as filling it: the system maps and clears every page. Here a buffer returns
when the last array that looks into it is gone, whoever held it (JAX on a CPU may keep it as a device array).

    segment_NCT = buffers.take((1024, 2, 9000))
"""

import weakref
from collections import deque

import numpy as np


class Buffers:
    """Buffers of one dtype, kept by shape; `take` may be called by several threads."""

    def __init__(self, dtype: np.dtype | str):
        self._dtype = dtype
        self._free: dict[tuple[int, ...], deque[np.ndarray]] = {}

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return an array of `shape` with any content; its memory is taken again only after all its views are gone."""
        free = self._free.setdefault(shape, deque())
        try:
            buffer = free.pop()
        except IndexError:
            buffer = np.empty(shape, self._dtype)
        lease = _Lease(buffer)
        weakref.finalize(lease, free.append, buffer).atexit = False
        return np.asarray(lease)


class _Lease:
    """What every view of a lent buffer keeps alive (views of arrays skip to the owner, and this is none)."""

    def __init__(self, buffer: np.ndarray):
        self.__array_interface__ = buffer.__array_interface__
