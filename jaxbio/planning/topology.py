"""Devices that are not there: those of a TPU slice as the compiler knows it, or simulated ones on this machine.

    devices = open_topology(parse_topology("v5e:16x16"))     # 256 devices to compile for

A TPU's are described by libtpu, the compiler for TPUs, which needs no TPU.
"""

import importlib.metadata
import importlib.util
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
from jax.experimental import topologies

from jaxbio.config.faults import Fault, UserError

# Sides of a slice's network: cloud.google.com/tpu/docs, a page for each version. A v4 chip has two cores, which JAX
# drives as one device on a v4 host and libtpu only when told so.
_DIMENSIONS: Mapping[str, int] = {"v4": 3, "v5e": 2, "v5p": 3, "v6e": 2}
_SETTINGS: Mapping[str, Mapping[str, Any]] = {"v4": {"chip_config_name": "megacore"}}
_REMEDY = (
    "a TPU slice such as v5e:16x16, v6e:4x4, v4:2x2x4 or v5p:4x4x8, several of them such as 2xv5e:16x16, or cpu:8 for "
    "devices simulated here"
)


@dataclass(frozen=True)
class Topology:
    """A version of TPU (or cpu), the sides of a slice's network, in chips, and how many slices there are."""

    version: str
    sides: tuple[int, ...]
    slices: int = 1

    def __str__(self) -> str:
        return f"{self.slices}x{self.slice_name}" if self.slices > 1 else self.slice_name

    @property
    def slice_name(self) -> str:
        """Name of one slice."""
        return f"{self.version}:{'x'.join(map(str, self.sides))}"

    @property
    def devices(self) -> int:
        """Number of devices."""
        return self.slices * math.prod(self.sides)


def parse_topology(text: str) -> Topology:
    """Return the topology that `text` names, [SLICESx]VERSION:AxB[xC] or cpu:N; raises UserError for any other text."""
    match = re.fullmatch(r"(?:(\d+)x)?([a-z]\w*):(\d+(?:x\d+)*)", text)
    if match is None or match[2] not in (*_DIMENSIONS, "cpu") or (match[1] and match[2] == "cpu"):
        raise UserError(Fault("--topology", text, _REMEDY))
    topology = Topology(match[2], tuple(map(int, match[3].split("x"))), int(match[1] or 1))
    wanted = _DIMENSIONS.get(topology.version, 1)
    if len(topology.sides) != wanted or not topology.devices:
        raise UserError(Fault("--topology", text, f"{topology.version} takes {wanted} positive numbers; {_REMEDY}"))
    return topology


def open_topology(topology: Topology) -> list[jax.Device]:
    """Return the devices of `topology`, to compile for; simulated ones are set up, so before any other use of JAX.

    Raises UserError where libtpu is not installed or knows no such slice.
    """
    if topology.version == "cpu":
        jax.config.update("jax_num_cpu_devices", topology.devices)
        return jax.devices("cpu")
    found = importlib.util.find_spec("libtpu")
    if found is None or found.origin is None:
        raise UserError(
            Fault("libtpu", None, "plans for TPUs need their compiler: pip install libtpu, the extra [tpu]")
        )
    settings = dict(_SETTINGS.get(topology.version, {}))
    if topology.slices > 1:
        settings["num_slices"] = topology.slices
    try:
        devices = topologies.get_topology_desc(topology.slice_name, "tpu", **settings).devices
    except jax.errors.JaxRuntimeError as error:
        said = str(error).partition("\n")[0].removeprefix("INVALID_ARGUMENT: ")
        raise UserError(Fault("--topology", str(topology), f"libtpu says {said}; name {_REMEDY}")) from error
    return list(devices)


def libtpu_version(topology: Topology) -> str | None:
    """Return the version of the compiler for `topology`; None for simulated devices."""
    return None if topology.version == "cpu" else importlib.metadata.version("libtpu")
