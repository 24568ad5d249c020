"""Uniformity and independence of both generators, by tests whose chance of a false alarm is below one in 10^5."""

import jax
import numpy as np
import pytest
from scipy import stats

from jaxbio.transforms.random_bits import GENERATORS, normal

ALARM = 1e-5
SHAPE = (64, 18, 512)
each_generator = pytest.mark.parametrize("generator", sorted(GENERATORS))


def draw(generator, *folds, shape=SHAPE):
    key = jax.random.key(7)
    for fold in folds:
        key = jax.random.fold_in(key, fold)
    return np.asarray(GENERATORS[generator](key, shape))


def agreement_p(a, b):
    """Probability of so many equal or unequal truth values if each of `a`, `b` were fair coins."""
    return stats.binomtest(int((a == b).sum()), a.size).pvalue


@each_generator
def test_every_byte_is_uniform(generator):
    for byte in range(4):
        counts = np.bincount(((draw(generator) >> (8 * byte)) & 255).ravel(), minlength=256)
        assert stats.chisquare(counts).pvalue > ALARM


@each_generator
def test_every_bit_is_fair_and_independent_of_every_other(generator):
    bits_32 = (draw(generator).ravel()[:, None] >> np.arange(32, dtype=np.uint32)) & 1
    n = len(bits_32)
    centred = bits_32 - 0.5
    assert np.abs(centred.sum(0)).max() < 5.5 * np.sqrt(n) / 2
    correlation = centred.T @ centred * 4 / n - np.eye(32)
    assert np.abs(correlation - np.diag(np.diag(correlation))).max() < 5.5 / np.sqrt(n)


@each_generator
@pytest.mark.parametrize("lag", [1, 2, 3, 18, 512, 9216, 65536])
def test_neighbours_at_any_lag_are_independent(generator, lag):
    uniform = draw(generator).ravel() / 2**32 - 0.5
    correlation = np.mean(uniform[lag:] * uniform[:-lag]) * 12
    assert abs(correlation) < 5 / np.sqrt(uniform.size - lag)
    high = uniform > 0
    assert agreement_p(high[lag:], high[:-lag]) > ALARM


@each_generator
def test_keys_of_neighbouring_steps_rows_and_layers_are_independent(generator):
    reference = draw(generator, 0)
    for folds in [(1,), (2,), (0, 0), (0, 1), (1, 0), (2**31,)]:
        other = draw(generator, *folds)
        for bit in (0, 15, 31):
            assert agreement_p(reference >> bit & 1, other >> bit & 1) > ALARM
        assert (reference == other).sum() < 6  # 0.0001 expected by chance


@each_generator
def test_no_key_gives_a_shifted_copy_of_another(generator):
    first = set(draw(generator, 0, shape=(2**16,)).tolist())
    start = draw(generator, 1, shape=(2**16,))
    # two words in a row that follow each other in the first sequence too
    sequence = draw(generator, 0, shape=(2**16,))
    follows = dict(zip(sequence[:-1].tolist(), sequence[1:].tolist()))
    assert len(first) > 65_500
    assert not any(follows.get(a) == b for a, b in zip(start[:-1].tolist(), start[1:].tolist()))


@each_generator
def test_a_dropout_mask_has_binomial_rows_columns_and_total(generator):
    keep = draw(generator) >= np.uint32(round(0.1 * 2**32))
    assert stats.binomtest(int(keep.sum()), keep.size, 0.9).pvalue > ALARM
    for axis in range(3):
        n = keep.size // keep.shape[axis]
        counts = keep.sum(tuple(i for i in range(3) if i != axis))
        z = (counts - 0.9 * n) / np.sqrt(0.09 * n)
        assert stats.chi2.sf((z**2).sum(), len(z)) > ALARM
        assert stats.chi2.cdf((z**2).sum(), len(z)) > ALARM  # nor too even


@each_generator
def test_the_same_key_gives_the_same_bits_in_any_program(generator):
    key = jax.random.key(3)
    alone = GENERATORS[generator](key, (5, 7))
    np.testing.assert_array_equal(jax.jit(lambda k: GENERATORS[generator](k, (5, 7)))(key), alone)
    batched = jax.vmap(lambda k: GENERATORS[generator](k, (5, 7)))(jax.numpy.stack([key, jax.random.key(4)]))
    np.testing.assert_array_equal(batched[0], alone)


@each_generator
def test_normal_numbers_are_normal(generator):
    x = np.asarray(normal(jax.random.key(1), (200_000,), generator))
    assert np.isfinite(x).all()
    assert stats.kstest(x, "norm").pvalue > ALARM
    assert 4 < np.abs(x).max() < 6
    assert abs(np.mean(x[1:] * x[:-1])) < 5 / np.sqrt(x.size)
