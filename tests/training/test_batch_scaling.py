"""A larger batch with scaled learning rate and momenta goes where the smaller one goes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_run import linear_config, linear_objective, make_batches, run

from jaxbio.config import fields
from jaxbio.config.batch_scaling import at_batch, kappa_of
from jaxbio.config.command_line import load_recipe
from jaxbio.config.resolve import resolve

STEPS = 40


def objective_of(config):
    """The linear objective with the teacher's and the centre's momentum that are in effect."""
    momenta = at_batch(config).objective

    def update(params, state, aux, key, progress):
        def move(momentum, old, new):
            return jax.tree.map(lambda kept, other: momentum * kept + (1 - momentum) * other, old, new)

        teacher = move(momenta.ema_start, state["teacher"]["encoder"], params["encoder"])
        return {
            "teacher": {"encoder": teacher},
            "centre": move(momenta.centre_momentum, state["centre"], aux.means["centre"]),
        }, {}

    return dataclasses.replace(linear_objective(), update=update)


def state_after(pairs_in_all, **changes):
    """The state after so many pairs, in batches of train.batch, always the same pairs in the same order."""
    config = linear_config(
        **{
            "optimizer__name": "sgd",
            "optimizer__batch_rule": "linear",
            "optimizer__momentum": 0.0,
            "optimizer__nesterov": False,
            "optimizer__weight_decay": 0.0,
            "optimizer__weight_decay_end": 0.0,
            "optimizer__clip_norm": None,
            "optimizer__learning_rate": 0.02,
            "objective__ema_start": 0.98,
            "objective__centre_momentum": 0.95,
            **changes,
        }
    )
    batch = config.train.batch
    config.train.steps = pairs_in_all // batch
    rows = make_batches(linear_config(train__batch=4), pairs_in_all // 4)
    batches = {name: array.reshape(-1, batch, *array.shape[2:]) for name, array in rows.items()}
    state, _ = run(at_batch(config), objective_of(config), config.train.steps, jax.devices()[:1], batches)
    return state.params, state.objective_state


def distance(first, second):
    return float(
        jnp.sqrt(sum(jnp.sum((a - b) ** 2) for a, b in zip(*map(jax.tree.leaves, (first, second)), strict=True)))
    )


@pytest.mark.slow
def test_batch_eight_at_kappa_two_follows_batch_four():
    """Parameters, teacher and centre: much nearer than without scaling, and than the run has gone."""
    start = state_after(4, train__batch=4, optimizer__learning_rate=0.0)
    small = state_after(4 * STEPS, train__batch=4)
    scaled = state_after(4 * STEPS, train__batch=8, train__reference_batch=4)
    plain = state_after(4 * STEPS, train__batch=8)
    for part in (0, 1):
        assert distance(scaled[part], small[part]) < 0.25 * distance(plain[part], small[part])
        assert distance(scaled[part], small[part]) < 0.25 * distance(start[part], small[part])


def test_rates_and_momenta_in_effect():
    groups = (("head", {"learning_rate": 1e-3, "clip_norm": 2.0}), ("encoder", {"frozen": True}))
    config = linear_config(train__batch=64, train__reference_batch=16, optimizer__groups=groups)
    assert kappa_of(config) == 4
    found = at_batch(config)
    assert found.optimizer.learning_rate == pytest.approx(2 * config.optimizer.learning_rate)
    assert found.optimizer.learning_rate_end == pytest.approx(2 * config.optimizer.learning_rate_end)
    assert [dict(group) for _, group in found.optimizer.groups] == [
        {"learning_rate": 2e-3, "clip_norm": 2.0},
        {"frozen": True},
    ]
    for name in ("ema_start", "centre_momentum"):
        assert found.objective[name] == pytest.approx(config.objective[name] ** 4)
    assert found.objective.ema_horizon_frac == config.objective.ema_horizon_frac
    linear = at_batch(fields.change(config, {"optimizer.batch_rule": "linear"}))
    assert linear.optimizer.learning_rate == pytest.approx(4 * config.optimizer.learning_rate)
    assert at_batch(found) is found
    unscaled = linear_config(train__batch=64)
    assert at_batch(unscaled) is unscaled


@pytest.mark.parametrize("size", ["base", "medium", "large"])
def test_the_preset_of_a_pod_is_an_epoch_at_8192(size):
    config = resolve(load_recipe(f"configs/qualityfm_{size}.py:v5e_256"))
    assert config.train.batch == 8192
    assert kappa_of(config) == 16
    assert at_batch(config).optimizer.learning_rate == pytest.approx(4 * config.optimizer.learning_rate)
    assert np.isclose(config.train.batch * config.train.steps, 42_000 * 512, rtol=2e-3)
