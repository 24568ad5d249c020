"""What a plan says of time, network, hosts and slices, on described devices; nothing is compiled here."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from jaxbio.config import fields
from jaxbio.config.faults import UserError
from jaxbio.planning.collectives import Collectives, Traffic
from jaxbio.planning.demand import Asked, make_demand, step_roofline
from jaxbio.planning.flops import FlopCount
from jaxbio.planning.plan import Plan, find_largest_batch, table
from jaxbio.planning.roofline import layer_of, make_roofline
from jaxbio.training.sharding import network_order


@dataclass(frozen=True)
class Described:
    """A chip of a v5e slice, four to a host."""

    id: int
    slice_index: int = 0
    device_kind: str = "TPU v5 lite"
    platform: str = "tpu"

    @property
    def process_index(self) -> int:
        return self.id // 4


PEAK, MEMORY, NETWORK = 197e12, 819e9, 200e9
COUNT = FlopCount(
    8 * PEAK, {"Encoder/qkv": 6 * PEAK, "Encoder/head": 2 * PEAK}, {"Encoder/qkv": MEMORY, "Encoder/head": 4 * MEMORY}
)
HALF = Asked(mfu=0.5)
STATE = {"params": 100, "opt_state": 200, "objective_state": 100}
CONFIG = {"train.batch": 512, "train.steps": 1000, "train.steps_per_dispatch": 10, "data.cache": "host"}


def demand_of(devices=8, traffic=None, asked=HALF, **changes):
    config = fields.change(
        fields.defaults(), CONFIG | {name.replace("__", "."): value for name, value in changes.items()}
    )
    return make_demand(config, [Described(id) for id in range(devices)], COUNT, STATE, traffic, None, asked)


def test_a_layer_takes_the_longer_of_its_products_and_its_bytes():
    roofline = make_roofline(
        COUNT, devices=1, tensor=1, device_kind="TPU v5 lite", dtype="bfloat16", update_bytes=819, network_bytes=0
    )
    found = {layer.name: (layer.seconds, layer.bound) for layer in roofline.layers}
    assert found["Encoder/qkv"] == (pytest.approx(6), "compute")
    assert found["Encoder/head"] == (pytest.approx(4), "memory")
    assert found["update"] == (pytest.approx(1e-9), "memory")
    assert roofline.step_s == pytest.approx(10)
    assert roofline.bound == "compute"


@pytest.mark.parametrize(("mesh", "read"), [("data", 1), ("fsdp", 1), ("tensor", 2)])
def test_every_device_reads_kernels_whole_but_for_what_tensor_splits(mesh, read):
    """Eight seconds of bytes at eight chips, four of them kernels', whose axis has two devices."""
    count = replace(COUNT, bytes_by_module={"Encoder/qkv": 0.0, "Encoder/head": 8 * MEMORY})
    count = replace(count, kernel_bytes_by_module={"Encoder/head": 4 * MEMORY})
    axes = {f"mesh.{axis}": 2 if axis == mesh else 1 for axis in ("fsdp", "tensor")} | {"mesh.data": -1}
    config = fields.change(fields.defaults(), CONFIG | axes)
    roofline = step_roofline(config, [Described(id) for id in range(8)], count, STATE, None)
    (head,) = [layer for layer in roofline.layers if layer.name == "Encoder/head"]
    assert head.memory_s == pytest.approx(4 / 8 + 4 / read)


def test_a_network_that_takes_longer_than_the_layers_bounds_the_step():
    """A dispatch of ten steps; a reduction passes the network twice."""
    traffic = Collectives(
        {"all-reduce": Traffic(10, int(10 * NETWORK)), "all-gather": Traffic(10, int(10 * NETWORK))}, 0
    )
    demand = demand_of(traffic=traffic)
    assert demand.roofline.network_s == pytest.approx(3)
    assert demand.roofline.step_s == pytest.approx(3)  # the layers take 10 / 8 s on eight chips
    assert demand.roofline.bound == "network"


def test_hours_follow_from_the_expected_step_and_an_epoch_from_its_pairs():
    demand = demand_of(asked=Asked(pairs=5120, mfu=0.5, loader_pairs_per_s=100.0))
    assert demand.expected_step_s == pytest.approx(2.0)  # 8 peaks on eight chips at half of it
    assert demand.hours["steps"]["hours"] == pytest.approx(2000 / 3600)
    assert demand.hours["steps"]["chip_hours"] == pytest.approx(8 * 2000 / 3600)
    assert demand.hours["epoch"]["hours"] == pytest.approx(10 * 2 / 3600)
    assert demand.hours["steps"]["least_hours"] == pytest.approx(1000 * 10 / 8 / 3600)
    assert demand.hosts == 2
    assert demand.pairs_per_s_per_host == pytest.approx(512 / 2 / 2)
    assert demand.gb_per_s_per_host == pytest.approx(128 * 72_040 / 1e9, rel=1e-3)
    assert demand.loader_suffices is False
    assert "MORE than the loader gives" in "\n".join(demand.lines())


def test_where_the_devices_hold_the_data_hosts_bring_nothing():
    demand = demand_of(data__cache="device")
    assert (demand.pairs_per_s_per_host, demand.gb_per_s_per_host) == (0.0, 0.0)
    assert "hosts bring nothing" in "\n".join(demand.lines())


def test_layers_are_named_by_their_last_names_alone():
    assert layer_of("Model/transformer/blocks/while/body/attention/qkv") == "blocks/attention/qkv"
    assert layer_of("") == "the rest"


def test_the_largest_batch_is_found_by_doubling_or_by_halving():
    config = fields.change(fields.defaults(), {"train.batch": 64})
    for limit, expected in ((300, 256), (64, 64), (40, 32), (7, None)):
        assert find_largest_batch(config, lambda changed: changed.train.batch <= limit, ways=8) == expected  # noqa: B023
    assert config.train.batch == 64


def test_a_table_has_a_line_for_each_topology():
    demand = demand_of(asked=Asked(pairs=5120, mfu=0.5))
    plan = Plan(8, "TPU v5 lite", {}, 512, 1, 2**34, STATE, 0, None, "no room", 1.0, 1.0, None, (), 1.0, (), demand)
    lines = table({"v5e:2x4": plan, "2xv5e:2x4": replace(plan, devices=16)}).splitlines()
    assert len(lines) == 3
    assert lines[1].split()[:3] == ["v5e:2x4", "8", "no"]
    assert lines[2].split()[:2] == ["2xv5e:2x4", "16"]


def test_slices_lie_along_data_and_each_is_whole(monkeypatch):
    devices = [Described(id, id // 8) for id in range(16)]
    asked = []

    def hybrid(within, across, devices):
        asked.append((within, across))
        return np.array(devices, object).reshape(4, 4, 1)

    monkeypatch.setattr("jax.experimental.mesh_utils.create_hybrid_device_mesh", hybrid)
    assert network_order((4, 4, 1), devices) == devices
    assert asked == [((2, 4, 1), (2, 1, 1))]
    with pytest.raises(UserError, match="a multiple of the 2 slices"):
        network_order((1, 16, 1), devices)


def test_any_axis_may_lie_over_several_hosts_of_gpus():
    """XLA gives every host of GPUs a slice_index of its own."""
    devices = [Described(id, id // 4, "NVIDIA H100 80GB HBM3", "gpu") for id in range(8)]
    for sizes in ((1, 8, 1), (2, 4, 1), (1, 1, 8)):
        assert network_order(sizes, devices[::-1]) == devices
