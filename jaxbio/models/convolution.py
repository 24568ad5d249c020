"""1-D convolutions of few taps, on a CPU as matrix products.

On a CPU XLA's gradient of a convolution leaves its fast path as soon as a compiled step settles the layout of its
results: the training step of ResNet-18 took twenty times as long as the same gradient alone. Products do not depend on
that. Other platforms keep the convolution. Both give the same values and gradients up to rounding.

    y_BLD = convolve(x_BTC, kernel_WCD, stride=2, padding=1)
"""

from functools import partial

import jax
import jax.numpy as jnp


def convolve(x_BTC: jax.Array, kernel_WCD: jax.Array, stride: int = 1, padding: int = 0) -> jax.Array:
    """Return the convolution of `x_BTC`, padded with `padding` zeros on both sides: (B, L, D).

    One tap without padding is the product it is, everywhere; a symbolic length (jax.export) is always convolved.
    """
    if kernel_WCD.shape[0] == 1 and padding == 0:
        # the end is named so that a symbolic length has the same formula as after a convolution
        end = (x_BTC.shape[1] - 1) // stride * stride + 1
        return x_BTC[:, :end:stride] @ kernel_WCD[0]
    if isinstance(x_BTC.shape[1], int):
        return _convolve(x_BTC, kernel_WCD, stride, padding)
    return convolution(x_BTC, kernel_WCD, stride, padding)


def convolution(x_BTC: jax.Array, kernel_WCD: jax.Array, stride: int, padding: int) -> jax.Array:
    """Return what `convolve` does, as the compiler's convolution."""
    return jax.lax.conv_general_dilated(
        x_BTC, kernel_WCD, (stride,), [(padding, padding)], dimension_numbers=("NWC", "WIO", "NWC")
    )


def products(x_BTC: jax.Array, kernel_WCD: jax.Array, stride: int, padding: int) -> jax.Array:
    """Return what `convolve` does, as one matrix product over windows of the signal."""
    return windows(x_BTC, kernel_WCD.shape[0], stride, padding) @ kernel_WCD.reshape(-1, kernel_WCD.shape[-1])


def windows(x_BTC: jax.Array, taps: int, stride: int, padding: int) -> jax.Array:
    """Return the samples that each output sees, (B, L, taps x C): shifted slices side by side."""
    batch, length, channels = x_BTC.shape
    outputs = (length + 2 * padding - taps) // stride + 1
    x_BTC = jnp.pad(x_BTC, ((0, 0), (padding, padding), (0, 0)))
    if taps % stride == 0:  # frames of `stride` samples: fewer and longer slices, none of them strided
        frames = outputs + taps // stride - 1
        x_BTC = x_BTC[:, : frames * stride].reshape(batch, frames, stride * channels)
        taps, stride = taps // stride, 1
    ends = [tap + stride * (outputs - 1) + 1 for tap in range(taps)]
    return jnp.concatenate([x_BTC[:, tap : ends[tap] : stride] for tap in range(taps)], axis=-1)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x_BTC, kernel_WCD, stride, padding):
    forms = {"cpu": products, "default": convolution}
    forms = {platform: partial(form, stride=stride, padding=padding) for platform, form in forms.items()}
    return jax.lax.platform_dependent(x_BTC, kernel_WCD, **forms)


def _forward(x_BTC, kernel_WCD, stride, padding):
    return _convolve(x_BTC, kernel_WCD, stride, padding), (x_BTC, kernel_WCD)


def _backward(stride, padding, kept, y_grad_BLD):
    def of_products(x_BTC, kernel_WCD, y_grad_BLD):
        _, to_x = jax.vjp(lambda x_BTC: windows(x_BTC, kernel_WCD.shape[0], stride, padding), x_BTC)
        window_BLE = windows(x_BTC, kernel_WCD.shape[0], stride, padding)
        kernel_grad_ED = jnp.tensordot(window_BLE, y_grad_BLD, ((0, 1), (0, 1)))
        (x_grad_BTC,) = to_x(y_grad_BLD @ kernel_WCD.reshape(-1, kernel_WCD.shape[-1]).T)
        return x_grad_BTC, kernel_grad_ED.reshape(kernel_WCD.shape)

    def of_convolution(x_BTC, kernel_WCD, y_grad_BLD):
        return jax.vjp(partial(convolution, stride=stride, padding=padding), x_BTC, kernel_WCD)[1](y_grad_BLD)

    return jax.lax.platform_dependent(*kept, y_grad_BLD, cpu=of_products, default=of_convolution)


_convolve.defvjp(_forward, _backward)
