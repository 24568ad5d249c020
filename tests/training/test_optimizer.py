"""The optimiser against NumPy references of the published update rules; schedules, clipping, groups and masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbio.config import fields
from jaxbio.config.faults import UserError
from jaxbio.training.optimizer import make_optimizer, put_back
from jaxbio.training.state import leaf_paths
from jaxbio.training.update_rule import decay_mask

STEPS = 10
SHAPES = {"encoder": {"kernel": (4, 3), "bias": (3,)}, "blocks": {"kernel": (2, 3, 3), "bias": (2, 3), "scale": (2, 3)}}


def tree(seed: int, size: float = 1.0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: jnp.asarray(size * rng.normal(size=shape), jnp.float32),
        SHAPES,
        is_leaf=lambda node: isinstance(node, tuple),
    )


def settings(**changes):
    config = fields.defaults()
    plain = {"warmup_frac": 0.0, "clip_norm": None, "learning_rate": 0.1, "learning_rate_end": 0.01, **changes}
    return fields.change(config, {f"optimizer.{name}": value for name, value in plain.items()}).optimizer


def update(optimizer, params, grads, step, opt_state=None, accept=True, measured=True):
    opt_state = optimizer.init(params) if opt_state is None else opt_state
    grads = optimizer.moving(grads)
    return optimizer.update(grads, opt_state, params, jnp.int32(step), jnp.array(accept), measured)


def descend(chosen, steps=STEPS, size=1.0):
    """Return the parameters after `steps` updates with seeded gradients."""
    optimizer, params = make_optimizer(chosen, STEPS), tree(0)
    opt_state = optimizer.init(params)
    for step in range(steps):
        params, opt_state, _ = update(optimizer, params, tree(step + 1, size), step, opt_state)
    return params


def half_cosine(start, end, step):
    return end + 0.5 * (start - end) * (1 + np.cos(np.pi * step / STEPS))


def reference(name, decayed, key):
    """The rules of torch.optim.Adam, AdamW and SGD for one leaf, in float64, with the schedules of the defaults."""
    param = np.asarray(tree(0)[key[0]][key[1]], np.float64)
    first = second = np.zeros_like(param)
    for step in range(STEPS):
        grad = np.asarray(tree(step + 1)[key[0]][key[1]], np.float64)
        rate = half_cosine(0.1, 0.01, step)
        decay = half_cosine(0.04, 0.4, step) * decayed
        if name != "adamw":
            grad = grad + decay * param
        if name == "sgd":
            first = 0.9 * first + grad
            param = param - rate * (grad + 0.9 * first)
            continue
        first, second = 0.9 * first + 0.1 * grad, 0.999 * second + 0.001 * grad**2
        if name == "adamw":
            param = param * (1 - rate * decay)
        unbiased = np.sqrt(second / (1 - 0.999 ** (step + 1))) + 1e-8
        param = param - rate * first / (1 - 0.9 ** (step + 1)) / unbiased
    return param


@pytest.mark.parametrize("name", ["adamw", "adam_l2", "sgd"])
def test_update_rule_equals_its_numpy_reference(name):
    params = descend(settings(name=name))
    for key in (("encoder", "kernel"), ("encoder", "bias"), ("blocks", "kernel"), ("blocks", "scale")):
        wanted = reference(name, key[1] == "kernel", key)
        np.testing.assert_allclose(params[key[0]][key[1]], wanted, rtol=2e-5, atol=2e-6)


def test_matrices_decay_by_name_even_where_biases_are_stacked():
    params = tree(0)
    mask = decay_mask(params, "matrices")
    assert mask["encoder"] == {"kernel": True, "bias": False}
    assert mask["blocks"] == {"kernel": True, "bias": False, "scale": False}
    assert all(jax.tree.leaves(decay_mask(params, "all")))


def test_schedules_run_from_their_first_value_to_their_last():
    schedules = make_optimizer(settings(warmup_frac=0.3), STEPS).schedules
    rates = [float(schedules["learning_rate"](step)) for step in range(STEPS + 1)]
    decays = [float(schedules["weight_decay"](step)) for step in range(STEPS + 1)]
    np.testing.assert_allclose(rates[:4], [0.1 / 3, 0.2 / 3, 0.1, 0.1], rtol=1e-6)
    np.testing.assert_allclose(rates[-1], 0.01, rtol=1e-6)
    np.testing.assert_allclose([decays[0], decays[5], decays[-1]], [0.04, 0.22, 0.4], rtol=1e-6)
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_step_schedule_halves_the_learning_rate_after_the_warm_up():
    schedules = make_optimizer(settings(schedule="step", step_every=3, warmup_frac=0.2), STEPS).schedules
    rates = [float(schedules["learning_rate"](jnp.int32(step))) for step in range(STEPS)]
    np.testing.assert_allclose(rates, 0.1 * np.array([0.5, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]), rtol=1e-6)


def test_schedules_go_by_the_step_of_the_run():
    optimizer, params = make_optimizer(settings(name="sgd", momentum=0.0, decay_mask="matrices"), STEPS), tree(0)
    moved, _, _ = update(optimizer, params, tree(1), STEPS)
    np.testing.assert_allclose(
        moved["encoder"]["bias"], params["encoder"]["bias"] - 0.01 * tree(1)["encoder"]["bias"], rtol=1e-5
    )


def first_update(**changes):
    """Return the change of plain descent with rate 1 from a gradient of deviation 10."""
    plain = {"name": "sgd", "momentum": 0.0, "learning_rate": 1.0, "weight_decay": 0.0, "weight_decay_end": 0.0}
    optimizer = make_optimizer(settings(**plain, **changes), STEPS)
    origin = jax.tree.map(jnp.zeros_like, tree(0))
    return update(optimizer, origin, tree(1, 10.0), 0)[0]


def norm(*leaves):
    return np.sqrt(sum(float(jnp.square(leaf).sum()) for leaf in leaves))


def test_global_norm_is_clipped_and_keeps_its_direction():
    updates = first_update(clip_norm=2.0)
    assert norm(*jax.tree.leaves(updates)) == pytest.approx(2.0, rel=1e-5)
    ratio = np.asarray(updates["encoder"]["kernel"] / tree(1, 10.0)["encoder"]["kernel"])
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-5)


def test_small_gradients_are_not_clipped():
    np.testing.assert_array_equal(first_update(clip_norm=1e6)["encoder"]["bias"], -tree(1, 10.0)["encoder"]["bias"])


def test_entries_are_clipped_by_value():
    wanted = -jnp.clip(tree(1, 10.0)["blocks"]["kernel"], -0.5, 0.5)
    np.testing.assert_array_equal(first_update(clip_value=0.5)["blocks"]["kernel"], wanted)


def test_every_group_is_clipped_by_its_own_norm_and_the_plain_one_by_what_is_left():
    updates = first_update(clip_norm=2.0, groups=(("^blocks/kernel", {"clip_norm": 0.1}), ("^blocks/", {})))
    assert norm(updates["blocks"]["kernel"]) == pytest.approx(0.1, rel=1e-5)
    assert norm(updates["blocks"]["bias"], updates["blocks"]["scale"]) == pytest.approx(2.0, rel=1e-5)
    assert norm(*updates["encoder"].values()) == pytest.approx(2.0, rel=1e-5)


GROUPS = (
    ("blocks/kernel", {"name": "sgd", "learning_rate": 0.3, "weight_decay": 0.0, "weight_decay_end": 0.0}),
    ("blocks", {"schedule": "step", "step_every": 3, "warmup_frac": 0.2, "decay_mask": "all", "clip_value": 0.5}),
)


def test_a_group_is_the_whole_optimiser_that_its_settings_make():
    grouped = descend(settings(groups=GROUPS))
    alone = [descend(settings(**changes)) for _, changes in GROUPS]
    np.testing.assert_array_equal(grouped["blocks"]["kernel"], alone[0]["blocks"]["kernel"])
    for leaf in ("bias", "scale"):
        np.testing.assert_array_equal(grouped["blocks"][leaf], alone[1]["blocks"][leaf])
    for leaf, value in descend(settings())["encoder"].items():
        np.testing.assert_array_equal(grouped["encoder"][leaf], value)


def test_a_group_keeps_its_own_moments_under_its_name_and_reports_its_own_schedules():
    optimizer = make_optimizer(settings(groups=GROUPS), STEPS)
    held = {path.partition("/")[0] for path in leaf_paths(optimizer.init(tree(0)))}
    assert held == {"plain", "group_0", "group_1"}
    moments = leaf_paths(optimizer.init(tree(0))["group_0"])
    assert {path: leaf.shape for path, leaf in moments.items()} == {"trace/blocks/kernel": (2, 3, 3)}
    rates = {name: float(schedule(jnp.int32(0))) for name, schedule in optimizer.schedules.items()}
    wanted = {"learning_rate": 0.1, "learning_rate_group_0": 0.3, "learning_rate_group_1": 0.05}
    wanted |= {"weight_decay": 0.04, "weight_decay_group_0": 0.0, "weight_decay_group_1": 0.04}
    assert rates == pytest.approx(wanted)


def test_without_groups_the_state_is_the_rules_own():
    state = make_optimizer(settings(), STEPS).init(tree(0))
    paths = leaf_paths(tree(0))
    assert set(leaf_paths(state)) == {"count", *(f"{moment}/{path}" for moment in ("mu", "nu") for path in paths)}


def test_frozen_parameters_stay_and_hold_no_moments():
    groups = (("^encoder/", {"frozen": True}),)
    params = descend(settings(groups=groups))
    for leaf, value in tree(0)["encoder"].items():
        np.testing.assert_array_equal(params["encoder"][leaf], value)
    moments = jax.tree.leaves(make_optimizer(settings(groups=groups), STEPS).init(tree(0)))
    assert sum(leaf.size for leaf in moments) == 1 + 2 * sum(leaf.size for leaf in jax.tree.leaves(tree(0)["blocks"]))


@pytest.mark.parametrize(
    ("rules", "unused"),
    [((("decoder", {"frozen": True}),), "decoder"), ((("kernel", {}), ("encoder/kernel", {})), "encoder/kernel")],
)
def test_a_group_rule_that_decides_nothing_is_named(rules, unused):
    with pytest.raises(UserError) as caught:
        make_optimizer(settings(groups=rules), STEPS).init(tree(0))
    assert [fault.value for fault in caught.value.faults] == [unused]


def test_two_groups_of_equal_settings_are_clipped_apart():
    updates = first_update(groups=(("^blocks/", {"clip_norm": 0.1}), ("^encoder/", {"clip_norm": 0.1})))
    assert norm(*updates["blocks"].values()) == pytest.approx(0.1, rel=1e-5)
    assert norm(*updates["encoder"].values()) == pytest.approx(0.1, rel=1e-5)


def test_what_moves_is_what_is_not_frozen_and_goes_back_in_its_place():
    optimizer = make_optimizer(settings(groups=(("bias", {"frozen": True}),)), STEPS)
    moving = optimizer.moving(tree(0))
    assert set(leaf_paths(moving)) == {"encoder/kernel", "blocks/kernel", "blocks/scale"}
    whole = leaf_paths(put_back(jax.tree.map(lambda leaf: leaf + 1, moving), tree(0)))
    for path, leaf in leaf_paths(tree(0)).items():
        np.testing.assert_array_equal(whole[path], leaf + (0 if path.endswith("bias") else 1))


def test_freezing_everything_is_refused():
    groups = (("^encoder/", {"frozen": True}), ("", {"frozen": True}))
    with pytest.raises(UserError, match="every parameter is frozen"):
        make_optimizer(settings(groups=groups), STEPS).init(tree(0))


@pytest.mark.parametrize("chosen", [{"name": "adamw"}, {"name": "adam_l2"}, {"name": "sgd"}, {"groups": GROUPS}])
def test_an_update_that_is_not_accepted_changes_nothing(chosen):
    optimizer, params = make_optimizer(settings(**chosen), STEPS), tree(0)
    params, opt_state, _ = update(optimizer, params, tree(1), 0)
    bad = jax.tree.map(lambda leaf: leaf.at[0].set(jnp.nan), tree(2))
    kept, kept_state, _ = update(optimizer, params, bad, 1, opt_state, accept=False)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, (kept, kept_state), (params, opt_state)))


def test_the_norm_of_the_update_is_measured_when_asked():
    optimizer, params = make_optimizer(settings(), STEPS), tree(0)
    moved, _, size = update(optimizer, params, tree(1), 0)
    assert float(size) == pytest.approx(norm(*jax.tree.leaves(jax.tree.map(jnp.subtract, moved, params))), rel=1e-4)
    unmeasured, _, size = update(optimizer, params, tree(1), 0, measured=False)
    assert size is None
    assert jax.tree.all(jax.tree.map(jnp.array_equal, unmeasured, moved))
