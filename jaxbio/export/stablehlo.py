"""The encoder and what prepares its input as a program that needs no jaxbio: one StableHLO file for cpu, cuda and tpu.

encode = jax.export.deserialize(path.read_bytes()).call
tok_BLD = encode(weights, x_BCT)      # weights: the safetensors keys split at "/", nested; x_BCT: physical units

Where the card names features, x_BCT has them behind the channels, unscaled, as `signals.features` makes them.

The batch is free, and so is the length, from 128 samples or a crop on. Only where a segment is not cropped, and is
filtered or read by an encoder whose `any_length` is false, its length is the encoder's: the length of a Fourier
transform, and the number of patches, are part of a program. An export of card schema 1
holds the encoder alone: its program takes segments that are already scaled.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import export

from jaxbio.transforms.prepare_input import Input, join_crops, prepare_physical

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


def make_program(module: nn.Module, inputs: Input):
    """Return program(weights, x_BCT float32) -> tok_BLD float32: segments in physical units at the encoder's rate to
    tokens, those of a segment's fixed crops one after the other.
    """
    encode = make_encode(module)

    def program(weights: Mapping[str, Any], x_BCT: jax.Array) -> jax.Array:
        return join_crops(encode(weights, prepare_physical(x_BCT, inputs)), inputs.crops)

    return program


def serialise_program(module: nn.Module, weights: Mapping[str, Any], inputs: Input) -> bytes:
    """Return `make_program(module, inputs)` serialised; `weights` give only shapes and types."""
    channels, shortest = inputs.shape[0], SHORTEST if inputs.crop_s is None else inputs.samples
    of_one_length = inputs.band_hz is not None or not getattr(module, "any_length", True)
    if of_one_length and inputs.crop_s is None:
        shape = export.symbolic_shape(f"b, {channels}, {inputs.length}")
    else:
        shape = export.symbolic_shape(f"b, {channels}, t", constraints=[f"t >= {shortest}"])
    x_BCT = jax.ShapeDtypeStruct(shape, jnp.float32)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), dict(weights))
    program = export.export(jax.jit(make_program(module, inputs)), platforms=PLATFORMS)(shapes, x_BCT)
    return bytes(program.serialize())
