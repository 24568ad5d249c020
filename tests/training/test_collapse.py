"""Collapse monitors on features whose spread and rank are known."""

import numpy as np
import pytest

from jaxbio.training.collapse import batch_spread, collapse_monitors, effective_rank


def test_equal_features_have_no_spread_and_no_rank():
    feature_BD = np.full((32, 16), 3.7, np.float32)
    assert collapse_monitors(feature_BD) == {"batch_spread": 0.0, "effective_rank": 0.0}


def test_one_direction_has_rank_one():
    rng = np.random.default_rng(0)
    feature_BD = 5.0 + np.outer(rng.normal(size=64), rng.normal(size=16))
    assert effective_rank(feature_BD) == pytest.approx(1.0, abs=1e-6)


def test_equal_shares_of_four_directions_have_rank_four():
    corners = np.concatenate([np.eye(4), -np.eye(4)])
    assert effective_rank(np.repeat(corners, 5, axis=0)) == pytest.approx(4.0, abs=1e-9)


def test_spread_is_the_deviation_over_segments():
    feature_BD = np.stack([np.zeros(8), np.full(8, 2.0)])
    assert batch_spread(feature_BD) == pytest.approx(1.0)


def test_rank_ignores_scale_and_offset_and_spread_follows_scale():
    feature_BD = np.random.default_rng(1).normal(size=(64, 8))
    assert effective_rank(100 + 3 * feature_BD) == pytest.approx(effective_rank(feature_BD))
    assert batch_spread(100 + 3 * feature_BD) == pytest.approx(3 * batch_spread(feature_BD))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_tell_nothing_apart(value):
    feature_BD = np.random.default_rng(0).normal(size=(16, 4))
    feature_BD[3, 2] = value
    assert collapse_monitors(feature_BD) == {"batch_spread": 0.0, "effective_rank": 0.0}
