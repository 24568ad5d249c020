"""The siamese objectives against NumPy references: NT-Xent, BYOL's target, running statistics by view."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbio.config import fields
from jaxbio.models.batch_norm import BatchNorm, move
from jaxbio.models.projection import Predictor, projected_resnet1d
from jaxbio.models.resnet1d import DEPTHS
from jaxbio.objectives import Aux, make_objective
from jaxbio.objectives.contrastive import nt_xent
from jaxbio.objectives.siamese import cosine_similarity, mean_directions, normalise

PARAMETERS = {  # the published networks: encoder alone; with projector and predictor
    18: (2_167_632, 2_826_064),
    34: (4_067_088, 4_725_520),
    50: (8_987_856, 14_369_488),
    101: (15_920_592, 21_302_224),
    152: (21_632_208, 27_013_840),
}
BATCH = 4
PROGRESS = jnp.float32(0.25)


def small(objective: str, **changes):
    """Return an objective on a network of one basic block a stage."""
    config = fields.defaults("resnet1d", objective)
    own = {"model.depth": 18, "model.blocks": (1, 1, 1, 1), "data.scaling": "unit", "data.channels": ("ppg",)}
    fields.change(config, own | changes)
    return make_objective(config)


def batch(members: int = 2) -> dict:
    rng = np.random.default_rng(0)
    return {
        "segment_BMCT": rng.integers(-32767, 32768, (BATCH, members, 1, 400), dtype=np.int16),
        "scale_BMC2": np.ones((BATCH, members, 1, 2), np.float32),
        "row_BM": np.arange(BATCH * members, dtype=np.uint32).reshape(BATCH, members),
    }


def start(objective, arrays):
    return jax.jit(objective.init)(jax.random.key(0), arrays, {})


def keys() -> dict:
    return {"augment": jax.random.key(1), "dropout": jax.random.key(2)}


@pytest.fixture(scope="module", params=["quality_siamese", "byol", "contrastive"])
def stepped(request):
    """Return objective, params, state, and loss, aux and gradients of one training pass."""
    objective = small(request.param)
    params, state = start(objective, batch())
    passed = jax.jit(
        jax.value_and_grad(lambda p, s: objective.loss(p, s, batch(), keys(), PROGRESS, True), (0, 1), has_aux=True)
    )
    (loss, (aux, metrics)), (grads, state_grads) = passed(params, state)
    return request.param, objective, params, state, loss, aux, metrics, grads, state_grads


def size(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def stem_mean(stats) -> np.ndarray:
    return np.asarray(stats["encoder"]["bn1"]["mean"])


@pytest.mark.parametrize("depth", DEPTHS)
def test_parameter_counts_are_the_published_ones(depth):
    key = jax.random.key(0)

    def init():
        network = projected_resnet1d(depth).init(key, jnp.zeros((1, 1, 1200)))["params"]
        return network, Predictor().init(key, jnp.zeros((1, 256)), False)["params"]

    network, predictor = jax.eval_shape(init)
    assert (size(network["encoder"]), size(network) + size(predictor)) == PARAMETERS[depth]


def test_nt_xent_equals_its_numpy_reference():
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=(2, 5, 7))
    z = np.concatenate([first, second])
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    similarity = np.exp(z @ z.T / 0.5)
    losses = [-np.log(similarity[i, (i + 5) % 10] / (similarity[i].sum() - similarity[i, i])) for i in range(10)]
    np.testing.assert_allclose(nt_xent(jnp.asarray(first), jnp.asarray(second), 0.5), np.mean(losses), rtol=1e-5)


def test_update_keeps_the_structure_of_the_state(stepped):
    _, objective, params, state, _, aux, *_ = stepped
    after, _ = objective.update(params, state, aux, jax.random.key(3), PROGRESS)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)


def test_each_view_moves_the_running_statistics_the_better_first(stepped):
    name, objective, params, state, _, aux, *_ = stepped
    views = aux.means["online"] if name == "byol" else aux.means
    first = 0.9 * stem_mean(state["batch_stats"]) + 0.1 * stem_mean(views["first"])
    expected = 0.9 * first + 0.1 * stem_mean(views["second"])
    moved = objective.update(params, state, aux, jax.random.key(3), PROGRESS)[0]["batch_stats"]
    np.testing.assert_allclose(stem_mean(moved), expected, rtol=1e-6)


def test_no_gradient_reaches_the_state(stepped):
    name, *_, state_grads = stepped
    if name == "byol":
        assert all(not np.any(leaf) for leaf in jax.tree.leaves(state_grads["target"]))
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(state_grads["batch_stats"]))


def test_byol_target_is_the_moving_average_of_the_online_network():
    objective = small("byol", **{"objective.ema_start": 0.7, "objective.ema_end": 1.0})
    params, state = start(objective, batch())
    moved = jax.tree.map(lambda leaf: leaf + 1.0, params)
    zero = jax.tree.map(jnp.zeros_like, {"first": state["batch_stats"], "second": state["batch_stats"]})
    target_zero = jax.tree.map(jnp.zeros_like, {"first": state["target_stats"], "second": state["target_stats"]})
    aux = Aux({"online": zero, "target": target_zero})
    after, _ = objective.update(moved, state, aux, jax.random.key(3), PROGRESS)
    momentum = 1 - 0.3 * (np.cos(np.pi * 0.25) + 1) / 2
    for part in ("encoder", "projector"):
        for new, old, online in zip(
            *(jax.tree.leaves(tree[part]) for tree in (after["target"], state["target"], moved))
        ):
            np.testing.assert_allclose(new, momentum * old + (1 - momentum) * online, rtol=1e-5, atol=1e-6)


def test_all_siamese_objectives_couple_their_batch(stepped):
    assert stepped[1].coupled


def test_encoders_give_one_token_a_segment(stepped):
    _, objective, params, state, *_ = stepped
    widths = {"encoder": 384, "projector": 256, "target": 384}
    x_BCT = jnp.zeros((3, 1, 400))
    for name, (module, variables) in objective.encoders.items():
        assert jax.eval_shape(module.apply, variables(params, state), x_BCT).shape == (3, 1, widths[name])


def test_single_segments_give_two_views_by_augmentation_alone():
    noisy = small("contrastive", **{"augment.noise_prob": 1.0, "augment.noise_sigma": 0.1})
    still = small("contrastive", **{f"augment.{name}_prob": 0.0 for name in ("noise", "scale", "offset", "block")})
    params, state = start(noisy, batch(members=1))
    apart, alike = (
        jax.jit(lambda p, s, objective=objective: objective.loss(p, s, batch(members=1), keys(), PROGRESS, True)[0])(
            params, state
        )
        for objective in (noisy, still)
    )
    assert float(alike) < float(apart)


def test_batch_norm_normalises_by_the_population_and_reports_the_sample_variance():
    x = jnp.asarray(np.random.default_rng(5).normal(2, 3, (6, 4)), jnp.float32)
    variables = BatchNorm().init(jax.random.key(0), x, True)
    y, reported = BatchNorm().apply(variables, x, True, mutable=["moments"])
    np.testing.assert_allclose(np.var(y, axis=0), 1.0, rtol=1e-4)
    np.testing.assert_allclose(reported["moments"]["var"], np.var(x, axis=0, ddof=1), rtol=1e-5)
    np.testing.assert_allclose(
        move(variables["batch_stats"], reported["moments"])["mean"], 0.1 * np.mean(x, axis=0), rtol=1e-5
    )


@pytest.mark.parametrize("name", ["quality_siamese", "byol"])
def test_no_direction_does_better_than_the_constant_that_a_loss_is_judged_by(name):
    """The loss of the best of many constant predictions comes near the constant, from above, and none goes below."""
    rng = np.random.default_rng(0)
    first_BD, second_BD = rng.normal(size=(2, 64, 8)).astype(np.float32) + np.float32(0.5)

    def loss_of(direction_D):
        cosines = [cosine_similarity(jnp.broadcast_to(direction_D, z_BD.shape), z_BD) for z_BD in (first_BD, second_BD)]
        return 2 - sum(cosines) if name == "byol" else -sum(cosines) / 2

    constant = small(name).conclude(mean_directions({"first": first_BD, "second": second_BD}))["loss_constant"]
    directions = [*rng.normal(size=(50, 8)).astype(np.float32), (normalise(first_BD) + normalise(second_BD)).mean(0)]
    losses = [float(loss_of(jnp.asarray(direction_D)[None])) for direction_D in directions]
    assert constant - 1e-6 <= min(losses) < constant + 0.05
    assert small(name).judged == {"loss": ("loss_constant", "loss_floor")}
