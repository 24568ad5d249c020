"""Freed memory that stays with the process, for work that makes and frees arrays of some megabytes thousands of times.

glibc maps such arrays anew each time, as its thresholds happen to stand, and the system clears every page of them: up
to a fifth of the time of writing a shard.

    keep_freed_memory()
"""

import ctypes
from functools import cache

# mallopt(3): from how many bytes on an array is mapped by itself (glibc allows no more), and how many freed ones stay.
_MMAP_THRESHOLD, _MMAP_BYTES = -3, 32 * 2**20
_TRIM_THRESHOLD, _TRIM_BYTES = -1, 256 * 2**20


@cache
def keep_freed_memory() -> None:
    """Have this process keep up to 256 MiB that it has freed; where the C library is not glibc nothing changes."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no such function, or no such library
        return
    mallopt(_MMAP_THRESHOLD, _MMAP_BYTES)
    mallopt(_TRIM_THRESHOLD, _TRIM_BYTES)
