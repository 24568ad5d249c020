"""Augmentation: each step does what the published code does, as often as it says, whatever else is in the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxbio.transforms.augment import augment, row_keys

OFF = {
    "noise_prob": 0.0,
    "noise_sigma": 0.01,
    "noise_bits": "counter_hash",
    "scale_prob": 0.0,
    "scale_range": (0.9, 1.1),
    "offset_prob": 0.0,
    "offset_max": 0.1,
    "block_prob": 0.0,
    "block_frac": (0.05, 0.1),
}
PUBLISHED = {**OFF, "noise_prob": 0.5, "scale_prob": 0.5, "offset_prob": 0.3, "block_prob": 0.3}
ROWS, LENGTH = 2000, 200


@jax.jit
def changed(key, x_BMCT, row_BM, numbers):
    settings = {**numbers, "noise_bits": OFF["noise_bits"], "block_frac": OFF["block_frac"]}
    return jax.vmap(jax.vmap(lambda k, x: augment(k, x, **settings)))(row_keys(key, row_BM), x_BMCT)


def run(settings, x_BMCT, row_BM, seed=0):
    numbers = {name: value for name, value in settings.items() if name not in ("noise_bits", "block_frac")}
    return np.asarray(changed(jax.random.key(seed), x_BMCT, jnp.asarray(row_BM, jnp.uint32), numbers))


@pytest.fixture(scope="module")
def rows():
    return np.arange(ROWS).reshape(-1, 2)


@pytest.fixture(scope="module")
def ones():
    return jnp.ones((ROWS // 2, 2, 2, LENGTH))


def test_nothing_changes_at_probability_zero(ones, rows):
    np.testing.assert_array_equal(run(OFF, ones, rows), ones)


def test_noise_has_the_stated_deviation_in_the_stated_share_of_segments(ones, rows):
    noise = (run({**OFF, "noise_prob": 0.5}, ones, rows) - 1).reshape(ROWS, -1)
    noisy = noise.std(-1) > 0
    assert stats.binomtest(int(noisy.sum()), ROWS, 0.5).pvalue > 1e-4
    assert noise[noisy].std() == pytest.approx(0.01, rel=0.01)
    assert stats.kstest(noise[noisy].ravel()[::7] / 0.01, "norm").pvalue > 1e-4


def test_one_factor_for_all_channels_is_uniform(ones, rows):
    factor = run({**OFF, "scale_prob": 0.5}, ones, rows).reshape(ROWS, -1)
    assert (factor.std(-1) < 1e-6).all()
    scaled = factor[:, 0][factor[:, 0] != 1]
    assert stats.binomtest(len(scaled), ROWS, 0.5).pvalue > 1e-4
    assert stats.kstest(scaled, stats.uniform(0.9, 0.2).cdf).pvalue > 1e-4


def test_each_channel_has_an_offset_of_its_own(ones, rows):
    offset = (run({**OFF, "offset_prob": 0.3}, ones, rows) - 1).reshape(ROWS, 2, LENGTH)
    assert (offset.std(-1) < 1e-6).all()
    shifted = offset[offset[:, 0, 0] != 0][..., 0]
    assert stats.binomtest(len(shifted), ROWS, 0.3).pvalue > 1e-4
    assert stats.kstest(shifted.ravel(), stats.uniform(-0.1, 0.2).cdf).pvalue > 1e-4
    assert abs(stats.pearsonr(*shifted.T).statistic) < 4.5 / np.sqrt(len(shifted))


def test_one_block_is_zeroed_in_all_channels(ones, rows):
    zero = run({**OFF, "block_prob": 0.3}, ones, rows).reshape(ROWS, 2, LENGTH) == 0
    np.testing.assert_array_equal(zero[:, 0], zero[:, 1])
    blocked = zero[zero.any((-2, -1)), 0]
    assert stats.binomtest(len(blocked), ROWS, 0.3).pvalue > 1e-4
    assert (np.abs(np.diff(np.pad(blocked, ((0, 0), (1, 1))).astype(int))).sum(-1) == 2).all()  # in one piece
    length = blocked.sum(-1)
    assert set(length) == set(range(LENGTH // 20, LENGTH // 10))  # the upper end excluded
    start = blocked.argmax(-1)
    assert start.min() <= 3
    assert (start + length).max() >= LENGTH - 3


def test_a_full_segment_gets_blocks_of_450_to_899_samples():
    x_BMCT = jnp.ones((300, 1, 1, 9000))
    length = (run({**OFF, "block_prob": 1.0}, x_BMCT, np.arange(300)[:, None]) == 0).sum(-1)
    assert 450 <= length.min() < 460
    assert 890 < length.max() <= 899


def test_steps_come_in_the_published_order(ones, rows):
    settings = {**OFF, "noise_prob": 1.0, "scale_prob": 1.0, "offset_prob": 1.0, "block_prob": 1.0}
    whole = run(settings, ones, rows)
    noisy = run({**settings, "scale_prob": 0.0, "offset_prob": 0.0, "block_prob": 0.0}, ones, rows)
    scaled = run({**settings, "noise_prob": 0.0, "offset_prob": 0.0, "block_prob": 0.0}, ones, rows)
    shifted = run({**settings, "noise_prob": 0.0, "scale_prob": 0.0, "block_prob": 0.0}, ones, rows)
    kept = run({**settings, "noise_prob": 0.0, "scale_prob": 0.0, "offset_prob": 0.0}, ones, rows)
    np.testing.assert_allclose(whole, (noisy * scaled + shifted - 1) * kept, atol=1e-6)


def test_a_segment_is_changed_alike_in_any_batch(rows):
    x_BMCT = jax.random.normal(jax.random.key(5), (64, 2, 2, LENGTH))
    whole = run(PUBLISHED, x_BMCT, rows[:64])
    order = np.random.default_rng(0).permutation(64)[:24]
    np.testing.assert_array_equal(run(PUBLISHED, x_BMCT[order], rows[order]), whole[order])


def test_rows_members_and_steps_are_changed_differently():
    x_BMCT = jnp.ones((2, 2, 2, LENGTH))
    settings = {**OFF, "noise_prob": 1.0}
    row_BM = np.array([[5, 5], [6, 5]])  # one row as both members, and another
    first, second = run(settings, x_BMCT, row_BM), run(settings, x_BMCT, row_BM, seed=1)
    np.testing.assert_array_equal(first[0, 1], first[1, 1])
    for a, b in ((first[0, 0], first[0, 1]), (first[0, 0], first[1, 0]), (first[0, 0], second[0, 0])):
        assert abs(stats.pearsonr(a.ravel() - 1, b.ravel() - 1).statistic) < 0.3
