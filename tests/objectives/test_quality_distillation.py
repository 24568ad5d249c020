"""QualityFM's objective: the reference's numbers, NumPy's moving averages, and what must not move."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbio.config import fields
from jaxbio.config.faults import UserError
from jaxbio.export.torch_import import read_reference, to_reference, trees_from_reference
from jaxbio.models import ENCODERS
from jaxbio.models.qualityfm import QualityFMEncoder
from jaxbio.objectives import Aux, make_objective
from jaxbio.objectives.schedule import cosine
from jaxbio.transforms.spectra import band_shape

# One channel, so that the decoder of a narrow model still gives a token a channel.
SMALL = {
    "model.width": 100,
    "model.layers": 1,
    "model.heads": 2,
    "model.feedforward": 40,
    "data.channels": ("ppg",),
    "objective.distill_over": "token",
    "objective.ema_start": 0.7,
    "objective.ema_end": 1.0,
    "objective.ema_horizon_frac": None,
    "objective.centre_momentum": 0.9,
}
PARITY = {
    "model.layers": 1,
    "model.feedforward": 32,
    "model.dropout": 0.0,
    "objective.distill_over": "token",
    "objective.teacher_temperature": 0.04,
    "objective.student_temperature": 0.1,
    "objective.centre_momentum": 0.9,
    "objective.amplitude_weight": 0.1,
    "objective.phase_weight": 0.1,
}
KEYS = {"augment": jax.random.key(0), "dropout": jax.random.key(1)}


def make(**changes):
    return make_objective(fields.change(fields.defaults("qualityfm", "quality_distillation"), changes))


def small(**changes):
    return make(**SMALL | changes)


def make_batch(pairs=4, members=2, channels=1, samples=2000):
    segment_BMCT = np.random.default_rng(0).integers(-32767, 32768, (pairs, members, channels, samples))
    return {
        "segment_BMCT": segment_BMCT.astype(np.int16),
        "scale_BMC2": np.ones((pairs, members, channels, 2), np.float32),
        "row_BM": np.arange(pairs * members, dtype=np.uint32).reshape(pairs, members),
    }


BATCH = make_batch()


@cache
def compiled(train, **changes):
    """One program for all tests that evaluate the same objective."""
    return jax.jit(partial(small(**dict(changes)).loss, train=train))


def evaluate(params, state, batch=BATCH, keys=KEYS, train=False, **changes):
    return compiled(train, **changes)(params, state, batch, keys, 0.0)


@pytest.fixture(scope="module")
def start():
    return jax.jit(small().init)(jax.random.key(0), BATCH, {})


@pytest.fixture(scope="module")
def moved(start):
    """Parameters and a state that have left the start: the teacher is another network, the centre not zero."""
    rng = np.random.default_rng(9)
    params, state = start
    return params, jax.tree.map(lambda a: a + 0.05 * rng.normal(size=a.shape).astype(np.float32), state)


@pytest.fixture(scope="module")
def gradients(moved):
    """Of the training loss, by the student's parameters and by the state."""
    grad = jax.jit(jax.grad(lambda params, state: small().loss(params, state, BATCH, KEYS, 0.0, True)[0], (0, 1)))
    return grad(*moved)


# ---- the reference's numbers


