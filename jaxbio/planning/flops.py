"""What a step costs: FLOPs counted by walking the jaxpr.

FLOPs are those of products and convolutions, forward and backward, of the model as it is defined (the convolution
form of a tokeniser, nothing recomputed), so that MFU does not reward a form that computes more.

    model_flops(config, config.train.batch).total
"""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.interpreters.partial_eval import dce_jaxpr
from ml_collections import ConfigDict

from jaxbio.config import families, fields
from jaxbio.objectives import Network, make_objective
from jaxbio.training.optimizer import make_optimizer, put_back
from jaxbio.training.program import abstract_batch
from jaxbio.training.state import stream_key

_TRANSFORMS = re.compile(r"\b(?:jvp|transpose|vmap|rematted_computation|checkpoint)\(|\)")


@dataclass(frozen=True)
class FlopCount:
    """FLOPs (a multiply and an add are two) in all and by module path, and the bytes of their operands and results.

    `kernel_bytes_by_module` are those of the bytes that do not grow with the batch, where that was asked for.
    """

    total: float
    by_module: dict[str, float]
    bytes_by_module: dict[str, float] = field(default_factory=dict)
    kernel_bytes_by_module: dict[str, float] = field(default_factory=dict)


def model_flops(config: ConfigDict, pairs: int, networks: Mapping[str, Network] = {}) -> FlopCount:
    """Return the FLOPs of loss and gradient for `pairs` pairs: convolution form, one microbatch, nothing recomputed.

    The gradient is that of the step, of what `optimizer.groups` does not freeze.
    """
    plain = config.copy_and_resolve_references().unlock()
    plain.train.batch = pairs
    fields.change(plain, families.MODELS[config.model.name].counted_as)
    objective = make_objective(plain, networks)
    batch, key = abstract_batch(plain), stream_key(0, "init")
    keys = {"augment": key, "dropout": key}
    params, state = jax.eval_shape(objective.init, key, batch, dict(objective.frozen))
    optimizer = make_optimizer(plain.optimizer, plain.train.steps)

    def gradient(params: Any, state: Any, batch: Any) -> Any:
        def loss_of(moving: Any) -> Any:
            return objective.loss(put_back(moving, params), state, batch, keys, jnp.float32(0), True)

        return jax.value_and_grad(loss_of, has_aux=True)(optimizer.moving(params))

    return count_flops(gradient, params, state, batch)


def step_products(config: ConfigDict, networks: Mapping[str, Network] = {}) -> FlopCount:
    """Return the FLOPs of a step as `model_flops` does, and which of their bytes are kernels' and their gradients'.

    These are what two counts, of one batch and of two, have in common. Of arrays that grow with the square of the batch
    nothing is left.
    """
    one, two = (model_flops(config, batches * config.train.batch, networks) for batches in (1, 2))
    kernels = {
        module: min(max(2 * moved - two.bytes_by_module[module], 0.0), moved)
        for module, moved in one.bytes_by_module.items()
    }
    return replace(one, kernel_bytes_by_module=kernels)


def count_flops(function: Callable, *arguments: Any) -> FlopCount:
    """Return the FLOPs of products and convolutions in `function(*arguments)`; arguments may be abstract.

    What no result depends on does not count: no compiler keeps it.

    Raises ValueError for a product inside a loop whose length is unknown.
    """
    whole = jax.make_jaxpr(function)(*arguments).jaxpr
    needed, _ = dce_jaxpr(whole, [True] * len(whole.outvars))
    counts = _subtotal(needed, 1.0, "")
    return FlopCount(counts.total, dict(counts.flops), dict(counts.moved))


class _Counts:
    """FLOPs and moved bytes by module path, while they are counted."""

    def __init__(self) -> None:
        self.flops: dict[str, float] = defaultdict(float)
        self.moved: dict[str, float] = defaultdict(float)

    @property
    def total(self) -> float:
        return sum(self.flops.values())

    def add(self, path: str, flops: float, moved: float) -> None:
        self.flops[path] += flops
        self.moved[path] += moved


