"""The VQ-VAE: the reference's numbers, a codebook that stays in use, and codes that an export holds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from twelve_lead_parity import KEYS, batch_of, make_small, read_arrays

from jaxbio.config.command_line import load_recipe
from jaxbio.data.batch import random_batch
from jaxbio.export.torch_import import read_reference, to_reference, trees_from_reference
from jaxbio.export.weights import flatten_tree
from jaxbio.models import quantiser
from jaxbio.models.vq_vae import VQVAEDecoder
from jaxbio.objectives import code_reconstruction, make_objective

SMALL = {
    "width": 64,
    "layers": 2,
    "heads": 2,
    "feedforward": 256,
    "patch": 25,
    "latent": 16,
    "codes": 32,
}
LEADS = ("i", "ii", "v1", "v2")
CHANGES = {
    **{f"model.{name}": value for name, value in SMALL.items()},
    "objective.decoder_width": 32,
    "objective.decoder_layers": 1,
    "objective.decoder_heads": 1,
    "objective.commitment": 0.25,
}


@pytest.fixture(scope="module")
def arrays(parity_dir):
    return read_arrays(parity_dir, "ecg_vqvae_triplet.npz", "vqvae/")


@pytest.fixture(scope="module")
def params(parity_dir):
    weights = read_reference(parity_dir / "ecg_vqvae_triplet.npz", "vqvae/model/")
    return trees_from_reference("ecg_vqvae_triplet", weights, SMALL)["params"]


def make(arrays, **changes):
    """An objective on the reference's input, whose numbers int16 cannot hold."""
    _, objective = make_small("vq_vae", "code_reconstruction", LEADS, CHANGES | changes)
    batch = batch_of(arrays["x_BCT"])

    def on_input(function, *arguments):
        with pytest.MonkeyPatch.context() as context:
            context.setattr(code_reconstruction, "single_segments", lambda *_: jnp.asarray(arrays["x_BCT"]))
            return function(*arguments)

    return objective, batch, on_input


def test_codes_losses_and_gradients_are_the_references(arrays, params):
    objective, batch, on_input = make(arrays, **{"objective.codebook": "gradient"})
    encoder, take = objective.encoders["latent"]
    z_BNZ = encoder.apply(take(params, {}), arrays["x_BCT"])
    np.testing.assert_allclose(z_BNZ, arrays["latent_BNZ"], atol=2e-5)
    code_BN = on_input(objective.outputs, params, {}, batch)["code_BN"]
    np.testing.assert_array_equal(code_BN, arrays["codes_BN"])
    quantised, take = objective.encoders["quantised"]
    code_KZ = arrays["model/vq.embeddings"].astype(np.float32)
    np.testing.assert_array_equal(quantised.apply(take(params, {}), arrays["x_BCT"]), code_KZ[code_BN])
    decoder = VQVAEDecoder(32, 1, 1, 128, SMALL["patch"], len(LEADS))
    decoded_BCT = decoder.apply({"params": params["decoder"]}, code_KZ[code_BN])
    np.testing.assert_allclose(decoded_BCT, arrays["reconstruction_BCT"], atol=2e-5)

    def loss(params):
        return on_input(objective.loss, params, {}, batch, KEYS, 0.0, True)

    (total, (_, terms)), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    np.testing.assert_allclose(total, arrays["loss"], atol=1e-5)
    np.testing.assert_allclose(terms["reconstruction"], arrays["loss_reconstruction"], atol=1e-5)
    np.testing.assert_allclose(total - terms["reconstruction"], arrays["loss_quantiser"], atol=1e-5)
    ours = to_reference("ecg_vqvae_triplet", {"params": grads})
    assert len(ours) == 55
    for name, grad in ours.items():
        np.testing.assert_allclose(np.linalg.norm(grad), arrays[f"grad_norm/{name}"], rtol=1e-4, atol=1e-5)


def test_two_moving_steps_are_the_references(parity_dir):
    arrays = read_arrays(parity_dir, "ecg_vqvae_triplet.npz", "quantiser/")
    code_KZ, x_NZ = arrays["codebook_KZ"], arrays["x_NZ"]
    book = quantiser.Codebook(jnp.asarray(code_KZ), jnp.full(16, 1 / 40))  # the reference counts: one for each code
    sum_KZ = book.code_KZ / 40
    for step, scale in (("step1", 1.0), ("step2", 0.9)):
        code_N = quantiser.nearest(scale * x_NZ, book.code_KZ)
        np.testing.assert_array_equal(code_N, arrays[f"{step}/codes_N"])
        found = quantiser.members(scale * x_NZ, code_N, 16)
        book, sum_KZ = quantiser.move_by_sums(book, sum_KZ, found, 0.99, 1e-5 / 40)
        np.testing.assert_allclose(book.code_KZ, arrays[f"{step}/codebook_KZ"], atol=5e-6)
        np.testing.assert_allclose(40 * book.use_K, arrays[f"{step}/count_K"], atol=5e-6)


def test_sizes_are_the_published_ones():
    config = load_recipe("configs/ecg_vqvae.py:smoke")
    objective = make_objective(config)
    batch = random_batch(config, np.random.default_rng(0))
    params, state = jax.eval_shape(objective.init, jax.random.key(0), batch, {})
    trained = sum(leaf.size for leaf in flatten_tree(params).values())
    assert trained + state["codebook"].code_KZ.size == 25_011_660


def test_dead_codes_start_anew_from_tokens_of_the_batch_and_the_others_move(arrays):
    objective, batch, on_input = make(arrays)
    params, state = jax.jit(lambda: on_input(objective.init, jax.random.key(0), batch, {}))()
    away_KZ = state["codebook"].code_KZ.at[5:].set(1e3)
    state = {"codebook": state["codebook"]._replace(code_KZ=away_KZ), "sum_KZ": away_KZ / 32}
    gradient = jax.jit(lambda: on_input(objective.loss, params, state, batch, KEYS, 0.0, True)[1][0])
    aux, update = gradient(), jax.jit(objective.update)
    assert (np.asarray(aux.means.share_K)[5:] == 0).all()
    revived_N = []
    for step in range(400):
        state, metrics = update(params, state, aux, jax.random.key(step), 0.0)
        revived_N.append(int(metrics["revived_codes"]))
    assert sum(revived_N) >= 27
    told = objective.measure({"code_BN": np.zeros((1, 1), int)})["steps_to_revival"]
    assert 1 + np.flatnonzero(revived_N)[0] == np.ceil(told)
    tokens_NZ = np.asarray(aux.samples).reshape(-1, 16)
    distance_KN = np.linalg.norm(np.asarray(state["codebook"].code_KZ)[:, None] - tokens_NZ[None], axis=-1)
    assert distance_KN[5:].min(1).max() < 1e-4
    np.testing.assert_allclose(
        state["sum_KZ"], state["codebook"].code_KZ * state["codebook"].use_K[:, None], rtol=1e-4, atol=1e-6
    )


def test_measures_count_over_all_batches(arrays):
    objective, _, _ = make(arrays)
    assert objective.measure({"code_BN": np.array([[0, 1], [2, 3]])}) == {
        "code_perplexity": pytest.approx(4.0),
        "unused_codes": 28 / 32,
        "steps_to_revival": pytest.approx(349, abs=0.5),
    }


@pytest.mark.parametrize("changes", [{"objective.codebook": "gradient"}, {"objective.revive_below": 0.0}])
def test_where_no_code_starts_anew_that_is_measured_too(arrays, changes):
    objective, _, _ = make(arrays, **changes)
    assert objective.measure({"code_BN": np.zeros((1, 4), int)})["steps_to_revival"] == 0
