"""SIGMA-PPG equals the published PyTorch implementation, number by number (tolerances: the arrays' README)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sigma_ppg_runs import KEYS, batch_of, tokenizer_network

from jaxbio.config import fields
from jaxbio.config.families import sigma_ppg
from jaxbio.export.torch_import import arrays_from_table, trees_from_table
from jaxbio.export.torch_names_sigma_ppg import MASK_GENERATOR, STUDENT, TOKENIZER
from jaxbio.models.sigma import CodeHead, MaskGenerator, SigmaEncoder
from jaxbio.models.sigma_tokenizer import SigmaTokenizer, SpectrumDecoder
from jaxbio.objectives import make_objective, patch_masks, spectral_tokenizer
from jaxbio.objectives.patch_masks import Uniforms
from jaxbio.signals.segments import resample_segments
from jaxbio.training.optimizer import make_optimizer
from jaxbio.transforms import patches
from jaxbio.transforms.band_pass import band_pass

PROGRESS = jnp.float32(0)
TOKENIZER_FIELDS = {
    "width": 48,
    "layers": 2,
    "heads": 4,
    "channels": 8,
    "patch": 100,
    "tokens": 120,
    "codes": 64,
    "code_width": 16,
}
STUDENT_FIELDS = {"width": 72, "layers": 2, "heads": 6, "channels": 12, "patch": 100, "tokens": 120}
MASK_FIELDS = {"width": 16, "layers": 2, "heads": 4, "patch": 100, "tokens": 120}
ROWS_IN_USE = ("encoder.pos_embed", "student.pos_embed")
# zero by construction, so that their first Adam step is that of rounding noise
SILENT = ("attn.k_norm.bias", "norm.bias", "head.bias")


class Reference:
    """The arrays, and our networks' variables made of them."""

    def __init__(self, arrays):
        self.arrays = {name: arrays[name] for name in arrays.files}
        self.x_BCT = self["x_BCT"]
        tables = {
            "tokenizer": (TOKENIZER, TOKENIZER_FIELDS),
            "student": (STUDENT, STUDENT_FIELDS),
            "mask_generator": (MASK_GENERATOR, MASK_FIELDS),
        }
        self.tokenizer, self.student, self.mask_generator = (
            jax.tree.map(jnp.asarray, trees_from_table(table, self.stored(name), own, name))
            for name, (table, own) in tables.items()
        )

    def __getitem__(self, name):
        return self.arrays[name]

    def stored(self, prefix):
        return {
            name.removeprefix(f"{prefix}/"): array
            for name, array in self.arrays.items()
            if name.startswith(f"{prefix}/")
        }

    @property
    def codebook(self):
        return self.tokenizer["codebook"]["encoder"]["code_KZ"]

    @property
    def tokenizer_state(self):
        vectors = self["codes_BA"].size
        return {"code_KZ": self.codebook, "use_K": jnp.asarray(self["tokenizer/quantize.cluster_size"]) / vectors}

    @property
    def tokenizer_variables(self):
        tree = self.tokenizer
        return {"params": tree["params"]["encoder"], "codebook": tree["codebook"]["encoder"]}


@pytest.fixture(scope="module")
def reference(parity_dir):
    with np.load(parity_dir / "sigma_ppg.npz") as arrays:
        return Reference(arrays)


def config_of(model, objective, section, **changes):
    config = fields.defaults(model, objective)
    fields.change(config, sigma_ppg.DATA)
    still = {"data.scaling": "physical", "data.band_hz": None, "data.standardise": "none", "train.batch": 2}
    own = {f"model.{name}": value for name, value in section.items()}
    return fields.change(config, {**still, **own, **{name.replace("__", "."): v for name, v in changes.items()}})


def assert_norms_close(table, grads, norms, rtol):
    ours = arrays_from_table(table, grads)
    for name, norm in norms.items():
        if name.endswith(SILENT) and norm < 1e-5:
            assert np.linalg.norm(ours[name]) < 1e-5, name
        else:
            np.testing.assert_allclose(np.linalg.norm(ours[name]), norm, rtol=rtol, err_msg=name)


