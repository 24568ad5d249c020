"""Masks of times have the published counts and places."""

import jax
import numpy as np
import pytest

from jaxbio.transforms.time_masks import block_times, random_ranks, random_times

DRAWS = 4000


def draws(function):
    return np.asarray(jax.jit(jax.vmap(function))(jax.random.split(jax.random.key(0), DRAWS)))


def test_random_masks_hide_30_to_34_of_50_times_each_alike():
    hidden = draws(lambda key: random_times(key, 50, (0.6, 0.7)))
    counts = hidden.sum(1)
    assert (counts.min(), counts.max()) == (30, 34)
    assert counts.mean() == pytest.approx(32.0, abs=0.1)
    assert np.abs(hidden.mean(0) - 0.64).max() < 0.04


@pytest.mark.parametrize("last_hidden", [False, True])
def test_blocks_hide_what_the_published_ones_do(last_hidden):
    hidden = draws(lambda key: block_times(key, 50, (0.175, 0.225), 4, last_hidden))
    counts = hidden.sum(1)
    assert counts.min() >= 8
    assert counts.max() <= 42
    assert counts.mean() == pytest.approx(27.4, abs=0.4)
    assert counts.std() == pytest.approx(4.9, abs=0.3)
    assert hidden[:, 0].mean() == pytest.approx(0.10, abs=0.02)
    assert hidden[:, 25].mean() == pytest.approx(0.66, abs=0.03)
    assert (hidden[:, -1].mean() > 0.05) == last_hidden


def test_each_lead_is_shuffled_alone():
    rank_CN = np.asarray(random_ranks(jax.random.key(0), 12, 30))
    assert len({tuple(lead) for lead in rank_CN}) == 12
    np.testing.assert_array_equal(np.sort(rank_CN, 1), np.broadcast_to(np.arange(30), (12, 30)))