@pytest.fixture(scope="module")
def arrays(parity_dir):
    with np.load(parity_dir / "qualityfm.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def reference_trees(parity_dir):
    settings = {"width": 512, "layers": 1, "heads": 4, "feedforward": 32, "window": 8, "dropout": 0.0}
    read = partial(read_reference, parity_dir / "qualityfm.npz")
    student, teacher = (trees_from_reference("qualityfm", read(f"{net}/"), settings) for net in ("student", "teacher"))
    return student["params"], teacher["params"]


@pytest.fixture(scope="module", params=["convolution", "frames"])
def ours(request, arrays, reference_trees):
    """What the objective makes of the reference's weights and pair, in either form of the tokenizer."""
    student, teacher = reference_trees
    objective = make(**PARITY, **{"model.tokenizer": request.param})
    state = {"teacher": {"encoder": teacher["encoder"]}, "centre": arrays["center_before"]}
    batch = {
        "segment_BMCT": np.stack([arrays["high_BCT"], arrays["low_BCT"]], axis=1),
        "scale_BMC2": np.ones((2, 2, 2, 2), np.float32),
        "row_BM": np.arange(4, dtype=np.uint32).reshape(2, 2),
    }

    @jax.jit
    def run(student, state, batch):
        loss = partial(objective.loss, state=state, batch=batch, keys=KEYS, progress=0.0, train=False)
        (total, (aux, metrics)), gradients = jax.value_and_grad(loss, has_aux=True)(student)
        shown = objective.show(student, state, batch)
        high_BCT, low_BCT = shown["segment"][:, 0], shown["segment"][:, 1]
        module, variables = objective.encoders["teacher"]
        teacher_variables = variables(student, state)
        student_module, student_variables = objective.encoders["student"]
        return {
            "loss": total,
            "gradients": gradients,
            "metrics": metrics,
            "shown": shown,
            "center_after": objective.update(student, state, aux, jax.random.key(0), 0.0)[0]["centre"],
            "teacher_features_BLD": module.apply(teacher_variables, high_BCT),
            "teacher_features_10s_BLD": module.apply(teacher_variables, high_BCT[..., :3000]),
            "student_features_BLD": student_module.apply(student_variables(student, state), low_BCT),
        }

    return run(student, state, batch)


def test_features_equal_the_references(ours, arrays):
    for name in ("teacher_features_BLD", "student_features_BLD", "teacher_features_10s_BLD"):
        np.testing.assert_allclose(ours[name], arrays[name], atol=2e-5, rtol=0)


def test_spectra_and_their_targets_equal_the_references(ours, arrays):
    for name, tolerance in (("amplitude", 3e-5), ("phase", 3e-4)):
        target_BCS, output_BCS = ours["shown"][name]
        np.testing.assert_allclose(output_BCS, arrays[f"{name}_BCS"], atol=2e-5, rtol=0)
        np.testing.assert_allclose(target_BCS, arrays[f"target_{name}_BCS"], atol=tolerance, rtol=0)


def test_every_loss_term_equals_the_references(ours, arrays):
    np.testing.assert_allclose(ours["loss"], arrays["loss"], rtol=1e-5)
    for name in ("distill", "amplitude", "phase"):
        np.testing.assert_allclose(ours["metrics"][name], arrays[f"loss_{name}"], rtol=1e-5)


def test_gradients_equal_the_references(ours, arrays):
    gradients = to_reference("qualityfm", {"params": ours["gradients"]})
    norms = {name.removeprefix("grad_norm/"): norm for name, norm in arrays.items() if name.startswith("grad_norm/")}
    assert gradients.keys() == norms.keys()
    for name, gradient in gradients.items():
        if name.endswith("in_proj_bias"):  # its middle third, the keys' bias, has no gradient but rounding
            np.testing.assert_allclose(gradient[512:1024], 0, atol=1e-5)
        norm = np.linalg.norm(gradient.astype(np.float64).ravel())
        np.testing.assert_allclose(norm, norms[name], rtol=1e-4, err_msg=name)
    whole = arrays["grad/encoder.patch_embed.conv1.weight"]
    np.testing.assert_allclose(
        gradients["encoder.patch_embed.conv1.weight"], whole, atol=1e-4 * np.abs(whole).max(), rtol=0
    )


def test_centre_equals_the_references(ours, arrays):
    np.testing.assert_allclose(ours["center_after"], arrays["center_after"], atol=2e-6, rtol=0)


# ---- moving averages


def test_teacher_and_two_centres_equal_numpy(moved):
    objective = small()
    module, variables = objective.encoders["teacher"]
    features, update = jax.jit(module.apply), jax.jit(objective.update)
    params, state = moved
    expected = jax.tree.map(lambda a: np.asarray(a, np.float64), state)
    for step in range(2):
        batch = {**BATCH, "segment_BMCT": np.roll(BATCH["segment_BMCT"], step, axis=0) // (step + 1)}
        features_BLD = features(variables(params, state), batch["segment_BMCT"][:, 0] / np.float32(32767))
        _, (aux, _) = evaluate(params, state, batch)
        params = jax.tree.map(lambda a, factor=1.01 + step: np.asarray(a) * np.float32(factor), params)  # an optimiser
        state, metrics = update(params, state, aux, jax.random.key(0), 0.0)
        assert metrics["ema_momentum"] == pytest.approx(0.7)
        expected = {
            "teacher": jax.tree.map(
                lambda t, s: 0.7 * t + 0.3 * s, expected["teacher"], {"encoder": params["encoder"]}
            ),
            "centre": 0.9 * expected["centre"] + 0.1 * np.asarray(features_BLD).mean(0, keepdims=True),
        }
        jax.tree.map(partial(np.testing.assert_allclose, atol=2e-6), state, expected)


def test_teacher_momentum_follows_half_a_cosine():
    values = [float(cosine(0.7, 1.0, progress)) for progress in (0, 0.25, 0.5, 1)]
    np.testing.assert_allclose(values, [0.7, 1 - 0.15 * (1 + np.sqrt(0.5)), 0.85, 1.0], rtol=1e-6)


def test_a_momentum_of_one_leaves_the_teacher_alone(moved):
    params, state = moved
    after, _ = jax.jit(small().update)(params, state, Aux({"centre": state["centre"]}), jax.random.key(0), 1.0)
    jax.tree.map(np.testing.assert_array_equal, after["teacher"], state["teacher"])


@pytest.mark.parametrize("progress", [291 / 3000, 291 / 300, 1.0])
def test_the_teacher_stays_between_itself_and_the_student_where_a_run_is_lengthened(moved, progress):
    """Step 290 of 300 has more behind it than step 291 of 3,000: a momentum above 1 leads away from the student."""
    params, state = moved
    update = jax.jit(small(**{"objective.ema_horizon_frac": 0.25}).update)
    before = {**state, "progress": jnp.float32(290 / 300)}
    after, metrics = update(params, before, Aux({"centre": state["centre"]}), jax.random.key(0), progress)
    assert metrics["ema_momentum"] <= 1
    assert after["progress"] == np.float32(progress)
    student = {"encoder": params["encoder"]}
    for new, old, taught in zip(*map(jax.tree.leaves, (after["teacher"], state["teacher"], student)), strict=True):
        low, high = np.minimum(old, taught), np.maximum(old, taught)
        assert ((new >= low - 1e-6) & (new <= high + 1e-6)).all()


# ---- structure


def test_teacher_and_student_start_equal(start):
    params, state = start
    jax.tree.map(np.testing.assert_array_equal, state["teacher"]["encoder"], params["encoder"])
    assert not state["centre"].any()
    assert jax.tree.structure(state["teacher"]) == jax.tree.structure({"encoder": params["encoder"]})
    assert set(params) == {"encoder", "decoder", "amplitude_head", "phase_head"}


def test_teacher_and_student_share_no_buffer(start):
    params, state = start  # the step donates them
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((params["encoder"], state["teacher"]))]
    assert len(set(pointers)) == len(pointers)


@pytest.mark.parametrize(
    ("recipe", "total", "encoder"),
    [
        ({"model.layers": 2, "model.heads": 4, "model.feedforward": 256}, 9_576_714, 4_255_005),
        ({"model.layers": 21, "model.heads": 4, "model.feedforward": 512}, 70_589_706, 34_761_501),
        ({"model.layers": 50, "model.heads": 8, "model.feedforward": 2048}, 319_552_778, 159_243_037),
    ],
)
def test_parameter_counts_are_the_published_ones(recipe, total, encoder):
    batch = make_batch(pairs=1, channels=2, samples=9000)
    published = make(**recipe, **{"objective.distill_over": "token"})
    params, state = jax.eval_shape(published.init, jax.random.key(0), batch, {})

    def count(tree):
        return sum(leaf.size for leaf in jax.tree.leaves(tree))

    assert (count(params), count(params["encoder"]), count(state["teacher"])) == (total, encoder, encoder)
    assert state["centre"].shape == (1, 18, 512)


def test_no_gradient_reaches_the_teacher(gradients):
    _, by_state = gradients
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(by_state["teacher"]))


