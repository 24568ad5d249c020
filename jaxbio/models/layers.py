"""Which module holds which of an encoder's parameters, in the order in which the signal meets them.

Found by watching the encoder run on shapes, so that no family has to say it: which kernels are of dense layers, and
which arrays are of a stack of layers (a leading axis N, see `layer_stack`); for adapters, and for how deep arrays lie.

    layers = trace_layers(encoder, (2, 9000))
    depth_of, depths = depths_of(layers)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util

Path = tuple[str, ...]


@dataclass(frozen=True)
class Layer:
    """A module that holds parameters itself.

    `path` is its place in the tree of parameters; `stacked` the number of layers that its arrays are stacked over on a
    leading axis, 0 for none; `inputs` the axes that a dense kernel contracts, 0 where it is no dense
    layer.
    """

    path: Path
    stacked: int
    inputs: int


def trace_layers(encoder: nn.Module, shape: tuple[int, int]) -> list[Layer]:
    """Return the layers of `encoder` for segments of `shape` (channels, samples), in the order they are called."""
    met: dict[Path, tuple[dict[str, tuple[int, ...]], int]] = {}

    def note(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        met.setdefault(tuple(module.path), ({}, 0))  # before what it calls
        result = call(*args, **kwargs)
        own = {name: leaf.shape for name, leaf in module.variables.get("params", {}).items() if hasattr(leaf, "shape")}
        if own:
            met[tuple(module.path)] = (own, _contracted(module))
        return result

    with nn.intercept_methods(note):
        x_BCT = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        variables = jax.eval_shape(lambda x_BCT: encoder.init(jax.random.key(0), x_BCT), x_BCT)
    whole = traverse_util.flatten_dict(variables["params"])
    layers = []
    for path, (own, inputs) in met.items():
        if own:
            name, shape_of_one = next(iter(own.items()))
            of_stack = whole[(*path, name)].shape
            stacked = of_stack[0] if len(of_stack) > len(shape_of_one) else 0
            layers.append(Layer(path, stacked, inputs))
    return layers


def _contracted(module: nn.Module) -> int:
    """Return how many axes of its input a dense layer contracts; 0 for another module."""
    if isinstance(module, nn.Dense):
        return 1
    if isinstance(module, nn.DenseGeneral):
        return 1 if isinstance(module.axis, int) else len(module.axis)
    return 0


def depths_of(layers: Sequence[Layer]) -> tuple[dict[Path, int], int]:
    """Return the depth of each layer, by its path, and the number of depths; of stacked ones that of the first.

    Each layer of a stack has a depth of its own; of what is no stack, each part of the encoder (a name of the first
    level) that the signal comes to.
    """
    depth_of: dict[Path, int] = {}
    started: dict[tuple[str, int], int] = {}
    depths = 0
    for layer in layers:
        part = (layer.path[0] if layer.path else "", layer.stacked)
        if part not in started:
            started[part] = depths
            depths += max(layer.stacked, 1)
        depth_of[layer.path] = started[part]
    return depth_of, depths


def first_of_last(layers: Sequence[Layer], blocks: int) -> int:
    """Return the depth from which the last `blocks` blocks begin: layers of the last stack, else parts; what comes
    behind them is trained with them.
    """
    depth_of, depths = depths_of(layers)
    ends = [depth_of[layer.path] + layer.stacked for layer in layers if layer.stacked]
    return max((max(ends) if ends else depths) - blocks, 0)
