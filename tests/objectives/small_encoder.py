"""An encoder that compiles in a second and has what others have: a convolution, a stack of blocks, dense layers."""

import jax.numpy as jnp
from flax import linen as nn

from jaxbio.models.dense import dense_product
from jaxbio.models.layer_stack import stack


class Block(nn.Module):
    """Two dense layers, one of which contracts two axes."""

    @nn.compact
    def __call__(self, x_BLD, layer_N):
        split_BLHK = nn.DenseGeneral((2, 3), dot_general=dense_product, name="split")(nn.LayerNorm(name="norm")(x_BLD))
        joined = nn.DenseGeneral(4, axis=(-2, -1), dot_general=dense_product, name="join")
        return x_BLD + joined(nn.tanh(split_BLHK)), None


class SmallEncoder(nn.Module):
    """A convolution of stride 5, stacked blocks and a dense output: (B, C, T) -> (B, T / 5, 4)."""

    layers: int = 3
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_BCT, train=False):
        tok_BLD = nn.Conv(4, (5,), strides=5, name="embed")(jnp.swapaxes(x_BCT, 1, 2))
        blocks = stack(Block, layers=self.layers, remat="none", unroll=1)
        tok_BLD, _ = blocks(name="blocks")(tok_BLD, jnp.zeros(self.layers))
        return nn.Dense(4, name="output")(tok_BLD)