def test_every_student_parameter_gets_a_gradient(gradients):
    by_params, _ = gradients
    leaves = jax.tree_util.tree_leaves_with_path(by_params)
    still = [jax.tree_util.keystr(path) for path, leaf in leaves if not np.abs(leaf).max() > 1e-7]
    # one filter at this width: the norm of one group after it takes out its bias
    assert [name for name in still if not name.endswith("['tokenizer']['conv1']['bias']")] == []


def test_teacher_sees_the_better_member_and_the_student_the_worse(moved):
    _, (aux, metrics) = evaluate(*moved)
    changed = {name: array.copy() for name, array in BATCH.items()}
    changed["segment_BMCT"][:, 1] = changed["segment_BMCT"][::-1, 1]
    _, (aux_worse, metrics_worse) = evaluate(*moved, changed)
    np.testing.assert_array_equal(aux_worse.means["centre"], aux.means["centre"])
    assert metrics_worse["teacher_entropy"] == metrics["teacher_entropy"]
    assert metrics_worse["distill"] != metrics["distill"]


def test_aux_and_metrics_are_means_over_the_batch(moved):
    run = partial(evaluate, *moved, train=True, **{"model.dropout": 0.0})
    parts = [{name: array[rows] for name, array in BATCH.items()} for rows in (slice(0, None, 2), slice(1, None, 2))]
    mean = jax.tree.map(lambda a, b: (np.asarray(a) + np.asarray(b)) / 2, *map(run, parts))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-6), run(BATCH), mean)


