"""QualityFM: convolutional tokenizer, windowed post-norm transformer, spectrum heads (docs/references.md).

The decoder is a second encoder, with weights of its own, that reads the tokens as channels and the features as time;
its two tokens stand for the two signal channels.

    encoder = QualityFMEncoder(width=512, layers=2, heads=4, feedforward=256, window=8, dropout=0.1)
    tok_BLD = encoder.apply(variables, x_BCT)                       # (B, 2, 9000) -> (B, 18, 512)
    spectrum_BCD = encoder.apply(decoder_variables, tok_BLD)        # (B, 18, 512) -> (B, 2, 512)
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbio.models.conv_tokenizer import ConvTokenizer
from jaxbio.models.dense import dense
from jaxbio.models.transformer import Transformer, positions


class QualityFMEncoder(nn.Module):
    """Encoder, and decoder, of QualityFM: `width` to `dropout` say what it is, the rest how it is computed."""

    width: int
    layers: int
    heads: int
    feedforward: int
    window: int | None
    dropout: float
    tokenizer: str = "auto"
    remat: str = "none"
    unroll: int = 1
    dtype: str = "float32"
    dropout_bits: str = "threefry"

    @nn.compact
    def __call__(self, x_BCT: jax.Array, train: bool = False) -> jax.Array:
        """Return tokens (B, L, D) float32 of signals (B, C, T); `train` wants an rng stream "dropout"."""
        dtype = jnp.dtype(self.dtype)
        x_BTC = jnp.swapaxes(x_BCT, 1, 2).astype(dtype)
        tok_BLD = ConvTokenizer(self.width, self.tokenizer, dtype, name="tokenizer")(x_BTC)
        tok_BLD = tok_BLD + positions(tok_BLD.shape[1], self.width).astype(dtype)[None]
        tok_BLD = Transformer(
            self.width,
            self.layers,
            self.heads,
            self.feedforward,
            self.window,
            self.dropout,
            self.dropout_bits,
            dtype,
            self.remat,
            self.unroll,
            name="transformer",
        )(tok_BLD, train)
        return dense("output", tok_BLD, self.width, dtype).astype(jnp.float32)


class SpectrumHead(nn.Module):
    """Two dense layers with a tanh between, from a channel's token to its spectral bins."""

    bins: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, tok_BCD: jax.Array) -> jax.Array:
        """Return (B, C, S) float32."""
        dtype = jnp.dtype(self.dtype)
        hidden_BCD = nn.tanh(dense("hidden", tok_BCD, tok_BCD.shape[-1], dtype))
        return dense("output", hidden_BCD, self.bins, dtype).astype(jnp.float32)
