"""A batch of neighbourhoods gives the loss and the gradient of its pairs written out, for fewer FLOPs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbio.config import fields
from jaxbio.config.command_line import load_recipe
from jaxbio.objectives import make_objective
from jaxbio.objectives.pairing import Pairing
from jaxbio.objectives.spread import koleo, variance_hinge
from jaxbio.planning.flops import model_flops
from jaxbio.training.sharding import batch_sharding, make_mesh
from jaxbio.transforms.per_row import rows_on

BETTER, WORSE, UNITS = 6, 4, 2
SMALL = {
    "model.width": 100,
    "model.layers": 1,
    "model.heads": 2,
    "model.feedforward": 40,
    "model.dropout": 0.0,
    "data.channels": ("ppg",),
    "augment.noise_prob": 0.0,
    "augment.scale_prob": 0.0,
    "augment.offset_prob": 0.0,
    "augment.block_prob": 0.0,
}
KEYS = {"augment": jax.random.key(0), "dropout": jax.random.key(1)}


def make_batch() -> dict[str, np.ndarray]:
    """Two neighbourhoods, neither full, that differ in everything."""
    rng = np.random.default_rng(0)
    rows = UNITS * (BETTER + WORSE)
    pair_UP2 = np.zeros((UNITS, 4 * WORSE, 2), np.int32)
    weight_UP = np.zeros((UNITS, 4 * WORSE), np.float32)
    for unit, (better, worse, pairs) in enumerate([(6, 3, 11), (4, 4, 7)]):
        chosen = rng.permutation(better * worse)[:pairs]
        pair_UP2[unit, :pairs] = np.stack([chosen // worse, chosen % worse], axis=-1)
        weight_UP[unit, :pairs] = 0.06
    return {
        "segment_BMCT": rng.integers(-32767, 32768, (rows, 1, 1, 2000)).astype(np.int16),
        "scale_BMC2": np.ones((rows, 1, 1, 2), np.float32),
        "row_BM": np.arange(rows, dtype=np.uint32)[:, None],
        "pair_UP2": pair_UP2,
        "weight_UP": weight_UP,
        "better_UG": np.array([[True] * 6, [True] * 4 + [False] * 2]),
        "worse_UH": np.array([[True] * 3 + [False], [True] * 4]),
    }


def written_out(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same pairs as a batch of pairs."""
    unit_P, slot_P = np.nonzero(batch["weight_UP"])
    better_P, worse_P = batch["pair_UP2"][unit_P, slot_P].T
    row_PM = unit_P[:, None] * (BETTER + WORSE) + np.stack([better_P, BETTER + worse_P], axis=-1)
    return {name: batch[name][row_PM, 0] for name in ("segment_BMCT", "scale_BMC2", "row_BM")}


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"objective.distill_over": "token"},
        {"objective.distill_over": "segment", "objective.head": "mlp", "objective.predictor_hidden": 8},
    ],
)
def test_gradients_are_those_of_the_pairs_written_out(changes):
    config = fields.change(fields.defaults("qualityfm", "quality_distillation"), SMALL | changes)
    objective, batch = make_objective(config), make_batch()
    pairs = written_out(batch)
    params, state = jax.jit(objective.init)(jax.random.key(0), pairs, {})
    state = jax.tree.map(lambda leaf: leaf + 0.05 * np.random.default_rng(9).normal(size=leaf.shape).astype("f"), state)

    @jax.jit
    def gradient(params, batch):
        return jax.value_and_grad(lambda moving: objective.loss(moving, state, batch, KEYS, 0.0, True), has_aux=True)(
            params
        )

    ((loss, (aux, terms)), grads), ((expected, (aux_of_pairs, expected_terms)), expected_grads) = (
        gradient(params, each) for each in (batch, pairs)
    )
    weight = batch["weight_UP"].sum()  # these pairs count as 18 x 0.06 of a mean
    assert float(loss) == pytest.approx(float(weight * expected), rel=1e-5)
    for name, value in expected_terms.items():
        assert float(terms[name]) == pytest.approx(float(weight * value), rel=1e-5), name
    np.testing.assert_allclose(aux.means["centre"], aux_of_pairs.means["centre"], atol=1e-5)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected_grads))
    jax.tree.map(
        lambda mine, other: np.testing.assert_allclose(mine, weight * other, atol=1e-5 * largest), grads, expected_grads
    )


def test_pairs_are_formed_on_the_device_that_holds_their_neighbourhood():
    mesh = make_mesh(2, 1, 1, devices=jax.devices()[:2])
    batch = jax.device_put(make_batch(), batch_sharding(mesh))
    feature_BD = jax.device_put(np.arange(UNITS * WORSE * 3, dtype=np.float32).reshape(-1, 3), batch_sharding(mesh))

    def form(batch, feature_BD):
        with rows_on(mesh):
            return Pairing.of(batch).worse(feature_BD)

    compiled = jax.jit(form).lower(batch, feature_BD).compile()
    assert "all-gather" not in compiled.as_text()
    place_P = np.asarray(batch["pair_UP2"][..., 1]) + WORSE * np.arange(UNITS)[:, None]
    np.testing.assert_array_equal(compiled(batch, feature_BD), np.asarray(feature_BD)[place_P.ravel()])


def test_terms_of_the_batch_see_each_segment_once_and_no_place_that_is_left_over():
    feature_BD = np.random.default_rng(1).normal(size=(8, 5)).astype(np.float32)
    feature_BD[5], feature_BD[6] = feature_BD[0], 100.0
    there_B = np.array([True] * 5 + [False] * 2 + [True])
    kept_BD = jnp.asarray(feature_BD[there_B])
    assert koleo(jnp.asarray(feature_BD), there_B) == pytest.approx(float(koleo(kept_BD)), rel=1e-5)
    assert variance_hinge(jnp.asarray(feature_BD), 3.0, there_B) == pytest.approx(
        float(variance_hinge(kept_BD, 3.0)), rel=1e-5
    )


def test_a_step_costs_a_sixth_more_than_one_of_as_many_pairs():
    """It holds 2.6 times as many pairs on the real recordings (41.2 of 64 a neighbourhood, a cap of four)."""
    config = load_recipe("configs/qualityfm_base.py")
    pairs = model_flops(config, 16).total
    neighbourhoods = model_flops(fields.change(config, {"data.batching": "neighbourhoods"}), 16).total
    assert neighbourhoods / pairs < 1.17
