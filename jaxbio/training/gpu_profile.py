"""What a profile says of a GPU's time: which kernels took it, and how much of it was no matrix product.

read_device_time(folder)      # of jax.profiler.trace(folder), profile.at or tools/bench_step.py --profile
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

# How cuBLAS, CUTLASS and XLA's Triton emitter name their matrix products on NVIDIA's devices.
_PRODUCT = re.compile(
    r"gemm|nvjet|cutlass|xmma|cublas|triton_.*dot|cudnn.*(fprop|dgrad|wgrad|mha|attention)", re.IGNORECASE
)


class Kernel(NamedTuple):
    """A kernel of a profile: what all its calls took, s, and how many there were."""

    name: str
    seconds: float
    calls: int


class DeviceTime(NamedTuple):
    """The time of one device over a profile, s.

    `span_s` from the start of the first kernel to the end of the last; `busy_s` of it with any kernel running;
    `products_s` the sum of those that are matrix products by name; `kernels` all of them, the longest first.
    """

    span_s: float
    busy_s: float
    products_s: float
    kernels: tuple[Kernel, ...]


class _Event(NamedTuple):
    name: str
    start_ns: float
    end_ns: float


def read_device_time(folder: Path) -> DeviceTime | None:
    """Return the time of the first GPU of the newest profile in `folder`; None where it holds no GPU's.

    Raises FileNotFoundError where the folder holds no profile.
    """
    profiles = sorted(folder.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    if not profiles:
        raise FileNotFoundError(f"{folder} holds no profile")
    data = jax.profiler.ProfileData.from_file(str(profiles[-1]))
    devices = sorted((plane for plane in data.planes if "/device:" in plane.name), key=lambda plane: plane.name)
    events = [
        _Event(event.name, event.start_ns, event.start_ns + event.duration_ns)
        for plane in devices[:1]
        for line in plane.lines
        if line.name.startswith("Stream")
        for event in line.events
    ]
    return summarise(events) if events else None


def summarise(events: Sequence[tuple[str, float, float]]) -> DeviceTime:
    """Return the device's time of `events`: the name of a kernel, its start and its end, ns."""
    seconds: dict[str, float] = {}
    calls: dict[str, int] = {}
    for name, start_ns, end_ns in events:
        seconds[name] = seconds.get(name, 0.0) + (end_ns - start_ns) / 1e9
        calls[name] = calls.get(name, 0) + 1
    longest = sorted(seconds, key=lambda name: -seconds[name])
    kernels = tuple(Kernel(name, seconds[name], calls[name]) for name in longest)
    span_ns = max(end for _, _, end in events) - min(start for _, start, _ in events)
    products_s = sum(kernel.seconds for kernel in kernels if _PRODUCT.search(kernel.name))
    return DeviceTime(span_ns / 1e9, _union_ns((start, end) for _, start, end in events) / 1e9, products_s, kernels)


def _union_ns(intervals: Iterable[tuple[float, float]]) -> float:
    """Return how much of the time the intervals cover together."""
    covered, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered
