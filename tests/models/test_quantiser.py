"""The quantiser: equal to two published ones in their steps, and healthy where they are not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbio.models import quantiser
from jaxbio.models.quantiser import Codebook


@pytest.fixture(scope="module")
def sigma(parity_dir):
    with np.load(parity_dir / "sigma_ppg.npz") as arrays:
        yield {name: arrays[name] for name in arrays.files if arrays[name].size < 1e5}


@pytest.fixture(scope="module")
def vqvae(parity_dir):
    with np.load(parity_dir / "ecg_vqvae_triplet.npz") as arrays:
        yield {name.removeprefix("quantiser/"): arrays[name] for name in arrays.files if name.startswith("quantiser/")}


def blobs(rng, clusters, each, width):
    centre_KZ = rng.normal(size=(clusters, width)) * 5
    return (centre_KZ[:, None] + 0.1 * rng.normal(size=(clusters, each, width))).reshape(-1, width).astype(np.float32)


def test_codes_and_moves_on_the_sphere_equal_sigma_ppgs(sigma):
    vectors = sigma["codes_BA"].size
    start = Codebook(sigma["tokenizer/quantize.embedding.weight"], sigma["tokenizer/quantize.cluster_size"] / vectors)
    z_NZ = quantiser.unit(sigma["embeddings_BAZ"].reshape(vectors, -1))
    code_N = quantiser.nearest(z_NZ, start.code_KZ)
    np.testing.assert_array_equal(code_N, sigma["codes_BA"].ravel())
    np.testing.assert_allclose(start.code_KZ[code_N], sigma["quantised_BAZ"].reshape(vectors, -1), atol=1e-5)
    commitment = quantiser.attraction(z_NZ, start.code_KZ[code_N])
    np.testing.assert_allclose(commitment, sigma["loss_commitment"], rtol=1e-5)

    book = quantiser.move_on_sphere(start, quantiser.members(z_NZ, code_N, 64), 0.99)
    np.testing.assert_allclose(book.code_KZ, sigma["codebook_after_clean_KZ"], atol=2e-6)
    np.testing.assert_allclose(book.use_K * vectors, sigma["cluster_size_after_clean_K"], atol=1e-5)
    z_NZ = quantiser.unit(sigma["embeddings_augmented_BAZ"].reshape(vectors, -1))
    code_N = quantiser.nearest(z_NZ, book.code_KZ)
    np.testing.assert_array_equal(code_N, sigma["codes_augmented_BA"].ravel())
    book = quantiser.move_on_sphere(book, quantiser.members(z_NZ, code_N, 64), 0.99)
    np.testing.assert_allclose(book.code_KZ, sigma["codebook_after_KZ"], atol=2e-6)
    np.testing.assert_allclose(book.use_K * vectors, sigma["cluster_size_after_K"], atol=1e-5)


def test_kmeans_on_the_sphere_equals_sigma_ppgs(sigma):
    x_NZ = sigma["kmeans_samples_NZ"]
    found = quantiser.kmeans(x_NZ, x_NZ[sigma["kmeans_start_K"]], 10, on_sphere=True)
    np.testing.assert_allclose(found.code_KZ, sigma["kmeans_codebook_KZ"], atol=2e-6)
    np.testing.assert_array_equal(np.round(found.use_K * len(x_NZ)), sigma["kmeans_count_K"])


def test_steps_by_sums_equal_the_published_vqvaes(vqvae):
    x_NZ, code_KZ = vqvae["x_NZ"], vqvae["codebook_KZ"]
    vectors, codes = len(x_NZ), len(code_KZ)
    book, sum_KZ = Codebook(code_KZ, jnp.full(codes, 1 / vectors)), code_KZ / vectors
    for step, factor in (("step1", 1.0), ("step2", 0.9)):
        code_N = quantiser.nearest(factor * x_NZ, book.code_KZ)
        np.testing.assert_array_equal(code_N, vqvae[f"{step}/codes_N"])
        found = quantiser.members(factor * x_NZ, code_N, codes)
        book, sum_KZ = quantiser.move_by_sums(book, sum_KZ, found, 0.99, 1e-5 / vectors)
        np.testing.assert_allclose(book.code_KZ, vqvae[f"{step}/codebook_KZ"], atol=5e-6)
        np.testing.assert_allclose(book.use_K * vectors, vqvae[f"{step}/count_K"], atol=5e-6)
        np.testing.assert_allclose(sum_KZ * vectors, vqvae[f"{step}/sum_KZ"], atol=5e-6)


def test_loss_and_gradients_equal_the_published_vqvaes(vqvae):
    def loss(x_NZ, code_KZ):
        code_N = quantiser.nearest(x_NZ, code_KZ)
        quantised_NZ = code_KZ[code_N]
        value = quantiser.attraction(quantised_NZ, x_NZ) + 0.25 * quantiser.attraction(x_NZ, quantised_NZ)
        through_NZ = quantiser.straight_through(x_NZ, quantised_NZ)
        return value + (through_NZ * jnp.linspace(-1, 1, 8)[None]).sum(), (value, through_NZ)

    gradient = jax.grad(loss, argnums=(0, 1), has_aux=True)
    (x_grad, code_grad), (value, through_NZ) = gradient(vqvae["x_NZ"], vqvae["codebook_KZ"])
    np.testing.assert_allclose(value, vqvae["loss"], atol=5e-6)
    np.testing.assert_allclose(through_NZ, vqvae["quantised_NZ"], atol=5e-6)
    np.testing.assert_allclose(x_grad, vqvae["grad_input_NZ"], atol=5e-6)
    np.testing.assert_allclose(code_grad, vqvae["grad_codebook_KZ"], atol=5e-6)


def test_members_of_microbatches_average_to_those_of_the_batch():
    rng = np.random.default_rng(0)
    x_NZ = rng.normal(size=(64, 4)).astype(np.float32)
    code_N = quantiser.nearest(x_NZ, x_NZ[:8])
    whole = quantiser.members(x_NZ, code_N, 8)
    parts = [quantiser.members(x_NZ[part::4], code_N[part::4], 8) for part in range(4)]
    for ours, theirs in zip(whole, jax.tree.map(lambda *leaves: sum(leaves) / 4, *parts)):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_unused_codes_stay_on_the_sphere_and_are_not_wiped_by_sums():
    rng = np.random.default_rng(1)
    code_KZ = quantiser.unit(rng.normal(size=(8, 4)).astype(np.float32))
    x_NZ = jnp.repeat(code_KZ[:2], 5, axis=0)
    found = quantiser.members(x_NZ, quantiser.nearest(x_NZ, code_KZ), 8)
    start = Codebook(code_KZ, jnp.full(8, 1 / 8))
    np.testing.assert_array_equal(quantiser.move_on_sphere(start, found, 0.99).code_KZ[2:], code_KZ[2:])
    book, _ = quantiser.move_by_sums(start, code_KZ / 8, found, 0.99, 1e-7)
    np.testing.assert_allclose(book.code_KZ[2:], code_KZ[2:], atol=1e-5)


def test_kmeans_finds_clusters_of_any_length():
    x_NZ = blobs(np.random.default_rng(2), 6, 50, 3)
    found = quantiser.kmeans(x_NZ, x_NZ[::50], 10, on_sphere=False)
    np.testing.assert_allclose(found.code_KZ, x_NZ.reshape(6, 50, 3).mean(1), atol=1e-5)
    np.testing.assert_allclose(found.use_K, 1 / 6, atol=1e-6)


def test_dead_codes_start_again_from_the_batch_and_live_ones_stay():
    rng = np.random.default_rng(3)
    x_NZ = rng.normal(size=(40, 4)).astype(np.float32)
    book = Codebook(jnp.zeros((8, 4)), jnp.array([0.0, 0.3, 0.003, 0.2, 0.1, 0.1, 0.1, 0.1]))
    revived, dead_K = quantiser.revive(jax.random.key(0), book, x_NZ, below=0.03)
    np.testing.assert_array_equal(dead_K, [True, False, True, *[False] * 5])
    np.testing.assert_array_equal(revived.code_KZ[~dead_K], 0.0)
    fresh_KZ = np.asarray(revived.code_KZ[dead_K])
    assert all((row_Z == x_NZ).all(1).any() for row_Z in fresh_KZ)
    assert not (fresh_KZ[0] == fresh_KZ[1]).all()
    np.testing.assert_allclose(revived.use_K[dead_K], 1 / 8)


def test_perplexity_counts_codes_used_alike():
    assert quantiser.perplexity(jnp.array([0.25] * 4 + [0.0] * 4)) == pytest.approx(4.0, rel=1e-6)
