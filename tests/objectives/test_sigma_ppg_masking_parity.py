"""SIGMA-PPG's masks and second stage equal the published PyTorch implementation, number by number.

Tolerances are those of the arrays' README.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sigma_ppg_reference import (
    MASK_FIELDS,
    PROGRESS,
    STUDENT_FIELDS,
    TOKENIZER_FIELDS,
    Reference,
    assert_norms_close,
    assert_stepped_alike,
    config_of,
    norm_of,
)
from sigma_ppg_runs import KEYS, batch_of, tokenizer_network

from jaxbio.config.families import sigma_ppg
from jaxbio.export.torch_import import arrays_from_table
from jaxbio.export.torch_names_sigma_ppg import MASK_GENERATOR, STUDENT
from jaxbio.models.sigma import CodeHead, MaskGenerator, SigmaEncoder
from jaxbio.models.sigma_tokenizer import SigmaTokenizer
from jaxbio.objectives import make_objective, patch_masks
from jaxbio.objectives.patch_masks import Uniforms
from jaxbio.training.optimizer import make_optimizer


@pytest.fixture(scope="module")
def reference(parity_dir):
    with np.load(parity_dir / "sigma_ppg.npz") as arrays:
        return Reference(arrays)


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
    label_BA = np.asarray(reference["codes_BA"])
    np.testing.assert_array_equal(label_BA[mask_BA], reference["labels_M"])
    miss_BA = -jnp.take_along_axis(jax.nn.log_softmax(logit_BAK), label_BA[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(miss_BA[mask_BA], reference["loss_per_token_M"], atol=3e-5)
    reward_B = (miss_BA * mask_BA).sum(-1) / mask_BA.sum(-1)
    np.testing.assert_allclose(reward_B, reference["reward_B"], rtol=1e-5)
    np.testing.assert_allclose(reward_B - reward_B.mean(), reference["advantage_B"], atol=1e-5)
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
    np.testing.assert_allclose(norm_of(student), reference["metric_student_gradient_norm"], rtol=1e-4)
    np.testing.assert_allclose(norm_of(grads["mask_generator"]), reference["mask_generator_clip_norm"], rtol=1e-3)


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
