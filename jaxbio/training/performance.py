"""What a step costs: FLOPs counted by walking the jaxpr, peaks and memory by device kind, MFU, memory in use.

FLOPs are those of products and convolutions, forward and backward, of the model as it is defined (the convolution
form of a tokeniser, nothing recomputed), so that MFU does not reward a form that computes more.

    flops = model_flops(config, config.train.batch)
    mfu(flops.total / seconds, devices=jax.device_count(), dtype=config.precision.compute)
"""

import math
import re
import resource
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from jax.extend import core
from ml_collections import ConfigDict

from jaxbio.objectives import make_objective
from jaxbio.training.state import batch_shapes, stream_key


class DeviceFacts(NamedTuple):
    """Facts of one device as JAX counts them (a TPU v3 core, else a chip), keyed by a part of its `device_kind`.

    Dense peaks in TFLOP/s for bfloat16 and float32 (tensor cores: TF32), from the vendors' data sheets. Memory in GiB
    that a program may use, where every device of the kind has the same: what libtpu 0.0.52 names in refusing a larger
    one (data sheets, cloud.google.com/tpu/docs: v4 32, v5e 16, v5p 95, v6e 32).
    """

    kind: str
    bfloat16_tflops: float
    float32_tflops: float | None = None
    memory_gib: float | None = None


# The first that is found decides, so longer names come first.
_DEVICES: tuple[DeviceFacts, ...] = (
    DeviceFacts("TPU v6 lite", 918.0, memory_gib=31.24),
    DeviceFacts("TPU v5 lite", 197.0, memory_gib=15.75),
    DeviceFacts("TPU v5", 459.0, memory_gib=95.73),
    DeviceFacts("TPU v4", 275.0, memory_gib=30.75),
    DeviceFacts("TPU v3", 61.5),
    DeviceFacts("B200", 2250.0, 1100.0),
    DeviceFacts("H200", 989.4, 494.7),
    DeviceFacts("H100 PCIe", 756.0, 378.0),
    DeviceFacts("H100", 989.4, 494.7),
    DeviceFacts("A100", 312.0, 156.0),
    DeviceFacts("L40S", 362.0, 183.0),
    DeviceFacts("L4", 121.0, 60.0),
    DeviceFacts("A10", 125.0, 62.5),
)


_TRANSFORMS = re.compile(r"\b(?:jvp|transpose|vmap|rematted_computation|checkpoint)\(|\)")


@dataclass(frozen=True)
class FlopCount:
    """FLOPs (a multiply and an add are two) in all and by module path."""

    total: float
    by_module: dict[str, float]


def model_flops(config: ConfigDict, pairs: int) -> FlopCount:
    """Return the FLOPs of loss and gradient for `pairs` pairs: convolution form, one microbatch, nothing recomputed."""
    plain = config.copy_and_resolve_references().unlock()
    plain.train.batch = pairs
    for field, value in (("tokenizer", "convolution"), ("remat", "none")):
        if field in plain.model:
            plain.model[field] = value
    objective = make_objective(plain)
    batch, key = batch_shapes(plain), stream_key(0, "init")
    keys = {"augment": key, "dropout": key}
    params, state = jax.eval_shape(objective.init, key, batch)

    def gradient(params: Any, state: Any, batch: Any) -> Any:
        return jax.value_and_grad(objective.loss, has_aux=True)(params, state, batch, keys, jnp.float32(0), True)

    return count_flops(gradient, params, state, batch)


def count_flops(function: Callable, *arguments: Any) -> FlopCount:
    """Return the FLOPs of products and convolutions in `function(*arguments)`; arguments may be abstract.

    Raises ValueError for a product inside a loop whose length is unknown.
    """
    counts: dict[str, float] = defaultdict(float)
    _walk(jax.make_jaxpr(function)(*arguments).jaxpr, 1.0, "", counts)
    return FlopCount(sum(counts.values()), dict(counts))


def _walk(jaxpr: core.Jaxpr, times: float, path: str, counts: dict[str, float]) -> None:
    """Add to `counts` the FLOPs of `jaxpr` run `times` times under the module path `path`."""
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        stack = _TRANSFORMS.sub("", str(equation.source_info.name_stack))
        here = "/".join(filter(None, (path, stack)))
        if name == "dot_general":
            counts[here] += times * _dot_flops(equation)
        elif name == "conv_general_dilated":
            counts[here] += times * _convolution_flops(equation)
        elif name == "cond":
            counts_of = [_subtotal(branch.jaxpr, times, here) for branch in equation.params["branches"]]
            for module, flops in max(counts_of, key=lambda count: sum(count.values())).items():
                counts[module] += flops
        elif name == "while":
            if _subtotal(equation.params["body_jaxpr"].jaxpr, 1.0, here):
                raise ValueError(f"{here}: a product inside a while loop, whose length is unknown; use scan")
        else:
            repeated = times * (equation.params["length"] if name == "scan" else 1)
            for inner in _inner_jaxprs(equation):
                _walk(inner, repeated, here, counts)


def _inner_jaxprs(equation: Any) -> list[core.Jaxpr]:
    """Return the jaxprs that an equation calls (jit, scan, checkpoint, custom derivatives, shard_map)."""
    found = [value for value in equation.params.values() if isinstance(value, (core.Jaxpr, core.ClosedJaxpr))]
    return [value.jaxpr if isinstance(value, core.ClosedJaxpr) else value for value in found]


def _subtotal(jaxpr: core.Jaxpr, times: float, path: str) -> dict[str, float]:
    counts: dict[str, float] = defaultdict(float)
    _walk(jaxpr, times, path, counts)
    return counts


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


def peak_flops_per_s(device_kind: str, dtype: str) -> float | None:
    """Return the dense peak of a device in FLOP/s for `float32` or `bfloat16`; None where it is unknown."""
    device = _find(device_kind)
    tflops = device and (device.bfloat16_tflops if dtype == "bfloat16" else device.float32_tflops)
    return None if tflops is None else tflops * 1e12


def device_memory_bytes(device_kind: str) -> int | None:
    """Return the bytes that a program may use of a device; None where that is unknown."""
    device = _find(device_kind)
    return None if device is None or device.memory_gib is None else round(device.memory_gib * 2**30)


def _find(device_kind: str) -> DeviceFacts | None:
    return next((device for device in _DEVICES if device.kind.lower() in device_kind.lower()), None)


def mfu(flops_per_s: float, devices: int, device_kind: str, dtype: str) -> float | None:
    """Return the share of the devices' peak that `flops_per_s` model FLOPs a second are; None where it is unknown."""
    peak = peak_flops_per_s(device_kind, dtype)
    return None if peak is None else flops_per_s / (devices * peak)


def memory() -> dict[str, int | None]:
    """Return host memory of this process now and at most, and the largest peak of the local devices, bytes.

    Backends that count nothing (CPU) give None.
    """
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.local_devices()]
    known = [peak for peak in peaks if peak is not None]
    return {
        "host_resident_bytes": psutil.Process().memory_info().rss,
        "host_peak_bytes": _host_peak_bytes(),
        "device_peak_bytes": max(known) if known else None,
    }


def _host_peak_bytes() -> int:
    status = Path("/proc/self/status")
    if status.exists():  # Linux, whose getrusage would count the parent's peak before exec
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
