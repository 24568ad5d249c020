"""An encoder with a head that answers a question about a segment: its class, a number, or another signal's course.

Answering(encoder, outputs=2).apply(variables, x_BCT) -> (B, 1, K), logits
Answering(encoder, outputs=2, temperature=1.4).apply(variables, x_BCT) -> (B, 1, K), probabilities
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxbio.models.dense import dense


class AnswerHead(nn.Module):
    """A norm, a hidden layer with GELU where `hidden` is not 0, and a dense layer: (..., D) -> (..., K) float32."""

    outputs: int
    hidden: int
    dtype: str

    @nn.compact
    def __call__(self, feature_D: jax.Array) -> jax.Array:
        """Return one number for each output."""
        dtype = jnp.dtype(self.dtype)
        x_D = nn.LayerNorm(epsilon=1e-5, dtype=dtype, name="norm")(feature_D)
        if self.hidden:
            x_D = nn.gelu(dense("hidden", x_D, self.hidden, dtype))
        return dense("output", x_D, self.outputs, dtype).astype(jnp.float32)


class AttentionPool(nn.Module):
    """A mean over windows, weighted by what each is worth to the question: (B, W, D) -> (B, D).

    The weights are a softmax over windows of one dense layer with a tanh (Ilse et al. 2018, without the gate).
    """

    hidden: int
    dtype: str

    @nn.compact
    def __call__(self, feature_BWD: jax.Array) -> jax.Array:
        """Return the weighted mean, float32."""
        dtype = jnp.dtype(self.dtype)
        x_BWD = nn.LayerNorm(epsilon=1e-5, dtype=dtype, name="norm")(feature_BWD)
        hidden_BWF = nn.tanh(dense("hidden", x_BWD, self.hidden, dtype))
        worth_BW1 = dense("worth", hidden_BWF, 1, dtype).astype(jnp.float32)
        return (nn.softmax(worth_BW1, axis=1) * feature_BWD.astype(jnp.float32)).sum(axis=1)


class Answering(nn.Module):
    """The mean over the encoder's tokens, read by a head: x_BCT -> (B, 1, K) float32.

    `answer` is "classes", "numbers" or "waveforms". Of classes it gives logits, and with a `temperature` probabilities:
    the softmax of the logits over it. Of numbers it gives `offset` + `scale` x output, in the unit of the label. Of
    waveforms likewise, `outputs` samples from each token, as many as the segment has: (B, 1, T). With a `window`, in
    samples, a longer segment is cut into windows of that length, each encoded alone, and attention pools them.
    """

    encoder: nn.Module
    outputs: int
    answer: str = "classes"
    hidden: int = 0
    window: int | None = None
    temperature: float | None = None
    offset: float = 0.0
    scale: float = 1.0
    dtype: str = "float32"

    @property
    def any_length(self) -> bool:
        """Whether it takes segments of any length: with windows their number is part of a program."""
        return self.window is None and getattr(self.encoder, "any_length", True)

    def setup(self):
        self.head = AnswerHead(self.outputs, self.hidden, self.dtype)
        if self.window is not None:
            self.pool = AttentionPool(64, self.dtype)

    def __call__(self, x_BCT: jax.Array, train: bool = False) -> jax.Array:
        """Return the answer to each segment."""
        if self.answer == "waveforms":
            y_BLP = self.head(self.encoder(x_BCT, train))
            y_BK = y_BLP.reshape(x_BCT.shape[0], -1)[:, : x_BCT.shape[2]]
        else:
            y_BK = self.head(self._feature(x_BCT, train))
        if self.answer != "classes":
            y_BK = self.offset + self.scale * y_BK
        elif self.temperature is not None:
            y_BK = nn.softmax(y_BK / self.temperature)
        return y_BK[:, None]

    def _feature(self, x_BCT: jax.Array, train: bool) -> jax.Array:
        if self.window is None:
            return self.encoder(x_BCT, train).mean(axis=1)
        rows, channels, samples = x_BCT.shape
        windows = samples // self.window
        x_BCWT = x_BCT[:, :, samples - windows * self.window :].reshape(rows, channels, windows, self.window)
        x_NCT = jnp.swapaxes(x_BCWT, 1, 2).reshape(-1, channels, self.window)
        return self.pool(self.encoder(x_NCT, train).mean(axis=1).reshape(rows, windows, -1))