def _walk(jaxpr: core.Jaxpr, times: float, path: str, counts: _Counts) -> None:
    """Add to `counts` what `jaxpr` costs, run `times` times under the module path `path`."""
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        stack = _TRANSFORMS.sub("", str(equation.source_info.name_stack))
        here = "/".join(filter(None, (path, stack)))
        if name == "dot_general":
            counts.add(here, times * _dot_flops(equation), times * _moved_bytes(equation))
        elif name == "conv_general_dilated":
            counts.add(here, times * _convolution_flops(equation), times * _moved_bytes(equation))
        elif name == "cond":
            counts_of = [_subtotal(branch.jaxpr, times, here) for branch in equation.params["branches"]]
            dearest = max(counts_of, key=lambda count: count.total)
            for module, flops in dearest.flops.items():
                counts.add(module, flops, dearest.moved[module])
        elif name == "while":
            if _subtotal(equation.params["body_jaxpr"].jaxpr, 1.0, here).flops:
                raise ValueError(f"{here}: a product inside a while loop, whose length is unknown; use scan")
        else:
            repeated = times * _repeats(equation)
            for inner in _inner_jaxprs(equation):
                _walk(inner, repeated, here, counts)


def _repeats(equation: Any) -> int:
    """Return how often an equation runs what it calls: the steps of a scan, the devices of a shard_map."""
    match equation.primitive.name:
        case "scan":
            return equation.params["length"]
        case "shard_map":
            return equation.params["mesh"].size
        case _:
            return 1


def _inner_jaxprs(equation: Any) -> list[core.Jaxpr]:
    """Return the jaxprs that an equation calls (jit, scan, checkpoint, custom derivatives, shard_map)."""
    found = [value for value in equation.params.values() if isinstance(value, (core.Jaxpr, core.ClosedJaxpr))]
    return [value.jaxpr if isinstance(value, core.ClosedJaxpr) else value for value in found]


def _subtotal(jaxpr: core.Jaxpr, times: float, path: str) -> _Counts:
    counts = _Counts()
    _walk(jaxpr, times, path, counts)
    return counts


def _moved_bytes(equation: Any) -> float:
    """Return the bytes of an equation's operands and results."""
    arrays = [value.aval for value in (*equation.invars, *equation.outvars)]
    return float(sum(math.prod(array.shape) * array.dtype.itemsize for array in arrays))


def _dot_flops(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)


def _convolution_flops(equation: Any) -> float:
    """Return the FLOPs of one convolution, counting only taps that meet a sample, as XLA does.

    Padding is left out, and so are the zeros of a dilated input: the gradient of a strided convolution reads its
    output's gradient dilated by the stride, and counting those zeros would give 1.3 to 1.7 times too many.
    """
    parameters = equation.params
    numbers = parameters["dimension_numbers"]
    inputs, kernel, output = (*(invar.aval.shape for invar in equation.invars), equation.outvars[0].aval.shape)
    meetings = math.prod(
        _meetings(inputs[left], kernel[right], output[out], *settings)
        for left, right, out, *settings in zip(
            numbers.lhs_spec[2:],
            numbers.rhs_spec[2:],
            numbers.out_spec[2:],
            parameters["window_strides"],
            parameters["padding"],
            parameters["lhs_dilation"],
            parameters["rhs_dilation"],
        )
    )
    pairs, out_features = (output[axis] for axis in numbers.out_spec[:2])
    return 2.0 * meetings * pairs * out_features * kernel[numbers.rhs_spec[1]] / parameters["batch_group_count"]


def _meetings(
    samples: int, taps: int, outputs: int, stride: int, padding: tuple[int, int], dilation: int, tap_dilation: int
) -> int:
    """Return how many (output, tap) pairs of one dimension meet a sample rather than padding or a hole."""
    position = np.arange(outputs)[:, None] * stride + np.arange(taps) * tap_dilation - padding[0]
    met = (position >= 0) & (position % dilation == 0) & (position // dilation < samples)
    return int(met.sum())
