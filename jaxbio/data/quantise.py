"""Segments as the store holds them: int16 over each channel's full range, with the offset and gain that undo it.

segment_BCT, scale_BC2 = quantise(x_BCT)
x_BCT ~ scale_BC2[..., :1] + scale_BC2[..., 1:] * segment_BCT
"""

import hashlib

import numpy as np

FULL_RANGE = 32767  # symmetric, so that q / 32767 lies in [-1, 1]


def quantise(x_BCT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `segment_BCT` int16 in [-32767, 32767] and `scale_BC2` float32 (offset, gain); x = offset + gain * q.

    `x_BCT` is float32 and finite, in any unit. The largest error is half a gain, 1 / 131,068 of a channel's range,
    beside float32's own rounding; a constant channel gets q = 0 and gain 0, as does one whose range (below 8e-34) is
    too small for a gain that float32 can divide by.
    """
    low_BC = x_BCT.min(axis=-1).astype(np.float64)
    high_BC = x_BCT.max(axis=-1).astype(np.float64)
    scale_BC2 = np.stack([(low_BC + high_BC) / 2, (high_BC - low_BC) / (2 * FULL_RANGE)], axis=-1).astype(np.float32)
    offset_BC1, gain_BC1 = scale_BC2[..., :1], scale_BC2[..., 1:]
    gain_BC1[gain_BC1 < np.finfo(np.float32).tiny] = 0
    with np.errstate(divide="ignore"):
        steps_BC1 = np.where(gain_BC1 > 0, np.float32(1) / gain_BC1, np.float32(0))
    q_BCT = x_BCT - offset_BC1
    q_BCT *= steps_BC1
    np.rint(q_BCT, out=q_BCT)
    np.clip(q_BCT, -FULL_RANGE, FULL_RANGE, out=q_BCT)
    return q_BCT.astype(np.int16), scale_BC2


def fingerprint(segment_BCT: np.ndarray, scale_BC2: np.ndarray) -> np.ndarray:
    """Return a number for each segment with its scale, (B,) uint64, equal where both are equal to the bit.

    The first 8 bytes of SHA-1 over the record (little-endian int16) and its offsets and gains (float32): the table's
    column `fingerprint`, by which copies are found.
    """
    found = np.empty(len(segment_BCT), np.uint64)
    pairs = zip(segment_BCT.astype("<i2", copy=False), scale_BC2.astype("<f4", copy=False), strict=True)
    for place, (segment_CT, scale_C2) in enumerate(pairs):
        digest = hashlib.sha1(segment_CT.tobytes(), usedforsecurity=False)
        digest.update(scale_C2.tobytes())
        found[place] = int.from_bytes(digest.digest()[:8], "big")
    return found


def dequantise(segment_BCT: np.ndarray, scale_BC2: np.ndarray) -> np.ndarray:
    """Return `x_BCT` float32 in physical units: offset + gain * q."""
    return scale_BC2[..., :1] + scale_BC2[..., 1:] * segment_BCT.astype(np.float32)
