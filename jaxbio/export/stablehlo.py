"""The encoder as a program that needs no jaxbio: one StableHLO file for cpu, cuda and tpu, any batch and any length
from 128 samples on.

encode = jax.export.deserialize(path.read_bytes()).call
tok_BLD = encode(weights, x_BCT)      # weights: the safetensors keys split at "/", nested
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import export

PLATFORMS = ("cpu", "cuda", "tpu")
# Samples; below a kernel's length an encoder without padding has no output.
SHORTEST = 128
# Float32 products in full on every platform: the example's numbers must hold wherever the file is loaded.
MATMUL_PRECISION = "highest"


def make_encode(module: nn.Module):
    """Return encode(weights, x_BCT float32) -> tok_BLD float32 of an encoder, in full precision."""

    def encode(weights: Mapping[str, Any], x_BCT: jax.Array) -> jax.Array:
        with jax.default_matmul_precision(MATMUL_PRECISION):
            return jnp.asarray(module.apply(weights, x_BCT), jnp.float32)

    return encode


def serialise_encoder(module: nn.Module, weights: Mapping[str, Any], channels: int) -> bytes:
    """Return the serialised program of `make_encode(module)`; `weights` give only shapes and types."""
    batch, length = export.symbolic_shape("b, t", constraints=[f"t >= {SHORTEST}"])
    x_BCT = jax.ShapeDtypeStruct((batch, channels, length), jnp.float32)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), dict(weights))
    program = export.export(jax.jit(make_encode(module)), platforms=PLATFORMS)(shapes, x_BCT)
    return bytes(program.serialize())
