"""What the trainer promises an objective: the real first batch, frozen networks, keys, samples of every row."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_run import linear_config, linear_objective, make_batches, start

from jaxbio.objectives import Aux
from jaxbio.training.held_out import evaluate
from jaxbio.training.sharding import batch_sharding, dispatch_sharding, make_mesh
from jaxbio.training.state import abstract_state
from jaxbio.training.step import make_train_step, mean_gradients, seeded

CONFIG = linear_config(train__batch=16, train__steps=4)
BATCHES = make_batches(CONFIG, 2)
FIRST = {name: array[0] for name, array in BATCHES.items()}


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("microbatches", [1, 2])
def test_samples_are_the_rows_of_the_batch_whatever_the_microbatches(devices, microbatches):
    mesh = make_mesh(devices, 1, 1, jax.devices()[:devices])

    def loss_of(params, part, microbatch):
        rows = part["row_BM"].astype(jnp.float32)
        return params * rows.mean(), (Aux({"row": rows.mean()}, {"row_BM": rows}), {"row": rows.mean()})

    batch = jax.device_put(FIRST, batch_sharding(mesh))
    gradient = jax.jit(lambda params, batch: mean_gradients(loss_of, params, batch, microbatches, mesh))
    (loss, (aux, metrics)), grad = gradient(jnp.float32(2.0), batch)
    np.testing.assert_array_equal(aux.samples["row_BM"], FIRST["row_BM"])
    np.testing.assert_allclose([aux.means["row"], metrics["row"], grad, loss / 2], FIRST["row_BM"].mean(), rtol=1e-6)


def recording_objective():
    """Return a linear objective that keeps, in its state, what the trainer handed to `init` and `update`."""
    plain = linear_objective()

    def init(key, batch, frozen):
        params, state = plain.init(key, batch, frozen)
        return params, {
            "inner": state,
            "first_row": batch["row_BM"].astype(jnp.float32),
            "drawn": jnp.zeros(()),
            "tokenizer": frozen["tokenizer"],
        }

    def loss(params, state, batch, keys, progress, train):
        value, (aux, metrics) = plain.loss(params, state["inner"], batch, keys, progress, train)
        return value, (Aux(aux.means, {"row_BM": batch["row_BM"].astype(jnp.float32)}), metrics)

    def update(params, state, aux, key, progress):
        inner, metrics = plain.update(params, state["inner"], aux, key, progress)
        drawn = jax.random.uniform(key)
        return {**state, "inner": inner, "drawn": drawn}, {**metrics, "last_row": aux.samples["row_BM"][-1, -1]}

    shapes = {"tokenizer": {"kernel": jax.ShapeDtypeStruct((3,), jnp.float32)}}
    encoders = {
        name: (module, lambda params, state, take=take: take(params, state["inner"]))
        for name, (module, take) in plain.encoders.items()
    }
    return dataclasses.replace(plain, init=init, loss=loss, update=update, encoders=encoders, frozen=shapes)


@pytest.fixture(scope="module")
def walked():
    """The state at the start and after each of two steps, with the metrics."""
    objective = recording_objective()
    frozen = {"tokenizer": {"kernel": np.array([1.0, 2.0, 3.0], np.float32)}}
    mesh, optimizer, placement, state = start(CONFIG, objective, jax.devices()[:1], frozen)
    states, metrics = [jax.device_get(state)], []
    step = seeded(make_train_step(CONFIG, objective, optimizer, mesh, placement.shardings), CONFIG, mesh)
    batches = jax.device_put(BATCHES, dispatch_sharding(mesh))
    for index in range(2):
        state, found = step(state, {name: array[index : index + 1] for name, array in batches.items()})
        states.append(jax.device_get(state))
        metrics.append({name: float(values[0]) for name, values in found.items()})
    return states, metrics


def test_init_sees_the_real_first_batch_and_the_frozen_network(walked):
    states, _ = walked
    np.testing.assert_array_equal(states[0].objective_state["first_row"], FIRST["row_BM"])
    for state in states:
        np.testing.assert_array_equal(state.objective_state["tokenizer"]["kernel"], [1.0, 2.0, 3.0])


def test_update_gets_a_key_of_its_step_and_its_metrics_are_logged(walked):
    states, metrics = walked
    first, second = (float(state.objective_state["drawn"]) for state in states[1:])
    assert first != second
    assert [found["train/last_row"] for found in metrics] == [float(rows[-1, -1]) for rows in BATCHES["row_BM"]]


def test_the_state_is_known_without_the_frozen_weights(walked):
    states, _ = walked
    objective = recording_objective()
    _, optimizer, _, _ = start(CONFIG, objective, jax.devices()[:1], {"tokenizer": {"kernel": np.zeros(3, np.float32)}})
    abstract = abstract_state(objective, optimizer, FIRST)
    assert jax.tree.map(jnp.shape, abstract) == jax.tree.map(jnp.shape, states[0])


def test_what_is_no_mean_over_batches_is_measured_once_over_all_rows():
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, 8, 16) for _ in range(3)]
    found = iter(codes)

    def eval_step(state, batch):
        return {"loss": 1.0}, {"encoder": rng.normal(size=(16, 4))}, {"code_B": next(found)}

    def measure(gathered):
        return {"codes": len(np.unique(gathered["code_B"])), "rows": len(gathered["code_B"])}

    program = SimpleNamespace(
        eval_step=eval_step, objective=SimpleNamespace(measure=measure, conclude=None, judged={}, targets_given=False)
    )
    values = evaluate(program, None, [{}] * 3)
    assert values["eval/rows"] == 48
    assert values["eval/codes"] == len(np.unique(np.concatenate(codes)))
