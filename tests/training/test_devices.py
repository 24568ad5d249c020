"""Devices that are not there are the user's fault, named; see tests/launch for the launch line."""

import pytest

from jaxbio.config.faults import UserError
from jaxbio.training.devices import check_devices


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
