"""ECG-JEPA: the numbers of the reference implementation, three optimiser steps included, and the published sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from twelve_lead_parity import KEYS, batch_of, check_after, check_gradients, make_small, optimise, read_arrays

from jaxbio.config.command_line import load_recipe
from jaxbio.data.batch import random_batch
from jaxbio.export.torch_import import read_reference, to_reference, trees_from_reference
from jaxbio.export.weights import flatten_tree
from jaxbio.models.ecg_jepa import ECGJEPA
from jaxbio.objectives import feature_prediction, make_objective
from jaxbio.objectives.feature_prediction import choose_visible

SMALL = {"width": 32, "layers": 2, "heads": 4, "feedforward": 128, "patch": 8, "drop_path": 0.0}
CHANGES = {
    **{f"model.{name}": value for name, value in SMALL.items()},
    "objective.predictor_width": 16,
    "objective.predictor_layers": 2,
    "objective.predictor_heads": 2,
    "objective.mask": "blocks",
    "objective.mask_by": "batch",
    "objective.most_visible": 10,
    "optimizer.weight_decay": 0.05,
    "optimizer.weight_decay_end": 0.05,
}


def with_heads(predictor, heads):
    """The predictor's attention with `heads` heads: of which number it has, the reference's arrays do not tell."""
    blocks = predictor["transformer"]["blocks"]
    attention = blocks["attention"]
    qkv, output = attention["qkv"]["kernel"], attention["output"]["kernel"]
    layers, width = qkv.shape[0], qkv.shape[1]
    split = qkv.reshape(layers, width, 3, heads, -1).swapaxes(2, 3)
    joined = output.reshape(layers, heads, -1, width)
    attention = {"qkv": {"kernel": split}, "output": {**attention["output"], "kernel": joined}}
    return {**predictor, "transformer": {"blocks": {**blocks, "attention": attention}}}


@pytest.fixture(scope="module")
def arrays(parity_dir):
    return read_arrays(parity_dir, "ecg_jepa.npz")


@pytest.fixture(scope="module")
def start(parity_dir):
    """Parameters and state of the reference's student, predictor and teacher."""
    trees = trees_from_reference("ecg_jepa", read_reference(parity_dir / "ecg_jepa.npz", "model/"), SMALL)["params"]
    params = {"encoder": trees["encoder"], "predictor": with_heads(trees["predictor"], 2)}
    return params, {"teacher": {"encoder": trees["teacher"]}}


@pytest.fixture(scope="module")
def run(arrays):
    """(objective, loss(params, state, time_mask_N)) on the reference's input, by what `changes` say."""
    batch = batch_of(arrays["x_BCT"])

    def make(**changes):
        _, objective = make_small(
            "ecg_jepa",
            "feature_prediction",
            ("i", "ii", "v1"),
            CHANGES | {f"objective.{k}": v for k, v in changes.items()},
        )

        def loss(params, state, time_mask_N):
            with pytest.MonkeyPatch.context() as context:
                context.setattr(feature_prediction, "single_segments", lambda *_: jnp.asarray(arrays["x_BCT"]))
                context.setattr(feature_prediction, "block_times", lambda *_: time_mask_N)
                return objective.loss(params, state, batch, KEYS, 0.0, True)[0]

        return objective, loss

    return make


def test_features_and_embedding_are_the_references(arrays, start):
    params, state = start
    encoder, x_BCT = ECGJEPA(**SMALL), arrays["x_BCT"]
    tokens = encoder.clone(output="tokens")
    student, teacher = {"params": params["encoder"]}, {"params": state["teacher"]["encoder"]}
    np.testing.assert_allclose(tokens.apply(student, x_BCT), arrays["features_BLD"], atol=2e-5)
    np.testing.assert_allclose(tokens.apply(teacher, x_BCT), arrays["teacher_features_BLD"], atol=2e-5)
    np.testing.assert_allclose(encoder.apply(student, x_BCT)[:, 0], arrays["embedding_BD"], atol=2e-5)
    visible, _ = choose_visible(jnp.broadcast_to(arrays["time_mask_N"][None], (3, 10)), 10)
    context_BCVD = encoder.apply(student, x_BCT, visible=visible)[:, :, :5]
    np.testing.assert_allclose(context_BCVD.reshape(3, 15, 32), arrays["context_features_BVD"], atol=2e-5)


