"""How the axes of an array differ between a PyTorch reference and here, both ways, after PyTorch's are reversed.

to_theirs(array, "qkv").T          # our array -> theirs
to_ours(array.T, shape, "qkv")     # theirs -> ours, in our shape
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp


@dataclass(frozen=True)
class Turn:
    """`join`: our array -> theirs with its axes reversed; `split`: the way back, given our shape."""

    join: Callable[[Any], Any]
    split: Callable[[Any, tuple[int, ...]], Any] = lambda array, shape: array.reshape(shape)


def _split_heads(array: Any, shape: tuple[int, ...]) -> Any:
    *leading, heads, three, width = shape
    return array.reshape(*leading, three, heads, width).swapaxes(-3, -2)


TURNS: dict[str, Turn] = {
    "none": Turn(lambda a: a),
    # (.., H, 3, K): theirs has query, key and value before the heads
    "qkv": Turn(lambda a: a.swapaxes(-3, -2).reshape(*a.shape[:-3], -1), _split_heads),
    "inputs": Turn(lambda a: a.reshape(-1, a.shape[-1])),
    "flat": Turn(lambda a: a.reshape(-1)),
    # a 1-D convolution written as one of two dimensions with kernels of height 1
    "height": Turn(lambda a: a[:, None]),
    # a product written as a convolution of one tap
    "pointwise": Turn(lambda a: a[None]),
    # stored as here, axes not reversed
    "transposed": Turn(lambda a: a.T, lambda array, shape: array.T.reshape(shape)),
    # one vector, (1, 1, D) there
    "token": Turn(lambda a: a.reshape(-1, 1, 1)),
    # a table of rows, (1, A, D) there
    "table": Turn(lambda a: a.T[..., None], lambda array, shape: array[..., 0].T.reshape(shape)),
}


def to_theirs(array: Any, joined: str, rows: tuple[int, int] | None = None) -> Any:
    """Return our `array` as theirs with its axes reversed; where ours are only some `rows`, the others are zeros."""
    if rows is not None:
        first, count = rows
        array = array.reshape(-1, array.shape[-1])
        array = jnp.pad(array, ((first, count - first - len(array)), (0, 0)))
    return TURNS[joined].join(array)


def to_ours(array: Any, shape: tuple[int, ...], joined: str, rows: tuple[int, int] | None = None) -> Any:
    """Return theirs, its axes reversed, as our array of `shape`: the inverse of `to_theirs`."""
    if rows is None:
        return TURNS[joined].split(array, shape)
    first, count = rows
    whole = TURNS[joined].split(array, (count, shape[-1]))
    return whole[first : first + (shape[0] if len(shape) > 1 else 1)].reshape(shape)
