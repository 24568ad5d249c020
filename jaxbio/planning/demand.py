"""What a run asks of time and of its hosts: hours, chip-hours, and the pairs that must reach the devices.

    demand = make_demand(config, devices, count, state_bytes, traffic, data, Asked(pairs=20_000_000))
    demand.hours["epoch"], demand.gb_per_s_per_host

Times are those of the roofline, which no run beats, and those at a share of the devices' peak that a run may reach.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxbio.data.batch import batch_spec
from jaxbio.planning.collectives import Collectives
from jaxbio.planning.flops import FlopCount
from jaxbio.planning.roofline import Roofline, make_roofline
from jaxbio.training.performance import peak_flops_per_s
from jaxbio.training.run_data import RunData
from jaxbio.training.sharding import mesh_sizes

_PASSES = {"all-reduce": 2}  # a reduction passes the network twice: parts are reduced, then gathered


@dataclass(frozen=True)
class Asked:
    """What only the asker knows: pairs of an epoch, the share of the peak that he expects, and the pairs a second that
    the loader gives on one of his hosts (tools/bench_loader.py); None: unknown.
    """

    pairs: int | None = None
    mfu: float = 0.35
    loader_pairs_per_s: float | None = None


NOTHING_ASKED = Asked()


@dataclass(frozen=True)
class Demand:
    """What a run asks for.

    `expected_step_s` is the time of a step at `mfu` of the peak, or the roofline's where that is longer; `hours` are by
    what is done (`steps`: those of the recipe; `epoch`), each {"hours", "chip_hours"} and the least of both. Pairs and
    GB a second are those that one host must bring for `expected_step_s`; 0 where the devices hold the data.
    """

    hosts: int
    roofline: Roofline | None
    mfu: float
    expected_step_s: float | None
    hours: Mapping[str, Mapping[str, float]]
    pairs_per_s_per_host: float | None
    gb_per_s_per_host: float | None
    loader_suffices: bool | None

    def record(self) -> dict[str, Any]:
        """Return it as part of a JSON object."""
        return {
            "hosts": self.hosts,
            "roofline": self.roofline and self.roofline.record(),
            "expected_mfu": self.mfu,
            "expected_step_s": self.expected_step_s,
            "hours": {name: dict(found) for name, found in self.hours.items()},
            "input": {
                "pairs_per_s_per_host": self.pairs_per_s_per_host,
                "gb_per_s_per_host": self.gb_per_s_per_host,
                "loader_suffices": self.loader_suffices,
            },
        }

    def lines(self) -> list[str]:
        """Return it in words."""
        if self.roofline is None or self.expected_step_s is None:
            return ["the rates of these devices are unknown: no times"]
        lines = [f"least time of a step: {self.roofline.step_s:.4g} s, bound by {self.roofline.bound}; of it"]
        for layer in self.roofline.layers:
            lines.append(
                f"  {layer.name:45} {layer.seconds * 1e3:>9.3f} ms  {layer.bound:8} "
                f"(products {layer.compute_s * 1e3:.3f}, bytes {layer.memory_s * 1e3:.3f})"
            )
        lines.append(f"  {'collectives, beside the layers':45} {self.roofline.network_s * 1e3:>9.3f} ms  network")
        lines.append(f"at {100 * self.mfu:g} % of the peak a step takes {self.expected_step_s:.4g} s")
        for name, found in self.hours.items():
            lines.append(
                f"{name}: {found['hours']:.3g} hours, {found['chip_hours']:.4g} chip-hours "
                f"(at least {found['least_hours']:.3g} and {found['least_chip_hours']:.4g})"
            )
        if not self.pairs_per_s_per_host:
            return [*lines, "input: the devices hold the data, hosts bring nothing"]
        enough = {None: "", True: ": the loader gives that", False: ": MORE than the loader gives"}
        lines.append(
            f"input: each of {self.hosts} hosts brings {self.pairs_per_s_per_host:,.0f} pairs/s, "
            f"{self.gb_per_s_per_host:.3g} GB/s{enough[self.loader_suffices]}"
        )
        return lines


def step_roofline(
    config: ConfigDict,
    devices: Sequence[jax.Device],
    count: FlopCount,
    state_bytes: Mapping[str, int],
    traffic: Collectives | None,
) -> Roofline | None:
    """Return the roofline of the step of `config` on `devices`; None where their rates are unknown.

    `count`, `state_bytes` and `traffic` are those of `make_demand`.
    """
    moved = 2 * sum(state_bytes.values()) + state_bytes["params"]  # in and out, and the gradient in
    sent = 0 if traffic is None else sum(_PASSES.get(name, 1) * one.bytes for name, one in traffic.by_kind.items())
    mesh = config.mesh
    return make_roofline(
        count,
        devices=len(devices),
        tensor=mesh_sizes(mesh.data, mesh.fsdp, mesh.tensor, len(devices))[2],
        device_kind=devices[0].device_kind,
        dtype="bfloat16",  # as the peak: no type of product is faster
        update_bytes=moved,
        network_bytes=sent // config.train.steps_per_dispatch,
    )


def make_demand(
    config: ConfigDict,
    devices: Sequence[jax.Device],
    count: FlopCount,
    state_bytes: Mapping[str, int],
    traffic: Collectives | None,
    data: RunData | None,
    asked: Asked,
) -> Demand:
    """Return what a run of `config` asks of `devices`, whose step has the products `count` (`flops.step_products`).

    `state_bytes` are those of the parts of the state at one device; `traffic` is that of a dispatch.
    """
    kind, chips = devices[0].device_kind, len(devices)
    hosts = len({device.process_index for device in devices})
    roofline = step_roofline(config, devices, count, state_bytes, traffic)
    if roofline is None:
        return Demand(hosts, None, asked.mfu, None, {}, None, None, None)
    peak = peak_flops_per_s(kind, "bfloat16")
    assert peak is not None, "a roofline knows it"
    expected_s = max(count.total / (chips * peak * asked.mfu), roofline.step_s)
    pairs_per_step = float(config.train.batch) if data is None else data.pairs_per_step
    pairs = asked.pairs if data is None else len(data.train.rows_NM)
    steps = {"steps": config.train.steps} | ({} if pairs is None else {"epoch": pairs / pairs_per_step})
    hours = {
        name: {
            "hours": number * expected_s / 3600,
            "chip_hours": number * expected_s * chips / 3600,
            "least_hours": number * roofline.step_s / 3600,
            "least_chip_hours": number * roofline.step_s * chips / 3600,
        }
        for name, number in steps.items()
    }
    if config.data.cache == "device":
        return Demand(hosts, roofline, asked.mfu, expected_s, hours, 0.0, 0.0, True)
    batch_bytes = sum(array.nbytes for array in batch_spec(config).values())
    wanted = pairs_per_step / expected_s / hosts
    given = asked.loader_pairs_per_s
    return Demand(
        hosts,
        roofline,
        asked.mfu,
        expected_s,
        hours,
        wanted,
        batch_bytes / expected_s / hosts / 1e9,
        None if given is None else given >= wanted,
    )
