"""SIGMA-PPG's preparation, prior and first stage equal the published PyTorch implementation, number by number.

Tolerances are those of the arrays' README.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sigma_ppg_reference import (
    PROGRESS,
    TOKENIZER_FIELDS,
    Reference,
    assert_norms_close,
    assert_stepped_alike,
    config_of,
    norm_of,
)
from sigma_ppg_runs import KEYS, batch_of

from jaxbio.export.torch_import import arrays_from_table
from jaxbio.export.torch_names_sigma_ppg import TOKENIZER
from jaxbio.models.quantiser import unit
from jaxbio.models.sigma_tokenizer import SigmaTokenizer, SpectrumDecoder
from jaxbio.objectives import make_objective, spectral_tokenizer
from jaxbio.signals.segments import resample_segments
from jaxbio.training.optimizer import make_optimizer
from jaxbio.transforms import patches
from jaxbio.transforms.band_pass import band_pass


@pytest.fixture(scope="module")
def reference(parity_dir):
    with np.load(parity_dir / "sigma_ppg.npz") as arrays:
        return Reference(arrays)


# ---- preparation and priors


def test_preparation_at_the_native_rate_equals_the_reference(reference):
    # gaps filled, filtered where the recording was made, resampled, scaled
    raw_BT = reference["raw_BT"]
    filled_BT = resample_segments(raw_BT, 125.0, 30_000)
    filtered_BT = np.asarray(band_pass(filled_BT, 125.0, (0.5, 8.0), 2, "band_pass"))
    found_BT = resample_segments(filtered_BT, 125.0, 12_000)
    low_B1, high_B1 = found_BT.min(-1, keepdims=True), found_BT.max(-1, keepdims=True)
    np.testing.assert_allclose((found_BT - low_B1) / (high_B1 - low_B1), reference["prepared_BT"], atol=5e-5)


@pytest.mark.parametrize(("wide", "of_amplitude", "of_skewness"), [(True, 1e-9, 1e-9), (False, 1e-5, 1e-3)])
def test_priors_equal_the_reference(reference, wide, of_amplitude, of_skewness):
    with jax.enable_x64(wide):
        dtype = np.float64 if wide else np.float32
        x_BT = reference["prepared_BT"].astype(dtype)
        patch_BAT = patches.cut_patches(x_BT, 100)
        amplitude_BA, skewness_BA = patches.amplitude_stability(patch_BAT), patches.skewness_score(patch_BAT)
        np.testing.assert_allclose(amplitude_BA, reference["prior_amplitude_BA"], atol=of_amplitude)
        np.testing.assert_allclose(skewness_BA, reference["prior_skewness_BA"], atol=of_skewness)
        np.testing.assert_allclose(patches.patch_prior(x_BT, 100, 0.5), reference["prior_BA"], atol=of_skewness)
        even_1T = reference["prior_periodic_input_T"][None].astype(dtype)
        found_1A = patches.amplitude_stability(patches.cut_patches(even_1T, 100))
        np.testing.assert_allclose(found_1A[0], reference["prior_periodic_amplitude_A"], atol=of_amplitude)


# ---- stage 1


def test_the_tokenizer_equals_the_reference(reference):
    encoder, decoder = SigmaTokenizer(**TOKENIZER_FIELDS), SpectrumDecoder(48, 1, 4, 120, 100)

    @jax.jit
    def compute(variables, decoder_params, x_BCT):
        tok_BAD = encoder.apply(variables, x_BCT)
        code_BA = encoder.apply(variables, x_BCT, method="codes_of")
        found, inside = decoder.apply(
            {"params": decoder_params},
            reference["quantised_BAZ"],
            capture_intermediates=lambda module, _: module.name == "norm",
        )
        decoded_BAD = inside["intermediates"]["norm"]["__call__"][0][:, 1:]
        return tok_BAD, encoder.apply(variables, tok_BAD, method="head"), code_BA, decoded_BAD, found["amplitude"]

    variables, decoder_params = reference.tokenizer_variables, reference.tokenizer["params"]["decoder"]
    tok_BAD, z_BAZ, code_BA, decoded_BAD, found_BAS = compute(variables, decoder_params, reference.x_BCT)
    np.testing.assert_allclose(tok_BAD, reference["encoder_features_BAD"], atol=3e-5)
    np.testing.assert_allclose(z_BAZ, reference["embeddings_BAZ"], atol=5e-5)
    np.testing.assert_array_equal(code_BA, reference["codes_BA"])
    unit_BAZ = np.asarray(unit(z_BAZ), np.float64)
    distance_BAK = np.square(unit_BAZ[:, :, None] - np.asarray(reference.codebook)).sum(-1)
    nearest_BA, second_BA = np.moveaxis(np.sort(distance_BAK)[..., :2], -1, 0)
    np.testing.assert_allclose(second_BA - nearest_BA, reference["code_margin_BA"], atol=5e-5)
    np.testing.assert_allclose(decoded_BAD, reference["decoder_features_BAD"], atol=3e-5)
    np.testing.assert_allclose(found_BAS, reference["reconstruction_BAS"], atol=1e-5)
    target = patches.patch_spectra(reference.x_BCT[:, 0], 100)
    np.testing.assert_allclose(target["amplitude"], reference["spectrum_BAS"], atol=2e-5)


def perturbed(reference):
    """The arrays' own perturbed view of their windows."""
    noise_BCT = reference["augment_noise_BAT"].reshape(2, 1, -1)
    return reference.x_BCT * reference["augment_scale_B"][:, None, None] + noise_BCT


