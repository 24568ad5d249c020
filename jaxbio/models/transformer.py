"""A stack of post-norm transformer blocks, scanned over layers, with sinusoidal positions.

tok_BLD = Transformer(width=512, layers=2, heads=4, feedforward=256, window=8, ...)(tok_BLD, train=True)
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxbio.config.faults import Fault, UserError
from jaxbio.models.attention import WindowedAttention, window_of
from jaxbio.models.dense import dense
from jaxbio.models.dropout import Dropout
from jaxbio.models.layer_stack import STACK, stack


def positions(length: int, width: int) -> jax.Array:
    """Return sinusoidal absolute positions (L, D) float32: base 10000, sine on even and cosine on odd features."""
    rate_D = 10_000.0 ** (-(np.arange(width) // 2 * 2) / width)
    phase_D = np.arange(width) % 2 * (np.pi / 2)
    angle_LD = jnp.arange(length, dtype=jnp.float32)[:, None] * jnp.asarray(rate_D, jnp.float32)[None, :]
    return jnp.where(phase_D[None, :] == 0, jnp.sin(angle_LD), jnp.cos(angle_LD))


class Block(nn.Module):
    """One post-norm block: x = norm(x + drop(attention(x))); x = norm(x + drop(feedforward(x)))."""

    width: int
    heads: int
    feedforward: int
    dropout: float
    dropout_bits: str
    dtype: jnp.dtype
    band: int | None
    train: bool

    @nn.compact
    def __call__(self, x_BLD: jax.Array, allowed_LL: jax.Array | None) -> tuple[jax.Array, None]:
        """Return the block's output and nothing else, as scan wants; without a mask it attends in a band."""
        attention = WindowedAttention(
            self.width, self.heads, self.dropout, self.dropout_bits, self.dtype, name="attention"
        )
        allowed = self.band if allowed_LL is None else allowed_LL
        assert allowed is not None, "a mask or a band"
        x_BLD = self._add_and_norm("attention_norm", x_BLD, attention(x_BLD, allowed, self.train))
        hidden_BLF = nn.gelu(dense("feedforward_in", x_BLD, self.feedforward, self.dtype), approximate=False)
        y_BLD = dense("feedforward_out", self._drop(hidden_BLF), self.width, self.dtype)
        return self._add_and_norm("feedforward_norm", x_BLD, y_BLD), None

    def _drop(self, x: jax.Array) -> jax.Array:
        return Dropout(self.dropout, self.dropout_bits)(x, self.train)

    def _add_and_norm(self, name: str, x_BLD: jax.Array, y_BLD: jax.Array) -> jax.Array:
        return nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name=name)(x_BLD + self._drop(y_BLD))


class Transformer(nn.Module):
    """Blocks of one shape, their parameters stacked on a leading layer axis N."""

    width: int
    layers: int
    heads: int
    feedforward: int
    window: int | None
    dropout: float
    dropout_bits: str
    dtype: jnp.dtype
    remat: str
    unroll: int

    @nn.compact
    def __call__(self, x_BLD: jax.Array, train: bool) -> jax.Array:
        """Return (B, L, D) in `dtype`. Raises UserError for heads, window or remat that cannot be."""
        if self.width % self.heads:
            raise UserError(Fault("model.heads", self.heads, f"a divisor of the width {self.width}"))
        blocks = stack(Block, layers=self.layers, remat=self.remat, unroll=self.unroll, in_axes=nn.broadcast)
        allowed = window_of(x_BLD.shape[1], self.window)
        band, allowed_LL = (allowed, None) if isinstance(allowed, int) else (None, allowed)
        shape = (self.width, self.heads, self.feedforward, self.dropout, self.dropout_bits, self.dtype, band)
        return blocks(*shape, train=train, name=STACK)(x_BLD, allowed_LL)[0]
