"""Described devices: what a topology's name may be, and what is said where there is no compiler for it."""

from types import SimpleNamespace

import jax
import psutil
import pytest

from jaxbio.config.faults import UserError
from jaxbio.planning import topology
from jaxbio.planning.topology import Topology, open_topology, parse_topology
from jaxbio.training.performance import memory_of


@pytest.mark.parametrize(
    ("text", "version", "sides", "devices"),
    [
        ("v5e:16x16", "v5e", (16, 16), 256),
        ("v5p:4x4x8", "v5p", (4, 4, 8), 128),
        ("v4:2x2x1", "v4", (2, 2, 1), 4),
        ("v6e:2x4", "v6e", (2, 4), 8),
        ("cpu:8", "cpu", (8,), 8),
    ],
)
def test_a_topology_is_a_version_and_sides(text, version, sides, devices):
    parsed = parse_topology(text)
    assert parsed == Topology(version, sides)
    assert parsed.devices == devices
    assert str(parsed) == text


@pytest.mark.parametrize("text", ["v5e", "v5litepod-256", "h100:8", "v5e:16", "v4:4x4", "v5e:0x4", "cpu:2x4", "v5e:x4"])
def test_any_other_text_is_refused_with_examples(text):
    with pytest.raises(UserError, match=r"v5e:16x16.*cpu:8") as caught:
        parse_topology(text)
    assert caught.value.faults[0].field == "--topology"


def test_without_libtpu_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(topology.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install libtpu.*\[tpu\]"):
        open_topology(parse_topology("v5e:2x2"))


def test_what_libtpu_refuses_is_the_users_fault_in_its_words(monkeypatch):
    def refuse(name, platform):
        raise jax.errors.JaxRuntimeError(f'INVALID_ARGUMENT: Topology layout "{name}" is not divisible\nby {platform}')

    monkeypatch.setattr(topology.importlib.util, "find_spec", lambda name: SimpleNamespace(origin="libtpu/__init__.py"))
    monkeypatch.setattr(topology.topologies, "get_topology_desc", refuse)
    with pytest.raises(UserError, match='says Topology layout "v5e:3x3" is not divisible; name a TPU slice'):
        open_topology(parse_topology("v5e:3x3"))


def test_simulated_devices_share_this_machines_memory():
    assert memory_of(jax.devices()) == psutil.virtual_memory().total // 8


def test_a_described_device_has_its_kinds_memory():
    described = SimpleNamespace(platform="tpu", device_kind="TPU v5 lite")
    assert memory_of([described] * 4) == 15.75 * 2**30


def test_several_slices_are_asked_of_the_compiler_by_their_number(monkeypatch):
    asked = []

    def describe(name, platform, **settings):
        asked.append((name, settings))
        return SimpleNamespace(devices=["chip"])

    monkeypatch.setattr(topology.importlib.util, "find_spec", lambda name: SimpleNamespace(origin="libtpu/__init__.py"))
    monkeypatch.setattr(topology.topologies, "get_topology_desc", describe)
    parsed = parse_topology("2xv5e:16x16")
    assert (str(parsed), parsed.devices) == ("2xv5e:16x16", 512)
    open_topology(parsed)
    open_topology(parse_topology("v5e:16x16"))
    assert asked == [("v5e:16x16", {"num_slices": 2}), ("v5e:16x16", {})]


@pytest.mark.parametrize("text", ["2xcpu:8", "0xv5e:2x2", "xv5e:2x2"])
def test_slices_that_cannot_be_are_refused(text):
    with pytest.raises(UserError, match="2xv5e:16x16"):
        parse_topology(text)
