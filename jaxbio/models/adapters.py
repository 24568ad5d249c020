"""Low-rank adapters (LoRA, Hu et al. 2021): what is learnt beside a dense kernel that stays, and is added to it.

A kernel W of i inputs and o outputs becomes W + down up, with `down` (i, r) and `up` (r, o). `up` starts at zero, so
that the first step's network is the one that was given. The sum is formed before the network runs: every dense layer of
every family has adapters, and an export of the sum holds plain kernels. The paper's factor alpha / r is 1.

    adapters = init_adapters(key, params, layers, rank=8)
    params = merge_adapters(params, adapters)
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from jaxbio.config.faults import Fault, UserError
from jaxbio.models.layers import Layer

Tree = Any


def init_adapters(key: jax.Array, params: Tree, layers: Sequence[Layer], rank: int) -> Tree:
    """Return adapters {"down", "up"} of every dense layer among `layers`, at its path; float32.

    Those of a stack lead with its axis N. Raises UserError where there is no dense layer.
    """
    kernels = traverse_util.flatten_dict(params)
    dense = [layer for layer in layers if layer.inputs]
    if not dense:
        remedy = "this encoder has no dense layer: model.adapters=none, and objective.trained=all or last:N"
        raise UserError(Fault("model.adapters", f"lora:{rank}", remedy))
    adapters = {}
    for number, layer in enumerate(dense):
        stack, inputs, outputs = _as_matrix(kernels[(*layer.path, "kernel")].shape, layer)
        drawn = jax.random.uniform(jax.random.fold_in(key, number), (*stack, inputs, rank), minval=-1.0, maxval=1.0)
        adapters[(*layer.path, "down")] = drawn / math.sqrt(inputs)  # PyTorch's default, as the paper's code has it
        adapters[(*layer.path, "up")] = jnp.zeros((*stack, rank, outputs))
    return traverse_util.unflatten_dict(adapters)


def merge_adapters(params: Tree, adapters: Tree) -> Tree:
    """Return `params` with the adapters' products added to their kernels."""
    merged, parts = traverse_util.flatten_dict(params), traverse_util.flatten_dict(adapters)
    for path in {path[:-1] for path in parts}:
        kernel = merged[(*path, "kernel")]
        change = parts[(*path, "down")] @ parts[(*path, "up")]
        merged[(*path, "kernel")] = kernel + change.reshape(kernel.shape).astype(kernel.dtype)
    return traverse_util.unflatten_dict(merged)


def _as_matrix(shape: tuple[int, ...], layer: Layer) -> tuple[tuple[int, ...], int, int]:
    """Return the axis of the stack, () for none, and inputs and outputs of a dense kernel."""
    stack, kernel = (shape[:1], shape[1:]) if layer.stacked else ((), shape)
    return stack, math.prod(kernel[: layer.inputs]), math.prod(kernel[layer.inputs :])
