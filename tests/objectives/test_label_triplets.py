"""Triplets by label: the reference's numbers with shapes that match, and who may be whose partner."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from twelve_lead_parity import KEYS, batch_of, make_small, read_arrays

from jaxbio.config import fields
from jaxbio.config.command_line import load_recipe
from jaxbio.config.resolve import find_faults
from jaxbio.models.headed import Head
from jaxbio.objectives import label_triplets
from jaxbio.objectives.label_triplets import mine, squared_distances

CLASS_B = np.array([0, 0, 1, 1, 1, 2, np.nan, np.nan], np.float32)


@pytest.fixture(scope="module")
def arrays(parity_dir):
    return read_arrays(parity_dir, "ecg_vqvae_triplet.npz", "triplet/")


def test_the_published_head_has_49_801_parameters():
    shapes = jax.eval_shape(Head(64, 9).init, jax.random.key(0), jnp.zeros((1, 768)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 49_801
    config = load_recipe("configs/ecg_triplet.py")
    assert (config.model.width, config.objective.head_hidden, config.objective.head_width) == (768, 64, 9)


@pytest.mark.parametrize("margin", [1.0, 0.2])
def test_head_loss_and_gradients_are_the_references(arrays, margin):
    head = Head(64, 9)
    layers = {"hidden": "fc1", "output": "fc2"}
    params = {
        ours: {"kernel": arrays[f"{theirs}_weight"].T, "bias": arrays[f"{theirs}_bias"]}
        for ours, theirs in layers.items()
    }
    rows = [arrays[f"{which}_R"] for which in ("anchor", "positive", "negative")]

    def loss(params):
        embedding_BE = head.apply({"params": params}, arrays["features_BD"])
        distance_BB = squared_distances(embedding_BE)
        positive_R, negative_R = distance_BB[rows[0], rows[1]], distance_BB[rows[0], rows[2]]
        return jnp.maximum(positive_R - negative_R + margin, 0).mean(), (embedding_BE, positive_R, negative_R)

    (total, (embedding_BE, positive_R, negative_R)), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    np.testing.assert_allclose(embedding_BE, arrays["embedding_BE"], atol=5e-6)
    np.testing.assert_allclose(positive_R, arrays["distance_positive_R"], atol=5e-6)
    np.testing.assert_allclose(negative_R, arrays["distance_negative_R"], atol=5e-6)
    np.testing.assert_allclose(total, arrays[f"loss_margin_{margin}"], atol=1e-5)
    for ours, theirs in layers.items():
        np.testing.assert_allclose(grads[ours]["kernel"].T, arrays[f"grad_{theirs}_weight_margin_{margin}"], atol=5e-6)


def test_partners_are_of_the_same_and_of_another_class_and_nobody_is_his_own():
    keys = jax.vmap(lambda n: jax.random.split(jax.random.key(n), 8))(jnp.arange(200))
    distance_BB = jnp.zeros((8, 8))
    positive_XB, negative_XB, anchor_XB = jax.vmap(
        lambda key_B: mine(key_B, jnp.arange(8), CLASS_B, distance_BB, None)
    )(keys)
    np.testing.assert_array_equal(anchor_XB, np.broadcast_to([1, 1, 1, 1, 1, 0, 0, 0], (200, 8)).astype(bool))
    for row in range(5):
        same = set(np.flatnonzero(CLASS_B[row] == CLASS_B)) - {row}
        other = set(np.flatnonzero(np.isfinite(CLASS_B) & (CLASS_B[row] != CLASS_B)))
        assert set(np.asarray(positive_XB)[:, row].tolist()) == same
        assert set(np.asarray(negative_XB)[:, row].tolist()) == other


def test_a_segment_that_comes_twice_is_no_positive_of_itself():
    keys = jax.vmap(lambda n: jax.random.split(jax.random.key(n), 4))(jnp.arange(50))
    row_B, class_B = np.array([7, 7, 8, 9]), np.array([0, 0, 0, 1], np.float32)
    positive_XB, _, _ = jax.vmap(lambda key_B: mine(key_B, row_B, class_B, jnp.zeros((4, 4)), None))(keys)
    assert set(np.asarray(positive_XB)[:, :2].ravel().tolist()) == {2}


def test_semi_hard_negatives_lie_between_the_positive_and_the_margin():
    class_B = np.array([0, 0, 1, 1, 1], np.float32)
    distance_BB = jnp.array([[0.0, 0.5, 0.1, 0.6, 2.0], [0.5, 0.0, 0.1, 0.2, 3.0]] + [[9.0] * 5] * 3)
    keys = jax.vmap(lambda n: jax.random.split(jax.random.key(n), 5))(jnp.arange(100))
    _, negative_XB, _ = jax.vmap(lambda key_B: mine(key_B, jnp.arange(5), class_B, distance_BB, 0.2))(keys)
    assert set(np.asarray(negative_XB)[:, 0].tolist()) == {3}
    assert set(np.asarray(negative_XB)[:, 1].tolist()) == {2, 3, 4}  # none is semi-hard: any of them


@pytest.fixture(scope="module")
def small():
    changes = {"model.width": 16, "model.layers": 1, "model.heads": 1, "model.head_width": 8, "model.feedforward": 16}
    labels = {"data.labels": ("rhythm",), "model.patch": 10}
    _, objective = make_small("st_mem", "label_triplets", ("i", "ii"), {**changes, **labels})
    x_BCT = np.random.default_rng(0).normal(size=(8, 2, 40)).astype(np.float32)
    batch = batch_of(x_BCT) | {"label_BMK": CLASS_B[:, None, None]}
    return objective, batch, x_BCT


def test_the_loss_moves_classes_apart_and_couples_its_rows(small):
    objective, batch, x_BCT = small
    assert objective.coupled
    with pytest.MonkeyPatch.context() as context:
        context.setattr(label_triplets, "single_segments", lambda *_: jnp.asarray(x_BCT))
        params, state = jax.jit(objective.init)(jax.random.key(0), batch, {})
        step = jax.jit(jax.value_and_grad(lambda p: objective.loss(p, state, batch, KEYS, 0.0, True), has_aux=True))
        first = None
        for _ in range(60):
            (total, (_, metrics)), grads = step(params)
            first = total if first is None else first
            params = jax.tree.map(lambda p, g: p - 0.05 * g, params, grads)
    assert metrics["anchors"] == pytest.approx(5 / 8)
    assert 0 <= metrics["active"] <= 1
    assert total < 0.5 * first


def test_no_anchor_is_no_loss(small):
    objective, batch, _ = small
    params, state = jax.jit(objective.init)(jax.random.key(0), batch, {})
    nobody = batch | {"label_BMK": np.full((8, 1, 1), np.nan, np.float32)}
    total, (_, metrics) = jax.jit(lambda: objective.loss(params, state, nobody, KEYS, 0.0, True))()
    assert (total, metrics["anchors"], metrics["active"]) == (0, 0, 0)


def test_a_frozen_encoder_without_weights_is_a_fault():
    faults = find_faults(load_recipe("configs/ecg_triplet.py"))
    assert [fault.field for fault in faults] == ["train.init_from"]
    named = fields.change(load_recipe("configs/ecg_triplet.py"), {"train.init_from": (("encoder", "EXPORT"),)})
    assert find_faults(named) == []
    unlabelled = fields.change(named, {"data.labels": (), "train.batch": 2})
    assert {fault.field for fault in find_faults(unlabelled)} == {"data.labels", "train.batch"}