def assert_stepped_alike(table, params, grads, stored):
    """Compare parameters after a first step of Adam.

    It turns a gradient that is zero but for rounding into a step of up to the learning rate: entries below a millionth
    of their array's largest are left out. Of tables whose other rows nothing reads we have those in use.
    """
    ours, gradients = arrays_from_table(table, params), arrays_from_table(table, grads)
    differences = []
    for name, after in stored.items():
        size = np.abs(gradients[name])
        counted = size > 1e-6 * size.max() if name in ROWS_IN_USE else size >= 1e-6 * size.max()
        differences.append(np.abs(np.asarray(ours[name]) - after)[counted])
    difference = np.concatenate(differences)
    assert difference.max() < 1e-4
    assert np.mean(difference < 1e-6) > 0.99


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
        found = decoder.apply({"params": decoder_params}, reference["quantised_BAZ"])
        return tok_BAD, encoder.apply(variables, tok_BAD, method="head"), code_BA, found["amplitude"]

    variables, decoder_params = reference.tokenizer_variables, reference.tokenizer["params"]["decoder"]
    tok_BAD, z_BAZ, code_BA, found_BAS = compute(variables, decoder_params, reference.x_BCT)
    np.testing.assert_allclose(tok_BAD, reference["encoder_features_BAD"], atol=3e-5)
    np.testing.assert_allclose(z_BAZ, reference["embeddings_BAZ"], atol=5e-5)
    np.testing.assert_array_equal(code_BA, reference["codes_BA"])
    np.testing.assert_allclose(found_BAS, reference["reconstruction_BAS"], atol=1e-5)
    target = patches.patch_spectra(reference.x_BCT[:, 0], 100)
    np.testing.assert_allclose(target["amplitude"], reference["spectrum_BAS"], atol=2e-5)