def test_points_of_the_perturbed_view_equal_the_reference(reference):
    encoder = SigmaTokenizer(**TOKENIZER_FIELDS)
    z_BAZ = jax.jit(partial(encoder.apply, method="points_of"))(reference.tokenizer_variables, perturbed(reference))
    np.testing.assert_allclose(z_BAZ, reference["embeddings_augmented_BAZ"], atol=5e-5)


@pytest.fixture(scope="module")
def first_stage(reference):
    """The published first stage: its objective, and a step of it on the arrays' own perturbed view."""
    again_BCT = perturbed(reference)
    config = config_of(
        "sigma_tokenizer",
        "spectral_tokenizer",
        TOKENIZER_FIELDS,
        objective__decoder_layers=1,
        objective__spectrum_loss="mse",
        objective__code_decay=0.99,
        objective__codebook_moves="both",
        objective__revive_below=0.0,
        augment__noise_prob=1.0,
    )
    first_BCT = reference.x_BCT[:1]

    def given_view(key, x_CT, **_):
        return jnp.where((x_CT == first_BCT[0]).all(), again_BCT[0], again_BCT[1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spectral_tokenizer, "augment", given_view)
        objective = make_objective(config)
        gradient = jax.jit(
            jax.value_and_grad(
                lambda params: objective.loss(
                    params, reference.tokenizer_state, batch_of(reference.x_BCT), KEYS, PROGRESS, True
                ),
                has_aux=True,
            )
        )
        (loss, (aux, terms)), grads = gradient(reference.tokenizer["params"])
    return objective, loss, aux, terms, grads


def test_losses_of_the_first_stage_equal_the_reference(reference, first_stage):
    objective, loss, _, terms, _ = first_stage
    np.testing.assert_allclose(loss, reference["loss_tokenizer_train"], rtol=1e-5)
    np.testing.assert_allclose(terms["amplitude"], reference["loss_reconstruction"], rtol=1e-5)
    np.testing.assert_allclose(terms["commitment"], reference["loss_commitment"], rtol=1e-5)
    np.testing.assert_allclose(0.5 * terms["consistency"], reference["loss_consistency"], rtol=1e-5)
    held_out, _ = jax.jit(objective.loss, static_argnums=5)(
        reference.tokenizer["params"], reference.tokenizer_state, batch_of(reference.x_BCT), KEYS, PROGRESS, False
    )
    np.testing.assert_allclose(held_out, reference["loss_tokenizer_eval"], rtol=1e-5)
    for kind, name in (("l1", "loss_reconstruction_l1"), ("smooth_l1", "loss_reconstruction_smooth_l1")):
        found = spectral_tokenizer._distance(reference["reconstruction_BAS"], reference["spectrum_BAS"], kind)
        np.testing.assert_allclose(found, reference[name], rtol=1e-5)


def test_gradients_of_the_first_stage_equal_the_reference(reference, first_stage):
    grads = {"params": first_stage[-1]}
    assert_norms_close(TOKENIZER, grads, reference.stored("grad_norm/tokenizer"), 1e-4)
    ours = arrays_from_table(TOKENIZER, grads)
    for name, whole in reference.stored("grad/tokenizer").items():
        np.testing.assert_allclose(ours[name], whole, atol=1e-4 * np.abs(whole).max(), err_msg=name)


def test_a_step_of_the_first_stage_equals_the_reference(reference, first_stage):
    objective, _, aux, _, grads = first_stage
    settings = config_of(
        "sigma_tokenizer",
        "spectral_tokenizer",
        TOKENIZER_FIELDS,
        optimizer__learning_rate=2e-4,
        optimizer__warmup_frac=0.0,
        optimizer__b2=0.99,
        optimizer__weight_decay=1e-4,
        optimizer__weight_decay_end=1e-4,
        objective__decoder_layers=1,
    ).optimizer
    optimizer, params = make_optimizer(settings, 10), reference.tokenizer["params"]
    np.testing.assert_allclose(norm_of(grads), reference["tokenizer_clip_norm"], rtol=1e-5)
    update = jax.jit(partial(optimizer.update, measured=False))
    params, _, _ = update(grads, optimizer.init(params), params, jnp.int32(0), jnp.bool_(True))
    assert_stepped_alike(TOKENIZER, {"params": params}, {"params": grads}, reference.stored("tokenizer_after"))

    state, _ = objective.update(params, reference.tokenizer_state, aux, jax.random.key(0), PROGRESS)
    np.testing.assert_allclose(state["code_KZ"], reference["codebook_after_KZ"], atol=2e-6)
    vectors = reference["codes_BA"].size
    np.testing.assert_allclose(state["use_K"] * vectors, reference["cluster_size_after_K"], atol=1e-5)