@pytest.mark.parametrize("teacher_dropout", [False, True])
def test_dropout_is_active_in_the_teacher_only_where_asked(moved, teacher_dropout):
    (first_aux, first), (second_aux, second) = (
        evaluate(
            *moved,
            keys={**KEYS, "dropout": jax.random.key(seed)},
            train=True,
            **{"objective.teacher_dropout": teacher_dropout},
        )[1]
        for seed in (1, 2)
    )
    assert first["amplitude"] != second["amplitude"]
    assert np.array_equal(first_aux.means["centre"], second_aux.means["centre"]) != teacher_dropout


def test_evaluation_ignores_keys(moved):
    other = {name: jax.random.key(99) for name in KEYS}
    first, second = (evaluate(*moved, keys=keys)[0] for keys in (KEYS, other))
    assert first == second


def test_bfloat16_comes_near_and_its_loss_stays_float32(moved):
    exact, _ = evaluate(*moved)
    loss, (aux, metrics) = evaluate(*moved, **{"precision.compute": "bfloat16"})
    assert {leaf.dtype for leaf in jax.tree.leaves((loss, aux, metrics))} == {jnp.dtype("float32")}
    assert loss == pytest.approx(float(exact), rel=0.05)
    assert loss != exact


# ---- what is refused


def test_segments_that_come_alone_are_refused(start):
    with pytest.raises(UserError, match=r"pairs\.rule"):
        jax.eval_shape(partial(small().loss, train=True), *start, make_batch(members=1), KEYS, 0.0)


def test_a_width_whose_decoder_gives_no_token_a_channel_is_refused():
    batch, objective = make_batch(channels=2), small(**{"data.channels": ("ppg", "ecg")})
    params, state = jax.eval_shape(objective.init, jax.random.key(0), batch, {})
    with pytest.raises(UserError, match=r"model\.width = 100: 501 to 1000"):
        jax.eval_shape(partial(objective.loss, train=False), params, state, batch, KEYS, 0.0)


def test_odd_window_is_refused():
    with pytest.raises(UserError, match=r"model\.window"):
        jax.eval_shape(small(**{"model.window": 7}).init, jax.random.key(0), BATCH, {})


def test_both_tokenizers_share_one_layout():
    shapes = [
        jax.eval_shape(QualityFMEncoder(100, 1, 2, 16, 8, 0.1, form).init, jax.random.key(0), jnp.zeros((1, 1, 2000)))
        for form in ("convolution", "frames")
    ]
    assert shapes[0] == shapes[1]


# ---- what a recipe may choose


CHOICES = {
    "segments": {},
    "mlp": {"objective.head": "mlp", "objective.head_width": 24, "objective.head_hidden": 16},
    "prototypes": {"objective.head": "prototypes", "objective.head_width": 24, "objective.head_hidden": 16},
    "layer, predictor": {"objective.normalise": "layer", "objective.predictor_hidden": 8},
    "kept apart": {"objective.koleo_weight": 0.1, "objective.variance_weight": 0.1},
    "horizon": {"objective.ema_horizon_frac": 0.25},
    "breathing": {"objective.breathing_weight": 1.0, "objective.breathing_hz": (0.4, 2.0)},
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "mlp" else pytest.mark.slow) for name in CHOICES]
)
def test_every_choice_trains_all_it_has_and_exports_the_encoder_alone(name):
    objective = small(**{"objective.distill_over": "segment", **CHOICES[name]})
    params, state = jax.eval_shape(objective.init, jax.random.key(0), BATCH, {})
    assert set(params) - {"head", "predictor", "breathing_head"} == {
        "encoder",
        "decoder",
        "amplitude_head",
        "phase_head",
    }
    width = 24 if "head" in params else 100
    assert state["centre"].shape == (1, 1, width)
    assert objective.coupled == (name == "kept apart")
    for module, variables in objective.encoders.values():
        assert jax.tree.structure(variables(params, state)["params"]) == jax.tree.structure(params["encoder"])
        assert module.width == 100

    @jax.jit
    def step(key):
        params, state = objective.init(key, BATCH, {})
        passed = jax.value_and_grad(
            lambda p: objective.loss(p, state, BATCH, KEYS, jnp.float32(0.5), True), has_aux=True
        )
        (_, (aux, terms)), grads = passed(params)
        return grads, terms, objective.update(params, state, aux, key, jnp.float32(0.5))

    grads, terms, (moved, metrics) = step(jax.random.key(0))
    unmoved = [
        jax.tree_util.keystr(path) for path, leaf in jax.tree_util.tree_leaves_with_path(grads) if not leaf.any()
    ]
    assert [path for path in unmoved if "predictor']['hidden" not in path] == []  # its output starts at zero
    assert all(np.isfinite(value) for value in terms.values())
    assert jax.tree.structure(moved) == jax.tree.structure(state)
    if name == "horizon":
        assert float(metrics["ema_momentum"]) == pytest.approx(np.exp(-2))  # from 0 to half the run, of a quarter's


