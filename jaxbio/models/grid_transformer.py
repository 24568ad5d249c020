"""A stack of pre-norm transformer blocks, scanned over layers, around whatever attends.

The position, where there is one, is added before every block; attention and the feed-forward layer read normalised
tokens and are added to what they read, each skipped for whole rows with a probability that grows with depth.

    tok_BLD = GridTransformer(width=384, layers=12, heads=6, head_width=64, feedforward=1536, ...)(tok_BLD, seen_BL)

Tokens may lie in a row (B, L, D) or on a grid (B, C, N, D), as `attend` takes them (models/attention_patterns.py).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbio.models.attention_patterns import attend_all
from jaxbio.models.dense import dense_product
from jaxbio.models.layer_stack import STACK, stack

Initializer = Callable[..., jax.Array]


class GridBlock(nn.Module):
    """One block. `by_depth` divides the initial values of both output kernels by sqrt(2 l), l the layer from 1."""

    width: int
    layers: int
    heads: int
    head_width: int
    feedforward: int
    qkv_bias: bool
    drop_path: float
    attend: Callable[..., jax.Array]
    kernel_init: Initializer
    by_depth: bool
    dtype: jnp.dtype
    train: bool

    @nn.compact
    def __call__(self, x: jax.Array, layer: jax.Array, seen: Any, position: Any) -> tuple[jax.Array, None]:
        """Return the block's output and nothing else, the form that scan wants."""
        if position is not None:
            x = x + position
        x = x + self._drop_path(self._attention(self._norm("attention_norm")(x), layer, seen), layer)
        hidden = self._dense(self._norm("feedforward_norm")(x), self.feedforward, "feedforward_in")
        hidden = nn.gelu(hidden, approximate=False)
        y = self._dense(hidden, self.width, "feedforward_out", self._output_init(layer))
        return x + self._drop_path(y, layer), None

    def _attention(self, x: jax.Array, layer: jax.Array, seen: Any) -> jax.Array:
        # heads before query, key and value, as in models/attention.py
        qkv = self._dense(x, (self.heads, 3, self.head_width), "qkv", use_bias=self.qkv_bias)
        y = self.attend(*(qkv[..., part, :] for part in range(3)), seen)
        return self._dense(y, self.width, "output", self._output_init(layer), axis=(-2, -1))

    def _norm(self, name: str) -> nn.LayerNorm:
        return nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name=name)

    def _dense(self, x: jax.Array, features: Any, name: str, init: Initializer | None = None, **how: Any) -> jax.Array:
        layer = nn.DenseGeneral(
            features,
            dtype=self.dtype,
            kernel_init=init or self.kernel_init,
            dot_general=dense_product,
            name=name,
            **how,
        )
        return layer(x)

    def _output_init(self, layer: jax.Array) -> Initializer:
        if not self.by_depth:
            return self.kernel_init
        return lambda *arguments: self.kernel_init(*arguments) / jnp.sqrt(2.0 * (layer + 1))

    def _drop_path(self, y: jax.Array, layer: jax.Array) -> jax.Array:
        """Drop the branch of whole rows, the deeper the more often: 0 in the first block, `drop_path` in the last."""
        if not self.train or self.drop_path == 0:
            return y
        kept = 1 - self.drop_path * layer / max(self.layers - 1, 1)
        shape = (y.shape[0], *(1,) * (y.ndim - 1))
        keeps = jax.random.uniform(self.make_rng("dropout"), shape) < kept
        return jnp.where(keeps, y / kept.astype(y.dtype), jnp.zeros((), y.dtype))


class GridTransformer(nn.Module):
    """Blocks of one shape, their parameters stacked on a leading layer axis N."""

    width: int
    layers: int
    heads: int
    head_width: int
    feedforward: int
    qkv_bias: bool = True
    drop_path: float = 0.0
    attend: Callable[..., jax.Array] = attend_all
    kernel_init: Initializer = nn.initializers.xavier_uniform()
    by_depth: bool = False
    dtype: jnp.dtype = jnp.float32
    remat: str = "none"
    unroll: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, seen: Any = None, position: Any = None, train: bool = False) -> jax.Array:
        """Return tokens of the shape of `x` in `dtype`; `seen` is for `attend`, `position` is added before every block.

        Raises UserError for an unknown remat.
        """
        in_axes = (0, nn.broadcast, nn.broadcast)
        blocks = stack(GridBlock, layers=self.layers, remat=self.remat, unroll=self.unroll, in_axes=in_axes)
        own = ("width", "layers", "heads", "head_width", "feedforward", "qkv_bias", "drop_path", "attend")
        shape = {name: getattr(self, name) for name in (*own, "kernel_init", "by_depth", "dtype")}
        return blocks(**shape, train=train, name=STACK)(x, jnp.arange(self.layers), seen, position)[0]
