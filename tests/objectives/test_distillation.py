"""Self-distillation's terms beside NumPy, and the numbers that they are judged by."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from jaxbio.objectives.distillation import Distillation, conclude
from jaxbio.objectives.schedule import horizon_momentum, linear
from jaxbio.objectives.spread import koleo, variance_hinge
from jaxbio.training.collapse import explained

PLAIN = Distillation("token", 0.5, 0.5, 0.0, 1.0, "position", 0.9)
compare = jax.jit(lambda *arrays: PLAIN.compare(*arrays, jnp.zeros(()), train=False))


def concluded(terms):
    """Return the terms that are numbers, with what follows of the mean distributions."""
    means = {name: np.asarray(term) for name, term in terms.items()}
    arrays = {name: mean for name, mean in means.items() if mean.ndim}
    return {name: float(mean) for name, mean in means.items() if not mean.ndim} | conclude(arrays)


def features(seed, batch=6, tokens=3, width=8):
    return np.random.default_rng(seed).normal(size=(2, batch, tokens, width)).astype(np.float32)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_terms_equal_numpy(seed):
    teacher_BLK, student_BLK = features(seed)
    centre_1LK = features(seed + 1)[0, :1]
    terms, mean_1LK = compare(teacher_BLK, student_BLK, centre_1LK)
    target_BLK = special.softmax((teacher_BLK - centre_1LK) / 0.5, axis=-1)
    log_prediction_BLK = special.log_softmax(student_BLK, axis=-1)
    expected = {
        "distill": -(target_BLK * log_prediction_BLK).sum(-1).mean(),
        "distill_constant": stats.entropy(target_BLK.mean(0), axis=-1).mean(),
        "distill_uniform": np.log(8),
        "teacher_entropy": stats.entropy(target_BLK, axis=-1).mean(),
        "student_entropy": stats.entropy(np.exp(log_prediction_BLK), axis=-1).mean(),
        "student_mean_entropy": stats.entropy(np.exp(log_prediction_BLK).mean(0), axis=-1).mean(),
    }
    terms = concluded(terms)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name], value, rtol=2e-5, err_msg=name)
    np.testing.assert_allclose(mean_1LK, teacher_BLK.mean(0, keepdims=True), atol=1e-6)


def test_the_constant_and_the_floor_are_what_such_predictions_give():
    """A prediction of the mean target reaches the one, of the target itself the other; nothing goes below."""
    teacher_BLK, _ = features(0)
    centre_1LK = np.zeros((1, 3, 8), np.float32)
    target_BLK = special.softmax(teacher_BLK / 0.5, axis=-1)
    constant_BLK = np.broadcast_to(np.log(target_BLK.mean(0)), teacher_BLK.shape)
    for prediction_BLK, name in ((constant_BLK, "distill_constant"), (np.log(target_BLK), "teacher_entropy")):
        terms = concluded(compare(teacher_BLK, prediction_BLK, centre_1LK)[0])
        np.testing.assert_allclose(terms["distill"], terms[name], rtol=1e-5)
    assert terms["teacher_entropy"] < terms["distill_constant"] < np.log(8)


def test_the_constant_is_of_all_batches_together_and_knows_no_patient():
    """Each batch one patient whose target never changes: beside itself it has nothing to explain, all together have."""
    centre_1LK = np.zeros((1, 3, 8), np.float32)
    batches = [np.tile(features(seed, batch=1)[0], (6, 1, 1)) for seed in range(4)]
    found = [compare(teacher_BLK, teacher_BLK, centre_1LK)[0] for teacher_BLK in batches]
    means = {name: np.mean([terms[name] for terms in found], axis=0) for name in found[0]}
    alone, together = concluded(found[0]), concluded(means)
    np.testing.assert_allclose(alone["distill_constant"], alone["teacher_entropy"], rtol=1e-5)
    assert together["distill_constant"] > together["teacher_entropy"] + 0.1


def test_segments_are_compared_by_the_mean_over_their_tokens():
    teacher_BLD, _ = features(1)
    over_segments = dataclasses.replace(PLAIN, over="segment")
    np.testing.assert_allclose(over_segments.gather(teacher_BLD)[:, 0], teacher_BLD.mean(1), atol=1e-6)
    assert over_segments.start_centre(over_segments.gather(teacher_BLD)[:1]).shape == (1, 1, 8)
    assert PLAIN.gather(teacher_BLD) is teacher_BLD


def test_a_centre_over_all_positions_is_their_mean():
    teacher_BLK, student_BLK = features(2)
    over_all = dataclasses.replace(PLAIN, centre_over="all")
    _, mean_11K = over_all.compare(teacher_BLK, student_BLK, np.zeros((1, 1, 8), np.float32), jnp.zeros(()), False)
    np.testing.assert_allclose(mean_11K, teacher_BLK.mean((0, 1), keepdims=True), atol=1e-6)
    assert over_all.start_centre(teacher_BLK[:1]).shape == (1, 1, 8)


def test_the_teachers_temperature_warms_up_along_a_line():
    values = [float(linear(0.04, 0.08, 0.5, jnp.float32(progress))) for progress in (0, 0.25, 0.5, 1)]
    np.testing.assert_allclose(values, [0.04, 0.06, 0.08, 0.08], rtol=1e-6)
    assert float(linear(0.04, 0.08, 0.0, jnp.zeros(()))) == pytest.approx(0.08)


@pytest.mark.parametrize("steps", [30, 300, 3000])
def test_a_teacher_forgets_by_1_over_e_in_the_same_share_of_any_run(steps):
    momentum = horizon_momentum(0.25, jnp.float32(1 / steps))
    assert float(momentum) ** (0.25 * steps) == pytest.approx(np.exp(-1), rel=2e-2)
    assert float(horizon_momentum(0.25, jnp.zeros(()))) == 1.0


def test_explained_is_the_share_of_the_way_from_constant_to_floor():
    assert explained(5.0, 6.0, 2.0) == pytest.approx(0.25)
    assert explained(7.0, 6.0, 2.0) == pytest.approx(-0.25)
    assert explained(0.0, 0.0, 0.0) == 0.0


def test_koleo_falls_as_neighbours_part_and_ignores_a_shared_mean():
    rng = np.random.default_rng(0)
    near_BD = np.repeat(rng.normal(size=(4, 16)), 2, axis=0) + 0.01 * rng.normal(size=(8, 16))
    far_BD = np.eye(16)[:8]
    assert float(koleo(jnp.array(near_BD))) > float(koleo(jnp.array(far_BD))) + 1.0
    np.testing.assert_allclose(koleo(jnp.array(far_BD) + 3.0), koleo(jnp.array(far_BD)), atol=1e-4)


def test_the_variance_hinge_pulls_only_below_its_least():
    feature_BD = jnp.array(np.random.default_rng(0).normal(size=(64, 8)))
    assert float(variance_hinge(feature_BD, 0.1)) == 0.0
    assert float(variance_hinge(0.0 * feature_BD, 0.1)) == pytest.approx(0.99, abs=0.01)
    assert 0.4 < float(variance_hinge(0.05 * feature_BD, 0.1)) < 0.6
