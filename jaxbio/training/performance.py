"""What devices can do and what a run holds: peaks and memory by device kind, MFU, memory in use.

    mfu(flops / seconds, devices=jax.device_count(), device_kind=kind, dtype=config.precision.compute)

The FLOPs of a step are counted in the room `planning`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import psutil

from jaxbio.config.peak_memory import peak_bytes


class DeviceFacts(NamedTuple):
    """Facts of one device as JAX counts them (a TPU v3 core, else a chip), keyed by a part of its `device_kind`.

    Dense peaks in TFLOP/s for bfloat16 and float32 (tensor cores: TF32), from the vendors' data sheets. Memory in GiB
    that a program may use, where every device of the kind has the same: what libtpu 0.0.52 names in refusing a larger
    one (data sheets, cloud.google.com/tpu/docs: v4 32, v5e 16, v5p 95, v6e 32). Rates in GB/s: of the memory, and of
    the network between devices, all links of a device together (of TPUs their ICI, of GPUs NVLink in one direction).
    """

    kind: str
    bfloat16_tflops: float
    float32_tflops: float | None = None
    memory_gib: float | None = None
    memory_gb_per_s: float | None = None
    network_gb_per_s: float | None = None


class Bandwidths(NamedTuple):
    """Rates of one device, bytes/s."""

    memory_bytes_per_s: float
    network_bytes_per_s: float


# The first that is found decides, so longer names come first.
_DEVICES: tuple[DeviceFacts, ...] = (
    DeviceFacts("TPU v6 lite", 918.0, None, 31.24, 1640.0, 448.0),
    DeviceFacts("TPU v5 lite", 197.0, None, 15.75, 819.0, 200.0),
    DeviceFacts("TPU v5", 459.0, None, 95.73, 2765.0, 600.0),
    DeviceFacts("TPU v4", 275.0, None, 30.75, 1228.0, 300.0),
    DeviceFacts("TPU v3", 61.5),
    DeviceFacts("B200", 2250.0, 1100.0),
    DeviceFacts("H200", 989.4, 494.7, None, 4800.0, 450.0),
    DeviceFacts("H100 PCIe", 756.0, 378.0),
    DeviceFacts("H100", 989.4, 494.7, None, 3350.0, 450.0),
    DeviceFacts("A100", 312.0, 156.0, None, 2039.0, 300.0),
    DeviceFacts("L40S", 362.0, 183.0),
    DeviceFacts("L4", 121.0, 60.0),
    DeviceFacts("A10", 125.0, 62.5),
)


def peak_flops_per_s(device_kind: str, dtype: str) -> float | None:
    """Return the dense peak of a device in FLOP/s for `float32` or `bfloat16`; None where it is unknown."""
    device = _find(device_kind)
    tflops = device and (device.bfloat16_tflops if dtype == "bfloat16" else device.float32_tflops)
    return None if tflops is None else tflops * 1e12


def bandwidths(device_kind: str) -> Bandwidths | None:
    """Return the rates of a device's memory and network; None where they are unknown."""
    device = _find(device_kind)
    if device is None or device.memory_gb_per_s is None or device.network_gb_per_s is None:
        return None
    return Bandwidths(device.memory_gb_per_s * 1e9, device.network_gb_per_s * 1e9)


def device_memory_bytes(device_kind: str) -> int | None:
    """Return the bytes that a program may use of a device; None where that is unknown."""
    device = _find(device_kind)
    return None if device is None or device.memory_gib is None else round(device.memory_gib * 2**30)


def memory_of(devices: Sequence[jax.Device]) -> int | None:
    """Return the bytes that a program may use of each of `devices`, which may be described rather than there; None
    where that is unknown. Simulated ones share what this machine has.
    """
    if devices[0].platform == "cpu":
        return psutil.virtual_memory().total // len(devices)
    known = device_memory_bytes(devices[0].device_kind)
    return known if known is not None else (devices[0].memory_stats() or {}).get("bytes_limit")


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
        "host_peak_bytes": peak_bytes(),
        "device_peak_bytes": max(known) if known else None,
    }
