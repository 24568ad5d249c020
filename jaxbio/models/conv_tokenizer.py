"""Strided 1-D convolutions that turn a signal into tokens, in two forms over one parameter layout.

`convolution` is the plain one. `frames` writes a strided convolution as matrix products over frames of the signal: on a
CPU it makes the whole training step three times faster, on a TPU it compiles seven times faster. Both give the
same values and gradients up to rounding (tests/models/test_conv_tokenizer.py).

    tok_BLD = ConvTokenizer(width=512, form="auto", dtype=jnp.float32)(x_BTC)      # 9000 samples -> 18 tokens
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbio.config.faults import Fault, UserError
from jaxbio.models.convolution import convolution
from jaxbio.models.dense import product, uniform_bias, uniform_fan_in

FORMS = ("auto", "convolution", "frames")


@dataclass(frozen=True)
class Layer:
    """A layer's kernel and stride in samples, and how many outputs one framed product yields."""

    kernel: int
    stride: int
    group: int


# QualityFM's published code; groups measured on two cores
LAYERS = (Layer(201, 5, 20), Layer(101, 10, 2), Layer(51, 10, 1))


def convolve_frames(x_BTC: jax.Array, kernel_KCO: jax.Array, layer: Layer) -> jax.Array:
    """Return the strided convolution of `x_BTC`, padded by half a kernel on both sides: (B, ceil(T / stride), O).

    It is made of products of windows of the signal with a Toeplitz matrix of the kernel.
    A window holds the samples of `layer.group` outputs and is joined from shifted frames of stride x group samples.
    """
    batch, length, channels = x_BTC.shape
    features, pad = kernel_KCO.shape[-1], layer.kernel // 2
    outputs = -(-length // layer.stride)
    # of a short signal most taps meet nothing but padding
    first_tap = max(0, pad - layer.stride * (outputs - 1))
    kernel_KCO, pad = kernel_KCO[first_tap : length + pad], pad - first_tap
    group = layer.group
    weight_WCPO = toeplitz(kernel_KCO, layer.stride, group)
    window, frame = weight_WCPO.shape[0], layer.stride * group
    windows, frames_a_window = -(-outputs // group), -(-window // frame)
    frames = windows + frames_a_window - 1
    x_BTC = jnp.pad(x_BTC, ((0, 0), (pad, frames * frame - pad - length), (0, 0)))
    x_BNFC = x_BTC.reshape(batch, frames, frame, channels)
    shifted = [x_BNFC[:, i : i + windows, : window - i * frame] for i in range(frames_a_window)]
    x_BNW = jnp.concatenate(shifted, axis=2).reshape(batch, windows, window * channels)
    y_BNP = product(x_BNW, weight_WCPO.reshape(window * channels, group * features))
    return y_BNP.reshape(batch, windows * group, features)[:, :outputs]


def toeplitz(kernel_KCO: jax.Array, stride: int, outputs: int) -> jax.Array:
    """Return the matrix (W, C, P, O) of a strided convolution from a window of W = K + stride (P - 1) to P outputs.

    Entry (w, c, p, o) is tap w - stride p, zero outside the kernel. Made without gather: rows of period W + stride cut
    at length W shift by one stride a row.
    """
    taps, channels, features = kernel_KCO.shape
    window = taps + stride * (outputs - 1)
    period_KCO = jnp.pad(kernel_KCO, ((0, window + stride - taps), (0, 0), (0, 0)))
    rows = jnp.tile(period_KCO, (outputs, 1, 1))[: outputs * window]
    return rows.reshape(outputs, window, channels, features).transpose(1, 2, 0, 3)


class ConvTokenizer(nn.Module):
    """Three strided convolutions over all channels together, each with a one-group norm and an exact GELU."""

    width: int
    form: str
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_BTC: jax.Array) -> jax.Array:
        """Return tokens (B, L, D) in `dtype`, one for each 500 samples begun."""
        for number, (layer, features) in enumerate(
            zip(LAYERS, (self.width // 100, self.width // 10, self.width)), start=1
        ):
            x_BTC = StridedConvolution(layer, features, self.form, self.dtype, name=f"conv{number}")(x_BTC)
            x_BTC = nn.GroupNorm(1, epsilon=1e-5, dtype=self.dtype, name=f"norm{number}")(x_BTC)
            x_BTC = nn.gelu(x_BTC, approximate=False)
        return x_BTC


class StridedConvolution(nn.Module):
    """One convolution with bias; the kernel is (K, C, O) whatever the form."""

    layer: Layer
    features: int
    form: str
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_BTC: jax.Array) -> jax.Array:
        """Return (B, ceil(T / stride), O) in `dtype`."""
        channels = x_BTC.shape[-1]
        shape = (self.layer.kernel, channels, self.features)
        kernel_KCO = self.param("kernel", uniform_fan_in, shape)
        bias_O = self.param("bias", uniform_bias(self.layer.kernel * channels), (self.features,))
        x_BTC, kernel_KCO, bias_O = nn.dtypes.promote_dtype(x_BTC, kernel_KCO, bias_O, dtype=self.dtype)
        if takes_frames(self.form, x_BTC.shape[1]):
            y_BTO = convolve_frames(x_BTC, kernel_KCO, self.layer)
        else:
            y_BTO = convolution(x_BTC, kernel_KCO, self.layer.stride, self.layer.kernel // 2)
        return y_BTO + bias_O[None, None, :]


def takes_frames(form: str, length: int) -> bool:
    """Return whether a signal of `length` samples (symbolic while exporting) goes through frames.

    `auto` takes frames on every platform: faster on a CPU, quicker to compile for a TPU; on a GPU neither was measured.
    Raises UserError for a form that is none of FORMS.
    """
    if form not in FORMS:
        raise UserError(Fault("model.tokenizer", form, f"one of {', '.join(FORMS)}"))
    return form != "convolution" and isinstance(length, int)