@pytest.mark.slow
def test_the_mean_over_tokens_is_what_segments_are_compared_by(start):
    """Of segments the terms are those of the mean token, which the order of the tokens does not change."""
    params, state = start
    objective = small(**{"objective.distill_over": "segment"})
    module, variables = objective.encoders["student"]
    state = {**state, "centre": np.zeros((1, 1, 100), np.float32)}
    _, (_, terms) = jax.jit(partial(objective.loss, train=False))(params, state, BATCH, KEYS, 0.0)
    x_BMCT = BATCH["segment_BMCT"].astype(np.float32) / 32767
    better_BD, worse_BD = (
        np.asarray(module.apply(variables(params, state), x_BMCT[:, member])).mean(1) for member in (0, 1)
    )
    log_BD = np.asarray(jax.nn.log_softmax(worse_BD / 0.1))
    expected = -(np.asarray(jax.nn.softmax(better_BD / 0.04)) * log_BD).sum(-1).mean()
    np.testing.assert_allclose(terms["distill"], expected, rtol=1e-4)


class Reversed(QualityFMEncoder):
    """Gives its tokens in the other order; of the decoder's, one a channel, there is one."""

    def __call__(self, x_BCT, train=False):
        return super().__call__(x_BCT, train)[:, ::-1]


@pytest.mark.slow
@pytest.mark.parametrize("decode_from", ["segment", "token"])
def test_spectra_decoded_from_the_segment_do_not_depend_on_the_order_of_tokens(start, monkeypatch, decode_from):
    outputs = []
    for encoder in (QualityFMEncoder, Reversed):
        monkeypatch.setitem(ENCODERS, "qualityfm", encoder)
        shown = small(**{"objective.decode_from": decode_from}).show(*start, BATCH)
        outputs.append(np.asarray(shown["amplitude"][1]))
    assert np.allclose(*outputs, atol=1e-6) == (decode_from == "segment")


@pytest.mark.slow
def test_breathing_is_foretold_from_the_mean_token_and_weighed_into_the_loss():
    """The term is smooth L1 between the head's output for the worse segment and the better one's band."""
    changes = {"objective.breathing_weight": 3.0, "objective.breathing_hz": (0.4, 2.0)}
    objective = small(**changes)
    params, state = objective.init(jax.random.key(0), BATCH, {})
    total, (_, terms) = jax.jit(partial(objective.loss, train=False))(params, state, BATCH, KEYS, 0.0)
    without, _ = jax.jit(partial(small().loss, train=False))(params, state, BATCH, KEYS, 0.0)
    x_BMCT = BATCH["segment_BMCT"].astype(np.float32) / 32767
    module, variables = objective.encoders["student"]
    mean_BD = np.asarray(module.apply(variables(params, state), x_BMCT[:, 1])).mean(1)
    head = jax.tree.map(np.asarray, params["breathing_head"])
    hidden_BD = np.tanh(mean_BD @ head["hidden"]["kernel"] + head["hidden"]["bias"])
    estimate_BS = hidden_BD @ head["output"]["kernel"] + head["output"]["bias"]
    target_BS = np.asarray(band_shape(x_BMCT[:, 0], 300.0, (0.4, 2.0)))[:, 0]
    error_BS = np.abs(estimate_BS - target_BS)
    expected = np.where(error_BS < 1, error_BS**2 / 2, error_BS - 0.5).mean()
    np.testing.assert_allclose(terms["breathing"], expected, rtol=1e-4)
    np.testing.assert_allclose(total - without, 3 * expected, rtol=1e-4)
