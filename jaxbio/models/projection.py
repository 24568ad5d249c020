"""What compares two views: a projector on an encoder's mean token, and a predictor (SiamQuality's published code).

Layers are named as in SiamQuality's reference, so that its weights map one to one.

    Projected(encoder, projector_width=256).apply(variables, x_BCT) -> tok_BLD, L = 1
"""

import flax.linen as nn
import jax.numpy as jnp

from jaxbio.models.batch_norm import BatchNorm
from jaxbio.models.resnet1d import ResNet1D


class Projector(nn.Module):
    """The projector: feature (B, D) -> z (B, Z). `layers` 3: two hidden ones and a norm without affine; 1: linear."""

    width: int = 256
    layers: int = 3
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_BD, train: bool):
        if self.layers == 1:
            return _dense(self.width, True, self.dtype, "fc0")(x_BD).astype(jnp.float32)
        for index in range(2):
            x_BD = _dense(x_BD.shape[-1], False, self.dtype, f"fc{index}")(x_BD)
            x_BD = nn.relu(BatchNorm(name=f"bn{index}")(x_BD, train))
        x_BD = _dense(self.width, True, self.dtype, "fc2")(x_BD)
        return BatchNorm(affine=False, name="bn2")(x_BD, train).astype(jnp.float32)


class Predictor(nn.Module):
    """The predictor: z (B, Z) -> p (B, Z) through one hidden layer, wider than z in the published network."""

    hidden: int = 512
    width: int = 256
    dtype: str = "float32"

    @nn.compact
    def __call__(self, z_BD, train: bool):
        x_BD = _dense(self.hidden, False, self.dtype, "fc0")(z_BD)
        x_BD = nn.relu(BatchNorm(name="bn0")(x_BD, train))
        return _dense(self.width, True, self.dtype, "fc1")(x_BD).astype(jnp.float32)


class Projected(nn.Module):
    """An encoder with its projector: x_BCT -> tok_BLD with L = 1 and D the projector's width.

    The projector reads the mean over the encoder's tokens.
    """

    encoder: nn.Module
    projector_width: int = 256
    projector_layers: int = 3
    dtype: str = "float32"

    def setup(self):
        self.projector = Projector(self.projector_width, self.projector_layers, self.dtype)

    def __call__(self, x_BCT, train: bool = False):
        feature_BD = self.encoder(x_BCT, train).mean(axis=1)
        return self.projector(feature_BD, train)[:, None]


def projected_resnet1d(
    depth: int = 50,
    blocks: tuple[int, ...] = (),
    projector_width: int = 256,
    projector_layers: int = 3,
    dtype: str = "float32",
) -> Projected:
    """Return a ResNet with its projector from the plain fields that exports of card schema 1 name."""
    return Projected(ResNet1D(depth, blocks, dtype), projector_width, projector_layers, dtype)


def _dense(width: int, use_bias: bool, dtype: str, name: str) -> nn.Dense:
    return nn.Dense(width, use_bias=use_bias, dtype=dtype, name=name)
