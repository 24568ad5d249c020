"""The storage formats of WFDB signal files, as signal(5) defines them: from bytes to integers.

storage = STORAGES["212"]
digital = storage.unpack(byte_N)[:count]
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Storage(NamedTuple):
    """A format: `samples` lie in a group of `nbytes` bytes, `missing` is the sample that means none (None: no such).

    `word` bytes of a group come together: half a word holds nothing.
    """

    samples: int
    nbytes: int
    missing: int | None
    unpack: Callable[[np.ndarray], np.ndarray]  # bytes of whole groups, uint8 -> integers, signed
    word: int = 1

    def held(self, nbytes: int) -> int:
        """Return how many samples `nbytes` bytes hold; a last group may be cut."""
        return nbytes // self.word * self.word * self.samples // self.nbytes


def _unpack_24(byte_N: np.ndarray) -> np.ndarray:
    whole = np.zeros((byte_N.size // 3, 4), np.uint8)
    whole[:, 1:] = byte_N.reshape(-1, 3)
    return whole.view("<i4").reshape(-1) >> 8  # the sign comes down with the highest byte


def _unpack_212(byte_N: np.ndarray) -> np.ndarray:
    group = byte_N.reshape(-1, 3).astype(np.int16)
    digital = np.empty((len(group), 2), np.int16)
    digital[:, 0] = group[:, 0] | (group[:, 1] & 0x0F) << 8
    digital[:, 1] = group[:, 2] | (group[:, 1] & 0xF0) << 4
    return _signed(digital, 12)


def _unpack_310(byte_N: np.ndarray) -> np.ndarray:
    word = byte_N.view("<u2").reshape(-1, 2)
    digital = np.empty((len(word), 3), np.int16)
    digital[:, :2] = word >> 1 & 0x3FF
    digital[:, 2] = word[:, 0] >> 11 | (word[:, 1] >> 11) << 5
    return _signed(digital, 10)


def _unpack_311(byte_N: np.ndarray) -> np.ndarray:
    word = byte_N.view("<u4")
    digital = np.stack([word & 0x3FF, word >> 10 & 0x3FF, word >> 20 & 0x3FF], axis=1)
    return _signed(digital.astype(np.int16), 10)


def _signed(digital: np.ndarray, bits: int) -> np.ndarray:
    """Return two's complement numbers of so many bits as the integers that they stand for."""
    unused = 16 - bits
    return (digital.reshape(-1) << unused) >> unused


STORAGES: dict[str, Storage] = {
    "8": Storage(1, 1, None, lambda byte_N: byte_N.view("i1")),  # first differences
    "16": Storage(1, 2, -(2**15), lambda byte_N: byte_N.view("<i2")),
    "24": Storage(1, 3, -(2**23), _unpack_24),
    "32": Storage(1, 4, -(2**31), lambda byte_N: byte_N.view("<i4")),
    "61": Storage(1, 2, -(2**15), lambda byte_N: byte_N.view(">i2")),
    # Offset binary differs from two's complement in the highest bit.
    "80": Storage(1, 1, -(2**7), lambda byte_N: (byte_N ^ 0x80).view("i1")),
    "160": Storage(1, 2, -(2**15), lambda byte_N: (byte_N.view("<u2") ^ 0x8000).view("<i2")),
    "212": Storage(2, 3, -(2**11), _unpack_212),
    "310": Storage(3, 4, -(2**9), _unpack_310, word=2),
    "311": Storage(3, 4, -(2**9), _unpack_311),
}
# Compressed with FLAC, a channel a signal: bits of a sample.
FLAC_BITS = {"508": 8, "516": 16, "524": 24}
