"""Memory that is used again: only after every view of it is gone."""

import numpy as np

from jaxbio.data.buffers import Buffers


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_memory_is_taken_again_once_every_view_is_gone():
    buffers = Buffers("<i2")
    taken = buffers.take((8, 100))
    where, view = address(taken), taken[3:].reshape(-1)
    del taken
    other = buffers.take((8, 100))
    assert address(other) != where
    del view
    assert address(buffers.take((8, 100))) == where


def test_memory_is_kept_by_shape_and_has_the_dtype():
    buffers = Buffers("<i2")
    where = address(buffers.take((4, 6)))
    taken = buffers.take((6, 4))
    assert address(taken) != where
    assert (taken.shape, taken.dtype, taken.flags.writeable) == ((6, 4), np.int16, True)
