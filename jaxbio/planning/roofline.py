"""The least time a step can take, layer by layer: products at the device's peak, bytes at its memory's and network's.

A layer takes the longer of computing its products and of moving their operands and results; everything elementwise is
taken to ride along, as compilers fuse it. What grows with the batch is divided over all devices; kernels and their
gradients are moved whole at each, but for the axis tensor, which splits them. The update of parameters, moments and
teacher moves each of them once in and out. Both are bounds from below: a run takes longer, and the larger of two bounds
says what to look at first.

    roofline = make_roofline(step_products(config), devices=256, tensor=1, device_kind="TPU v5 lite", dtype="bfloat16",
                             update_bytes=10**9, network_bytes=10**8)
    roofline.step_s, roofline.bound, roofline.layers
"""

import re
from collections import defaultdict
from dataclasses import dataclass

from jaxbio.planning.flops import FlopCount
from jaxbio.training.performance import bandwidths, peak_flops_per_s

_SMALL = 0.01  # layers with a smaller share of the step are one line
_ELSEWHERE = "the rest"


@dataclass(frozen=True)
class Layer:
    """One layer's part of a step: seconds of a device, and which of the two takes them, `compute` or `memory`."""

    name: str
    compute_s: float
    memory_s: float

    @property
    def seconds(self) -> float:
        """The longer of the two."""
        return max(self.compute_s, self.memory_s)

    @property
    def bound(self) -> str:
        """What bounds the layer."""
        return "compute" if self.compute_s >= self.memory_s else "memory"


@dataclass(frozen=True)
class Roofline:
    """The least time of a step: that of its layers one after another, or that of its network, whichever is longer.

    `network_s` is what collectives take at the network's rate, as if hidden behind nothing of each other.
    """

    layers: tuple[Layer, ...]
    network_s: float

    @property
    def device_s(self) -> float:
        """Seconds of the layers."""
        return sum(layer.seconds for layer in self.layers)

    @property
    def step_s(self) -> float:
        """The least time of a step."""
        return max(self.device_s, self.network_s)

    @property
    def bound(self) -> str:
        """What bounds the step: `network`, or what most of the layers' time is spent on."""
        if self.network_s > self.device_s:
            return "network"
        of_compute = sum(layer.seconds for layer in self.layers if layer.bound == "compute")
        return "compute" if 2 * of_compute >= self.device_s else "memory"

    def record(self) -> dict:
        """Return it as a JSON object."""
        return {
            "step_s": self.step_s,
            "bound": self.bound,
            "network_s": self.network_s,
            "layers": [
                {"layer": layer.name, "compute_s": layer.compute_s, "memory_s": layer.memory_s, "bound": layer.bound}
                for layer in self.layers
            ],
        }


def make_roofline(
    count: FlopCount,
    *,
    devices: int,
    tensor: int,
    device_kind: str,
    dtype: str,
    update_bytes: int,
    network_bytes: int,
) -> Roofline | None:
    """Return the roofline of a step whose products are `count`; None where the device's rates are unknown.

    `tensor` of the `devices` share a kernel. `update_bytes` are those that the update moves at one device,
    `network_bytes` those of its collectives.
    """
    peak, rates = peak_flops_per_s(device_kind, dtype), bandwidths(device_kind)
    if peak is None or rates is None:
        return None
    flops: dict[str, float] = defaultdict(float)
    moved: dict[str, float] = defaultdict(float)
    for path, value in count.by_module.items():
        flops[layer_of(path)] += value
        kernels = count.kernel_bytes_by_module.get(path, 0.0)
        moved[layer_of(path)] += (count.bytes_by_module[path] - kernels) / devices + kernels / tensor
    layers = [Layer(name, flops[name] / (devices * peak), moved[name] / rates.memory_bytes_per_s) for name in flops]
    whole_s = sum(layer.seconds for layer in layers)
    kept = [layer for layer in layers if layer.seconds >= _SMALL * whole_s]
    small = [layer for layer in layers if layer.seconds < _SMALL * whole_s]
    if small:
        kept.append(Layer(_ELSEWHERE, sum(one.compute_s for one in small), sum(one.memory_s for one in small)))
    kept.sort(key=lambda layer: -layer.seconds)
    kept.append(Layer("update", 0.0, update_bytes / rates.memory_bytes_per_s))
    return Roofline(tuple(kept), network_bytes / rates.network_bytes_per_s)


def layer_of(path: str) -> str:
    """Return the layer of a module path: the module and its last two names, without what JAX calls its loops."""
    names = [
        name
        for name in path.split("/")
        if name and not re.fullmatch(r"while|body|closed_call|checkpoint|\w+\(.*", name)
    ]
    return "/".join(names[-3:]) or _ELSEWHERE