@pytest.mark.parametrize(
    ("mask", "prediction"), [("time_mask_N", "prediction_BMD"), ("random_time_mask_N", "random_prediction_BMD")]
)
def test_what_is_compared_are_the_references_predictions_and_targets(arrays, start, run, monkeypatch, mask, prediction):
    compared, distance = [], feature_prediction._distance

    def spy(*pair_and_kind):
        compared.append(pair_and_kind[:2])
        return distance(*pair_and_kind)

    monkeypatch.setattr(feature_prediction, "_distance", spy)
    loss, hidden_N = run()[1], arrays[mask]
    predicted_BCND, target_BCND = jax.jit(lambda: (loss(*start, hidden_N), compared.pop())[1])()

    def by_lead(x_BCND, time_N):
        return np.asarray(x_BCND)[:, :, time_N].reshape(3, -1, 32)

    np.testing.assert_allclose(by_lead(predicted_BCND, hidden_N), arrays[prediction], atol=2e-5)
    if mask == "time_mask_N":
        np.testing.assert_allclose(by_lead(target_BCND, hidden_N), arrays["target_BMD"], atol=2e-5)
        visible_first_N = np.argsort(hidden_N, kind="stable")
        np.testing.assert_allclose(by_lead(predicted_BCND, visible_first_N), arrays["predictor_BLD"], atol=2e-5)


@pytest.mark.parametrize("most_visible", [10, 5])
def test_losses_are_the_references_whatever_the_room(arrays, start, run, most_visible):
    smooth = jax.jit(run(most_visible=most_visible)[1])
    np.testing.assert_allclose(smooth(*start, arrays["time_mask_N"]), arrays["loss"], atol=1e-5)
    random = smooth(*start, arrays["random_time_mask_N"])
    np.testing.assert_allclose(random, arrays["loss_random_mask"], atol=1e-5)
    absolute = jax.jit(run(most_visible=most_visible, distance="l1")[1])
    np.testing.assert_allclose(absolute(*start, arrays["time_mask_N"]), arrays["loss_l1"], atol=1e-5)


def test_gradients_are_the_references(arrays, start, run):
    grads = jax.jit(jax.grad(run()[1]))(*start, arrays["time_mask_N"])
    check_gradients("ecg_jepa", grads, arrays)


def test_three_steps_move_student_and_teacher_as_the_reference(arrays, start, run):
    config, _ = make_small("ecg_jepa", "feature_prediction", ("i", "ii", "v1"), CHANGES)
    objective, loss_of = run()
    init, step = optimise(config, steps=30)
    gradient, update = jax.jit(jax.value_and_grad(loss_of)), jax.jit(objective.update)
    (params, state), opt_state = start, init(start[0])
    for number, time_mask_N in enumerate(arrays["steps/time_mask_SN"]):
        loss, grads = gradient(params, state, time_mask_N)
        np.testing.assert_allclose(loss, arrays["steps/loss_S"][number], atol=1e-5)
        params, opt_state = step(params, opt_state, grads, number)
        state, _ = update(params, state, None, KEYS["augment"], number / 30)
    moved = {"params": {**params, "teacher": state["teacher"]["encoder"]}}
    check_after(to_reference("ecg_jepa", moved), arrays, worst=1e-4)


def test_the_references_arrays_come_in_and_go_out_unchanged(arrays, start):
    params, state = start
    back = to_reference("ecg_jepa", {"params": {**params, "teacher": state["teacher"]["encoder"]}}, input_shape=(3, 80))
    stored = {name.removeprefix("model/") for name in arrays if name.startswith("model/")}
    assert back.keys() == stored
    for name in stored:
        np.testing.assert_allclose(back[name], arrays[f"model/{name}"], atol=2e-6, err_msg=name)


@pytest.mark.parametrize(
    ("size", "trained", "encoder"), [("small", 23_225_856, 21_300_096), ("base", 96_299_520, 85_067_520)]
)
def test_sizes_are_the_published_ones(size, trained, encoder):
    config = load_recipe(f"configs/ecg_jepa_{size}.py:smoke")
    objective = make_objective(config)
    params, _ = jax.eval_shape(objective.init, jax.random.key(0), random_batch(config, np.random.default_rng(0)), {})
    counts = {part: sum(leaf.size for leaf in flatten_tree(tree).values()) for part, tree in params.items()}
    assert (sum(counts.values()), counts["encoder"]) == (trained, encoder)


def test_a_row_that_leaves_too_many_visible_hides_the_last_of_them():
    hidden_BN = jnp.array([[True, False, False, False, True], [True, True, True, False, True]])
    (time_BV, used_BV), place_BN = choose_visible(hidden_BN, 2)
    np.testing.assert_array_equal(time_BV[0], [1, 2])
    np.testing.assert_array_equal(used_BV, [[True, True], [True, False]])
    assert time_BV[1, 0] == 3
    np.testing.assert_array_equal(place_BN, [[2, 0, 1, 2, 2], [2, 2, 2, 0, 2]])