@pytest.fixture(scope="module")
def first_stage(reference):
    """The published first stage: its objective, and a step of it on the arrays' own perturbed view."""
    scale_B, noise_BAT = reference["augment_scale_B"], reference["augment_noise_BAT"]
    again_BCT = reference.x_BCT * scale_B[:, None, None] + noise_BAT.reshape(2, 1, -1)
    config = config_of(
        "sigma_tokenizer",
        "spectral_tokenizer",
        TOKENIZER_FIELDS,
        objective__decoder_layers=1,
        objective__spectrum_loss="mse",
        objective__codebook_moves="both",
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
    np.testing.assert_allclose(optax_norm(grads), reference["tokenizer_clip_norm"], rtol=1e-5)
    update = jax.jit(partial(optimizer.update, measured=False))
    params, _, _ = update(grads, optimizer.init(params), params, jnp.int32(0), jnp.bool_(True))
    assert_stepped_alike(TOKENIZER, {"params": params}, {"params": grads}, reference.stored("tokenizer_after"))

    state, _ = objective.update(params, reference.tokenizer_state, aux, jax.random.key(0), PROGRESS)
    np.testing.assert_allclose(state["code_KZ"], reference["codebook_after_KZ"], atol=2e-6)
    vectors = reference["codes_BA"].size
    np.testing.assert_allclose(state["use_K"] * vectors, reference["cluster_size_after_K"], atol=1e-5)


def optax_norm(tree):
    return np.sqrt(sum(np.sum(np.square(np.asarray(leaf, np.float64))) for leaf in jax.tree.leaves(tree)))


# ---- masks


def test_masks_for_given_numbers_equal_the_reference(reference):
    logit_BA, plain_BA = reference["biased_logits_BA"], reference["mask_logits_BA"]
    uniform_BA = reference["uniform_gumbel_BA"]
    for logits, name in ((logit_BA, "topk_mask_BA"), (plain_BA, "topk_mask_without_prior_BA")):
        chosen_BN = patch_masks.choose_by_logits(logits, uniform_BA)[:, :60]
        np.testing.assert_array_equal(patch_masks.as_mask(chosen_BN, 120), reference[name])
    punched_BA = patch_masks.punch(reference["topk_mask_BA"], reference["uniform_punch_BA"], 0.3)
    np.testing.assert_array_equal(punched_BA, reference["punched_mask_BA"])
    np.testing.assert_array_equal(patch_masks.limit_runs(punched_BA, 5), reference["mask_BA"])
    random_BN = patch_masks.choose_at_random(reference["uniform_random_BA"])[:, :60]
    np.testing.assert_array_equal(patch_masks.as_mask(random_BN, 120), reference["random_mask_BA"])
    for longest in (5, 3):
        found_RA = patch_masks.limit_runs(reference["run_limit_input_RA"], longest)
        np.testing.assert_array_equal(found_RA, reference[f"run_limit_{longest}_RA"])
    probability_BA = jax.nn.softmax(patch_masks.prior_logits(reference["prior_BA"].astype(np.float32)))
    np.testing.assert_allclose(probability_BA, reference["prior_only_probability_BA"], atol=1e-6)


def test_the_policy_equals_the_reference(reference):
    params = reference.mask_generator["params"]["encoder"]
    logit_BA = jax.jit(MaskGenerator(**MASK_FIELDS).apply)({"params": params}, reference.x_BCT)
    np.testing.assert_allclose(logit_BA, reference["mask_logits_BA"], atol=1e-5)
    biased_BA = logit_BA + 2 * patch_masks.z_score(reference["prior_BA"].astype(np.float32))
    np.testing.assert_allclose(biased_BA, reference["biased_logits_BA"], atol=1e-5)
    np.testing.assert_allclose(patch_masks.entropy(biased_BA).mean(), reference["entropy"], rtol=1e-5)
    for logits, uniforms, name in (
        (biased_BA, "topk_mask_BA", "log_probability_B"),
        (logit_BA, "topk_mask_BA", "log_probability_without_prior_B"),
    ):
        chosen_BN = np.stack([np.flatnonzero(row) for row in reference[uniforms]])
        found_B = patch_masks.log_likelihood(logits, chosen_BN, 60, "independent")
        np.testing.assert_allclose(found_B, reference[name], atol=3e-4)
    chosen_BN = np.stack([np.flatnonzero(row) for row in reference["topk_mask_BA"]])
    probability_BN = jnp.take_along_axis(jax.nn.softmax(biased_BA), chosen_BN, axis=1)
    np.testing.assert_allclose(probability_BN.mean(), reference["mean_selected_probability"], rtol=1e-5)


def test_the_policy_gradient_of_a_fixed_reward_equals_the_reference(reference):
    generator, prior_BA = MaskGenerator(**MASK_FIELDS), reference["prior_BA"].astype(np.float32)
    chosen_BN = np.stack([np.flatnonzero(row) for row in reference["topk_mask_BA"]])
    advantage_B = reference["fixed_reward_B"] - reference["fixed_reward_B"].mean()

    @jax.jit
    @jax.value_and_grad
    def policy(params):
        logit_BA = generator.apply({"params": params}, reference.x_BCT) + 2 * patch_masks.z_score(prior_BA)
        return -(advantage_B * patch_masks.log_likelihood(logit_BA, chosen_BN, 60, "independent")).mean()

    loss, grads = policy(reference.mask_generator["params"]["encoder"])
    np.testing.assert_allclose(loss, reference["loss_mask_generator_fixed"], atol=2e-4)
    trees = {"params": {"encoder": grads}}
    assert_norms_close(MASK_GENERATOR, trees, reference.stored("grad_norm/mask_generator"), 1e-3)
    ours = arrays_from_table(MASK_GENERATOR, trees)
    for name, whole in reference.stored("grad/mask_generator").items():
        np.testing.assert_allclose(ours[name], whole, atol=1e-3 * np.abs(whole).max(), err_msg=name)


# ---- stage 2


def test_the_student_equals_the_reference(reference):
    encoder, variables = SigmaEncoder(**STUDENT_FIELDS), {"params": reference.student["params"]["encoder"]}
    head = {"params": reference.student["params"]["head"]}
    mask_BA = reference["mask_BA"]
    apply = jax.jit(lambda hidden_BA: encoder.apply(variables, reference.x_BCT, False, hidden_BA, method="all_tokens"))
    tok_BLD = apply(mask_BA)
    np.testing.assert_allclose(tok_BLD, reference["student_features_BLD"], atol=3e-5)
    np.testing.assert_allclose(apply(~mask_BA & mask_BA), reference["student_features_unmasked_BLD"], atol=3e-5)
    logit_BAK = CodeHead(64).apply(head, tok_BLD[:, 1:])
    np.testing.assert_allclose(logit_BAK[mask_BA], reference["logits_MK"], atol=3e-5)
    inverted_BAK = CodeHead(64).apply(head, apply(~mask_BA)[:, 1:])
    np.testing.assert_allclose(inverted_BAK[~mask_BA], reference["logits_symmetric_NK"], atol=3e-5)
    miss_N = -jnp.take_along_axis(
        jax.nn.log_softmax(inverted_BAK[~mask_BA]), reference["codes_BA"][~mask_BA][:, None], axis=1
    )
    np.testing.assert_allclose(miss_N.mean(), reference["loss_symmetric"], rtol=1e-5)


@pytest.fixture(scope="module")
def second_stage(reference):
    """One step of both networks by our objective, under the arrays' own uniform numbers."""
    config = config_of(
        "sigma_ppg",
        "adversarial_masking",
        STUDENT_FIELDS,
        model__dropout=0.0,
        model__attention_dropout=0.0,
        model__drop_path=0.0,
        objective__mask_width=16,
        objective__tokenizer="given",
    )
    network = tokenizer_network(SigmaTokenizer(**TOKENIZER_FIELDS), reference.tokenizer_variables)
    params = {
        **reference.student["params"],
        "mask_generator": reference.mask_generator["params"]["encoder"],
    }
    with pytest.MonkeyPatch.context() as patch:
        given = Uniforms(reference["uniform_gumbel_BA"], reference["uniform_punch_BA"])
        patch.setattr(patch_masks, "draw_uniforms", lambda key_B, patches: given)
        objective = make_objective(config, {"tokenizer": network})
        state = {"tokenizer": reference.tokenizer_variables}
        gradient = jax.jit(
            jax.value_and_grad(
                lambda params: objective.loss(params, state, batch_of(reference.x_BCT), KEYS, PROGRESS, True),
                has_aux=True,
            )
        )
        (loss, (_, terms)), grads = gradient(params)
    return params, loss, terms, grads


def test_losses_and_metrics_of_the_second_stage_equal_the_reference(reference, second_stage):
    _, loss, terms, _ = second_stage
    np.testing.assert_allclose(loss, reference["loss_student"], rtol=1e-5)
    for name, theirs in {
        "cross_entropy": "loss_student",
        "accuracy": "accuracy",
        "accuracy_peak": "metric_peak_accuracy",
        "accuracy_flat": "metric_flat_accuracy",
        "encoder_entropy": "metric_student_entropy",
        "prior_of_hidden": "metric_prior_of_masked",
        "mask_entropy": "entropy",
    }.items():
        np.testing.assert_allclose(terms[name], reference[theirs], rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(terms["reward"], reference["reward_B"].mean(), rtol=1e-5)
    np.testing.assert_allclose(terms["advantage_spread"], reference["advantage_B"].std(), rtol=1e-4)
    np.testing.assert_allclose(terms["policy"], reference["loss_mask_generator"], atol=2e-4)
    np.testing.assert_allclose(terms["hidden"], reference["mask_BA"].mean(), rtol=1e-6)


def test_gradients_of_the_second_stage_equal_the_reference(reference, second_stage):
    grads = second_stage[-1]
    student = {"params": {"encoder": grads["encoder"], "head": grads["head"]}}
    assert_norms_close(STUDENT, student, reference.stored("grad_norm/student"), 1e-4)
    ours = arrays_from_table(STUDENT, student)
    for name, whole in reference.stored("grad/student").items():
        found = ours[name][:, : whole.shape[1]] if name.endswith("pos_embed") else ours[name]
        np.testing.assert_allclose(found, whole, atol=1e-4 * np.abs(whole).max(), err_msg=name)
    np.testing.assert_allclose(optax_norm(student), reference["metric_student_gradient_norm"], rtol=1e-4)
    np.testing.assert_allclose(optax_norm(grads["mask_generator"]), reference["mask_generator_clip_norm"], rtol=1e-3)


def test_a_step_of_both_networks_equals_the_reference(reference, second_stage):
    params, _, _, grads = second_stage
    settings = config_of(
        "sigma_ppg",
        "adversarial_masking",
        STUDENT_FIELDS,
        optimizer__learning_rate=5e-4,
        optimizer__warmup_frac=0.0,
        optimizer__weight_decay=0.05,
        optimizer__weight_decay_end=0.05,
        optimizer__groups=sigma_ppg.STUDENT["optimizer.groups"],
    ).optimizer
    optimizer = make_optimizer(settings, 10)
    update = jax.jit(partial(optimizer.update, measured=False))
    params, _, _ = update(grads, optimizer.init(params), params, jnp.int32(0), jnp.bool_(True))
    for table, parts, name in (
        (STUDENT, {"encoder": "encoder", "head": "head"}, "student_after"),
        (MASK_GENERATOR, {"encoder": "mask_generator"}, "mask_generator_after"),
    ):
        moved, slopes = ({"params": {ours: tree[own] for ours, own in parts.items()}} for tree in (params, grads))
        assert_stepped_alike(table, moved, slopes, reference.stored(name))
