"""Patches of a signal as tokens, by three small convolutions inside each patch (SIGMA-PPG's published code).

tok_BAD = PatchEmbedding(width=200, channels=8, patch=100, kernel_init=init, dtype=jnp.float32)(x_BCT)
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbio.config.faults import Fault, UserError
from jaxbio.models.convolution import convolve
from jaxbio.models.dense import dense_product, uniform_bias, uniform_fan_in

GROUPS = 4  # of the norms
_LAYERS = ((15, 8, 7), (3, 1, 1), (3, 1, 1))  # taps, stride, zeros on both sides


def count_patches(samples: int, patch: int) -> int:
    """Return how many patches a signal has. Raises UserError where `patch` does not divide `samples`."""
    if samples % patch or samples < patch:
        shorter = samples // patch * patch
        near = f"{shorter} or {shorter + patch}" if shorter else patch
        raise UserError(Fault("samples of a segment", samples, f"a multiple of the patch of {patch}: {near}"))
    return samples // patch


class PatchEmbedding(nn.Module):
    """Three convolutions along each patch, each with a group norm and an exact GELU, then a projection to `width`.

    The norms' statistics run over all patches of a segment. `kernel_init` starts the kernels, beside biases of zero;
    `torch_convolutions` starts those of the convolutions as PyTorch does. Where the convolutions give `width` numbers
    there is no projection.
    """

    width: int
    channels: int
    patch: int
    kernel_init: nn.initializers.Initializer
    dtype: jnp.dtype
    torch_convolutions: bool = False

    @nn.compact
    def __call__(self, x_BCT: jax.Array) -> jax.Array:
        """Return tokens (B, A, D) in `dtype` of signals (B, 1, T), A = T / patch."""
        segments, signals, samples = x_BCT.shape
        if signals != 1:
            raise UserError(Fault("data.channels", f"{signals} channels", "one: this encoder reads a single signal"))
        patches = count_patches(samples, self.patch)
        y = x_BCT.reshape(segments * patches, self.patch, 1).astype(self.dtype)
        for number, (taps, stride, padding) in enumerate(_LAYERS, start=1):
            kernel_WCD, bias_D = self._parameters(f"conv{number}", taps, y.shape[-1])
            y = convolve(y, kernel_WCD, stride, padding) + bias_D[None, None]
            y = y.reshape(segments, patches, -1, self.channels)
            y = nn.GroupNorm(GROUPS, epsilon=1e-5, dtype=self.dtype, name=f"norm{number}")(y)
            y = nn.gelu(y, approximate=False).reshape(segments * patches, -1, self.channels)
        tok_BAF = y.reshape(segments, patches, -1)
        if tok_BAF.shape[-1] == self.width:
            return tok_BAF
        return nn.Dense(
            self.width, dtype=self.dtype, kernel_init=self.kernel_init, dot_general=dense_product, name="projection"
        )(tok_BAF)

    def _parameters(self, name: str, taps: int, inputs: int) -> tuple[jax.Array, jax.Array]:
        default = self.torch_convolutions
        kernel_init = uniform_fan_in if default else self.kernel_init
        bias_init = uniform_bias(taps * inputs) if default else nn.initializers.zeros
        kernel_WCD = self.param(f"{name}_kernel", kernel_init, (taps, inputs, self.channels))
        bias_D = self.param(f"{name}_bias", bias_init, (self.channels,))
        return kernel_WCD.astype(self.dtype), bias_D.astype(self.dtype)
