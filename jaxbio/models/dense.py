"""Dense layers and the initial values they start from: PyTorch's defaults, as in the reference implementations.

y_BLF = dense("feedforward_in", x_BLD, features=256, dtype=jnp.float32)    # inside a compact method
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

PRODUCT = "product"  # what rematerialisation policies call the result of a dense layer

uniform_fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # U(-1, 1) / sqrt(fan_in)


def uniform_bias(fan_in: int) -> nn.initializers.Initializer:
    """Return the initialiser of a bias beside a kernel of `fan_in` inputs: U(-1, 1) / sqrt(fan_in)."""

    def init(key, shape, dtype=float, out_sharding=None):
        bound = 1 / math.sqrt(fan_in)
        return jax.random.uniform(key, shape, dtype, -bound, bound, out_sharding=out_sharding)

    return init


def dense(name: str, x: jax.Array, features: int, dtype: jnp.dtype) -> jax.Array:
    """Return `x` (..., inputs) through the calling module's dense layer `name`: (..., features) in `dtype`."""
    layer = nn.Dense(
        features,
        dtype=dtype,
        kernel_init=uniform_fan_in,
        bias_init=uniform_bias(x.shape[-1]),
        dot_general=dense_product,
        name=name,
    )
    return layer(x)


def dense_product(x: jax.Array, kernel: jax.Array, dimensions, precision=None, **_) -> jax.Array:
    """Return the product of the last axes of `x` with the first axes of `kernel`, as `jax.lax.dot_general` has it.

    All three products, of values and of gradients, are of matrices: several axes contracted at once make XLA's CPU
    compiler transpose an operand first, a tenth of the step. Leading axes of a kernel that are split over devices
    therefore come first among those that are joined.
    """
    (x_axes, kernel_axes), batch_axes = dimensions
    count = len(x_axes)
    assert tuple(x_axes) == tuple(range(x.ndim - count, x.ndim)), "contract the last axes of x"
    assert tuple(kernel_axes) == tuple(range(count)), "contract the first axes of the kernel"
    assert batch_axes == ((), ()), "no batch axes"
    return checkpoint_name(_product(x, kernel, count, precision), PRODUCT)


def product(x: jax.Array, weight: jax.Array) -> jax.Array:
    """Return `x` (..., W) times `weight` (W, P): (..., P)."""
    return _product(x, weight, 1, None)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _product(x: jax.Array, kernel: jax.Array, count: int, precision) -> jax.Array:
    flat_x, flat_kernel = _matrix(x, x.ndim - count), _matrix(kernel, count)
    return _matmul(flat_x, flat_kernel, (1, 0), precision).reshape(x.shape[: x.ndim - count] + kernel.shape[count:])


def _product_forward(x, kernel, count, precision):
    return _product(x, kernel, count, precision), (x, kernel)


def _product_backward(count, precision, kept, y_grad):
    x, kernel = kept
    leading = x.ndim - count
    flat_grad = _matrix(y_grad, leading)
    x_grad = _matmul(flat_grad, _matrix(kernel, count), (1, 1), precision)
    kernel_grad = _matmul(_matrix(x, leading), flat_grad, (0, 0), precision)
    return x_grad.reshape(x.shape), kernel_grad.reshape(kernel.shape)


_product.defvjp(_product_forward, _product_backward)


def _matrix(array: jax.Array, rows: int) -> jax.Array:
    """Return `array` with its first `rows` axes as the rows of a matrix, the others as its columns."""
    return array.reshape(math.prod(array.shape[:rows]), -1)


def _matmul(left: jax.Array, right: jax.Array, axes: tuple[int, int], precision) -> jax.Array:
    return jax.lax.dot_general(left, right, (((axes[0],), (axes[1],)), ((), ())), precision=precision)
