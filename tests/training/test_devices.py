"""Devices that are not there are the user's fault, named; see tests/launch for the launch line."""

from dataclasses import dataclass

import pytest

from jaxbio.config.faults import UserError
from jaxbio.training.devices import check_devices, check_slices


@pytest.mark.parametrize("platform", ["any", "cpu"])
def test_devices_that_are_there_are_no_fault(platform):
    check_devices(platform)


@pytest.mark.parametrize(("platform", "extra"), [("gpu", "[cuda]"), ("tpu", "[tpu]")])
def test_devices_that_are_not_there_are_named_with_what_brings_them(platform, extra):
    with pytest.raises(UserError) as caught:
        check_devices(platform)
    (fault,) = caught.value.faults
    assert (fault.field, fault.value) == ("mesh.platform", platform)
    assert "only cpu" in fault.remedy
    assert f":{platform}" in fault.remedy
    assert extra in fault.remedy


@dataclass(frozen=True)
class Described:
    slice_index: int
    platform: str = "tpu"


@pytest.mark.parametrize(("announced", "found", "missing"), [("2", [0], "1"), ("4", [0, 0, 3], "1, 2")])
def test_a_slice_that_is_missing_at_the_start_is_named(monkeypatch, announced, found, missing):
    monkeypatch.setenv("MEGASCALE_NUM_SLICES", announced)
    with pytest.raises(UserError, match=f"none of {missing}: start the line") as caught:
        check_slices([Described(number) for number in found])
    (fault,) = caught.value.faults
    assert (fault.field, fault.value) == ("MEGASCALE_NUM_SLICES", announced)


def test_slices_that_are_all_there_and_devices_without_slices_are_no_fault(monkeypatch):
    check_slices([Described(0)])
    monkeypatch.setenv("MEGASCALE_NUM_SLICES", "2")
    check_slices([Described(0), Described(1)])
    check_slices([Described(0, "cpu")])
