"""Supervised learning: losses and metrics against others', what moves and what stays, where weights come from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import huber, log_softmax
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from small_encoder import SmallEncoder

from jaxbio.config import fields
from jaxbio.objectives import answers
from jaxbio.objectives.supervised import supervised
from jaxbio.objectives.targets import class_loss, number_loss
from jaxbio.training.optimizer import make_optimizer
from jaxbio.transforms.prepare_input import Input

RNG = np.random.default_rng(0)
LOGIT_BK, CLASS_B = RNG.normal(size=(16, 3)).astype(np.float32), RNG.integers(0, 3, 16)
PLAIN = {"weights": (), "focal": 0.0, "smoothing": 0.0}
INPUTS = Input(10.0, 40, ("ppg", "ecg"), "per_channel")
SETTINGS = {
    "adapters": "none",
    "answer": "classes",
    "classes": ("false", "true"),
    "class_weights": (),
    "focal": 0.0,
    "label_smoothing": 0.0,
    "offset": 0.0,
    "scale": 1.0,
    "huber": 1.0,
    "trained": "auto",
    "layer_decay": 1.0,
    "head_hidden": 0,
    "window_s": None,
}
AUGMENTATION = {**fields.defaults("resnet1d", "supervised").augment, "drop_channel": 0.5}
KEYS = {name: jax.random.key(place) for place, name in enumerate(("augment", "dropout"))}


def test_losses_of_classes_are_the_textbooks():
    log_p_BK = log_softmax(LOGIT_BK, axis=1)
    true_B = log_p_BK[np.arange(16), CLASS_B]
    np.testing.assert_allclose(class_loss(LOGIT_BK, CLASS_B, **PLAIN), -true_B, atol=1e-6)
    smooth = class_loss(LOGIT_BK, CLASS_B, **PLAIN | {"smoothing": 0.3})
    np.testing.assert_allclose(smooth, -0.7 * true_B - 0.1 * log_p_BK.sum(1), atol=1e-6)
    focal = class_loss(LOGIT_BK, CLASS_B, **PLAIN | {"focal": 2.0})
    np.testing.assert_allclose(focal, -((1 - np.exp(true_B)) ** 2) * true_B, atol=1e-6)
    weighted = class_loss(LOGIT_BK, CLASS_B, **PLAIN | {"weights": (1.0, 2.0, 0.5)})
    np.testing.assert_allclose(weighted, -np.array([1.0, 2.0, 0.5])[CLASS_B] * true_B, atol=1e-6)
    sure = jax.grad(lambda x: class_loss(x, jnp.zeros(1), **PLAIN | {"focal": 0.5}).sum())(jnp.array([[80.0, 0.0]]))
    assert np.isfinite(sure).all()


def test_the_loss_of_numbers_is_hubers_in_units_of_the_scale():
    value_B, label_B = RNG.normal(80, 30, 50), RNG.normal(80, 30, 50)
    found = number_loss(value_B[:, None], label_B[:, None], scale=20.0, huber=0.7)
    np.testing.assert_allclose(found, huber(0.7, (value_B - label_B) / 20), rtol=1e-5)


def test_metrics_are_scikit_learns():
    true_N = RNG.integers(0, 2, 60)
    score_N = np.round(RNG.normal(size=60) + true_N, 1)  # with ties
    assert answers.auroc(true_N, score_N) == pytest.approx(roc_auc_score(true_N, score_N), abs=1e-9)
    for positive_N, scores in ((np.ones(4), score_N[:4]), ([0, 1, 1], [0.1, np.nan, 0.3]), ([], [])):
        assert np.isnan(answers.auroc(positive_N, scores))
    probability_NK = jax.nn.softmax(LOGIT_BK)
    found = answers.measure_classes(CLASS_B, {"all": np.asarray(probability_NK), "ppg": np.asarray(probability_NK)})
    expected = roc_auc_score(CLASS_B, probability_NK, multi_class="ovr")
    assert found["auroc"] == found["auroc_ppg_only"] == pytest.approx(expected, abs=1e-6)
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(CLASS_B, LOGIT_BK.argmax(1)))


def make(**changes):
    return supervised(SmallEncoder(), inputs=INPUTS, augmentation=AUGMENTATION, **SETTINGS | changes)


def make_batch(channels=2):
    rng = np.random.default_rng(1)
    return {
        "segment_BMCT": rng.integers(-32767, 32767, (4, 1, channels, 40)).astype(np.int16),
        "scale_BMC2": np.tile(np.float32([0.0, 1 / 32767]), (4, 1, channels, 1)),
        "row_BM": np.arange(4, dtype=np.uint32)[:, None],
        "label_BMK": np.float32([0, 1, 1, 1]).reshape(4, 1, 1),
    }


@pytest.fixture(scope="module")
def batch():
    return make_batch()


@pytest.fixture(scope="module")
def exported():
    """Weights as an export of the encoder has them, and what that encoder says."""
    x_BCT = jnp.asarray(np.random.default_rng(2).normal(size=(2, 2, 40)), jnp.float32)
    variables = jax.jit(SmallEncoder().init)(jax.random.key(9), x_BCT)
    return variables, x_BCT, jax.jit(SmallEncoder().apply)(variables, x_BCT)


@pytest.mark.parametrize("how", [{}, {"adapters": "lora:3"}, {"trained": "last:1"}])
def test_step_0_is_the_export_and_what_stays_is_neither_a_parameter_nor_changed(batch, exported, how):
    variables, x_BCT, tok_BLD = exported
    objective = make(**how)
    params, state = jax.jit(objective.init)(jax.random.key(0), batch, {})
    params, state = objective.place("encoder", params, state, variables)
    module, take = objective.encoders["encoder"]
    np.testing.assert_array_equal(jax.jit(module.apply)(take(params, state), x_BCT), tok_BLD)
    loss = jax.jit(jax.grad(lambda p: objective.loss(p, state, batch, KEYS, jnp.float32(0), True)[0]))
    moved = jax.tree.map(lambda p, g: p - 0.1 * g, params, loss(params))
    moved = jax.tree.map(lambda p, g: p - 0.1 * g, moved, loss(moved))  # adapters move their encoder from step 2 on
    assert not np.array_equal(jax.jit(module.apply)(take(moved, state), x_BCT), tok_BLD)
    counted = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert counted <= sum(leaf.size for leaf in jax.tree.leaves(objective.encoders["answering"][1](params, state)))
    if how:
        assert "encoder" in state


def test_a_head_alone_leaves_the_encoder_as_it_is(batch):
    objective = make(trained="head")
    params, _ = jax.jit(objective.init)(jax.random.key(0), batch, {})
    assert set(params) == {"head"}


def test_rows_without_a_label_move_nothing(batch):
    objective = make()
    params, state = jax.jit(objective.init)(jax.random.key(0), batch, {})
    unknown = {**batch, "label_BMK": np.full_like(batch["label_BMK"], np.nan)}
    total, grads = jax.jit(
        jax.value_and_grad(lambda p: objective.loss(p, state, unknown, KEYS, jnp.float32(0), True)[0])
    )(params)
    assert total == 0
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(grads))


def test_the_loss_is_judged_by_the_best_constant(batch):
    objective = make()
    params, state = jax.jit(objective.init)(jax.random.key(0), batch, {})
    told = jax.device_get(jax.jit(objective.outputs)(params, state, batch))
    metrics = objective.measure(told)
    assert metrics["loss_constant"] == pytest.approx(-0.25 * np.log(0.25) - 0.75 * np.log(0.75), abs=1e-4)
    assert metrics["loss_floor"] == 0


def test_the_best_constant_is_of_all_held_out_rows_and_knows_no_batch(batch):
    """Batches of one patient each, all of one class, would have a constant of 0; all together have ln 2."""
    objective = make()
    params, state = jax.jit(objective.init)(jax.random.key(0), batch, {})
    told = jax.device_get(jax.jit(objective.outputs)(params, state, batch))
    rows = len(told["row"])
    alone = [{**told, "label": np.full(rows, float(code)), "row": told["row"] + 100 * code} for code in (0, 1)]
    both = {name: np.concatenate([part[name] for part in alone]) for name in told}
    assert objective.measure(alone[0])["loss_constant"] == pytest.approx(0.0, abs=1e-3)
    assert objective.measure(both)["loss_constant"] == pytest.approx(np.log(2), abs=1e-4)


def test_the_best_constant_follows_the_loss(batch):
    """Weights, smoothing and the power of the focal loss move it: no other constant does better."""
    changes = {"class_weights": (0.5, 2.0), "label_smoothing": 0.1, "focal": 2.0}
    objective = make(**changes)
    params, state = jax.jit(objective.init)(jax.random.key(0), batch, {})
    told = jax.device_get(jax.jit(objective.outputs)(params, state, batch))
    found = objective.measure(told)["loss_constant"]
    tried = [
        class_loss(
            jnp.broadcast_to(jnp.array([0.0, logit]), (len(told["label"]), 2)),
            told["label"],
            weights=changes["class_weights"],
            focal=2.0,
            smoothing=0.1,
        ).mean()
        for logit in np.linspace(-4, 4, 801)
    ]
    assert found == pytest.approx(float(min(tried)), abs=1e-4)


def test_the_floor_is_what_the_best_answers_give_of_smoothed_targets(batch):
    objective = make(label_smoothing=0.2)
    params, state = jax.jit(objective.init)(jax.random.key(0), batch, {})
    told = jax.device_get(jax.jit(objective.outputs)(params, state, batch))
    assert objective.measure(told)["loss_floor"] == pytest.approx(-0.9 * np.log(0.9) - 0.1 * np.log(0.1), abs=1e-4)
    assert objective.targets_given  # rare classes have little to explain, and are learnt all the same


def test_a_row_that_comes_twice_counts_once_and_channels_are_measured_alone(batch):
    objective = make()
    params, state = jax.jit(objective.init)(jax.random.key(0), batch, {})
    told = jax.device_get(jax.jit(objective.outputs)(params, state, batch))
    assert set(told) == {"row", "label", "answer_all", "answer_ppg", "answer_ecg"}
    twice = {name: np.concatenate([array, array[:2]]) for name, array in told.items()}
    assert objective.measure(twice) == pytest.approx(objective.measure(told), nan_ok=True)


def test_deeper_layers_are_moved_by_their_pace(batch):
    objective = make(layer_decay=0.4)
    params, _ = jax.jit(objective.init)(jax.random.key(0), batch, {})
    ones = jax.tree.map(jnp.ones_like, params)
    plain = {"name": "sgd", "clip_norm": None, "weight_decay": 0.0, "weight_decay_end": 0.0, "momentum": 0.0}
    settings = fields.defaults().optimizer.unlock()
    settings.update({**plain, "nesterov": False, "warmup_frac": 0.0})
    optimizer = make_optimizer(settings, 10, objective.rate_scale)
    moved, _, _ = optimizer.update(ones, optimizer.init(params), params, jnp.int32(0), jnp.bool(True), measured=False)
    rate = settings.learning_rate

    def steps(*path):
        old, new = params, moved
        for name in path:
            old, new = old[name], new[name]
        return np.unique(np.round(np.asarray(old - new) / rate, 2))

    np.testing.assert_allclose(steps("head", "output", "bias"), [1.0], atol=0.02)
    np.testing.assert_allclose(steps("encoder", "output", "bias"), [0.4], atol=0.02)
    np.testing.assert_allclose(steps("encoder", "blocks", "split", "bias"), [0.03, 0.06, 0.16], atol=0.01)


def test_a_channel_is_learnt_that_the_encoder_does_not_see():
    objective = make(answer="waveforms", classes=(), offset=90.0)
    batch = make_batch(channels=3)
    batch["scale_BMC2"][:, :, 2] = (90.0, 20 / 32767)  # 70 to 110 mmHg
    params, state = jax.jit(objective.init)(jax.random.key(0), batch, {})
    told = jax.device_get(jax.jit(objective.outputs)(params, state, batch))
    measured = objective.measure(told)
    assert set(measured) == {"mae", "mae_ppg_only", "mae_ecg_only", "mae_flat", "loss_constant", "loss_floor"}
    module, take = objective.encoders["answering"]
    x_BCT = np.float32(batch["segment_BMCT"][:, 0, :2]) / 32767
    answer_BT = np.asarray(jax.jit(module.apply)(take(params, state), x_BCT))[:, 0]
    true_BT = 90 + np.float32(batch["segment_BMCT"][:, 0, 2]) * 20 / 32767
    assert measured["mae"] == pytest.approx(np.abs(answer_BT - true_BT).mean(), rel=1e-4)
    other = {**batch, "segment_BMCT": batch["segment_BMCT"].copy()}
    other["segment_BMCT"][:, :, 2] //= 2
    loss = jax.jit(lambda batch: objective.loss(params, state, batch, KEYS, jnp.float32(0), False)[0])
    assert loss(batch) != loss(other)
    assert answer_BT.shape == (4, 40)


def test_hand_made_features_are_no_channels_to_be_lost():
    """They go with lead II, and no answer is from them alone."""
    inputs = Input(10.0, 40, ("ppg", "ii"), "per_channel", features=("sdnn",), feature_scales=((0.0, 1.0),))
    objective = supervised(SmallEncoder(), inputs=inputs, augmentation=AUGMENTATION, **SETTINGS)
    batch = make_batch(channels=3)
    params, state = jax.jit(objective.init)(jax.random.key(0), batch, {})
    told = jax.device_get(jax.jit(objective.outputs)(params, state, batch))
    other = {**batch, "segment_BMCT": batch["segment_BMCT"].copy()}
    other["segment_BMCT"][:, :, 2] //= 2
    changed = jax.device_get(jax.jit(objective.outputs)(params, state, other))
    np.testing.assert_array_equal(told["answer_ppg"], changed["answer_ppg"])
    assert np.abs(told["answer_ecg"] - changed["answer_ecg"]).max() > 0
    loss, _ = jax.jit(lambda batch: objective.loss(params, state, batch, KEYS, jnp.float32(0), True))(batch)
    assert np.isfinite(loss)


def test_the_encoder_of_windows_is_one_of_segments_as_long_as_these():
    assert make(window_s=2.0).windows == {"encoder": 20}
    assert make().windows == {}
