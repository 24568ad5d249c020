"""Scaling of stored integers against NumPy in float64."""

import numpy as np
import pytest

from jaxbio.config.faults import UserError
from jaxbio.transforms.scaling import scale


@pytest.fixture
def stored():
    rng = np.random.default_rng(0)
    segment_BMCT = rng.integers(-32767, 32768, (3, 2, 2, 500)).astype(np.int16)
    segment_BMCT[..., 0], segment_BMCT[..., 1] = -32767, 32767  # a stored channel spans the whole range
    offset = rng.normal(0, 100, (3, 2, 2, 1))
    gain = rng.uniform(1e-5, 1e-1, (3, 2, 2, 1))
    return segment_BMCT, np.concatenate([offset, gain], -1).astype(np.float32)


def physical(segment_BMCT, scale_BMC2):
    return scale_BMC2[..., :1].astype(np.float64) + scale_BMC2[..., 1:].astype(np.float64) * segment_BMCT


def test_per_channel_and_unit_span_their_intervals(stored):
    for kind, low in (("per_channel", -1.0), ("unit", 0.0)):
        x_BMCT = np.asarray(scale(*stored, kind))
        assert x_BMCT.dtype == np.float32
        np.testing.assert_allclose(x_BMCT.min(-1), low, atol=1e-6)
        np.testing.assert_allclose(x_BMCT.max(-1), 1.0, atol=1e-6)
        np.testing.assert_allclose(np.diff(x_BMCT), np.diff(stored[0].astype(float)) * (1 - low) / 65534, atol=1e-6)


def test_physical_gives_back_physical_units(stored):
    np.testing.assert_allclose(scale(*stored, "physical"), physical(*stored), rtol=1e-5, atol=1e-3)


def test_joint_is_the_authors_min_max_over_both_channels(stored):
    x_BMCT = physical(*stored)
    low, high = x_BMCT.min((-2, -1), keepdims=True), x_BMCT.max((-2, -1), keepdims=True)
    np.testing.assert_allclose(scale(*stored, "joint"), 2 * (x_BMCT - low) / (high - low) - 1, atol=2e-6)


def test_joint_of_a_segment_that_does_not_move_is_finite():
    assert np.isfinite(scale(np.zeros((2, 100), np.int16), np.zeros((2, 2), np.float32), "joint")).all()


def test_unknown_scaling_is_refused(stored):
    with pytest.raises(UserError, match=r"data\.scaling"):
        scale(*stored, "z_score")
