"""The compiled step: the same on every mesh, in microbatches and in dispatches; refusals; evaluation."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_run import linear_config, linear_objective, make_batches, run, start, walk, walk_with

from jaxbio.config import families, fields
from jaxbio.config.faults import UserError
from jaxbio.config.machines import MACHINES
from jaxbio.objectives import make_objective
from jaxbio.training.program import lay_out, lower_train_step
from jaxbio.training.sharding import batch_sharding, make_mesh
from jaxbio.training.state import leaf_paths
from jaxbio.training.step import make_eval_step, make_train_step, mean_gradients, seeded

FSDP = {"mesh__data": 1, "mesh__fsdp": 8, "mesh__rules": ((".*", "fsdp"),)}
BOTH = {"mesh__data": 2, "mesh__fsdp": 4, "mesh__rules": ((".*", "fsdp"),)}
TENSOR = {
    "mesh__data": 2,
    "mesh__tensor": 4,
    "mesh__rules": (("first/kernel", (None, "tensor")), ("second/kernel", ("tensor",)), (".*", "replicate")),
}
MIXED = {
    "mesh__data": 2,
    "mesh__fsdp": 2,
    "mesh__tensor": 2,
    "mesh__rules": (("kernel", ("fsdp", "tensor")), (".*", "fsdp")),
}
# Plain descent: float32 Adam turns last bits of a gradient into steps of full size.
SGD = {
    "optimizer__name": "sgd",
    "optimizer__learning_rate": 1e-2,
    "optimizer__weight_decay": 0.0,
    "optimizer__weight_decay_end": 0.0,
    "optimizer__clip_norm": None,
}
PERMUTED = [3, 0, 6, 1, 7, 4, 2, 5]


def losses(metrics):
    return np.asarray(metrics["train/loss"])


def assert_trees_close(found, wanted, of_largest, floor=1e-4):
    """Compare leaf by leaf, by the leaf's largest entry, or `floor` of the tree's where that is larger."""
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(wanted))
    for path, leaf in leaf_paths(wanted).items():
        limit = of_largest * max(np.abs(leaf).max(), floor * largest)
        np.testing.assert_allclose(leaf_paths(found)[path], leaf, rtol=0, atol=limit, err_msg=path)


def first_gradients(states):
    """Return what SGD's momentum holds after one step: that step's gradients, to the bit."""
    return states[0].opt_state.trace


def assert_walks_close(found, wanted, floor=1e-4):
    """Compare two lists of (state, metrics): every loss, the first gradients, the last state, all to 1e-5."""
    (states, metrics), (wanted_states, wanted_metrics) = zip(*found), zip(*wanted)
    for name in wanted_metrics[0]:
        values, wanted_values = ([step[name] for step in steps] for steps in (metrics, wanted_metrics))
        np.testing.assert_allclose(values, wanted_values, rtol=1e-5, atol=1e-7, err_msg=name)
    assert_trees_close(first_gradients(states), first_gradients(wanted_states), 1e-5, floor)
    assert_trees_close(states[-1].params, wanted_states[-1].params, 1e-5, floor)
    assert_trees_close(states[-1].objective_state, wanted_states[-1].objective_state, 1e-5, floor)


def one_device():
    return jax.devices()[:1]


@pytest.fixture(scope="module")
def objective():
    return linear_objective()


@pytest.fixture(scope="module")
def compiled(objective):
    """The step of descent on one device, and fresh states for it."""
    config = linear_config(**SGD)
    mesh, optimizer, placement, state = start(config, objective, one_device())
    kept = jax.tree.map(np.array, state)
    step = seeded(make_train_step(config, objective, optimizer, mesh, placement.shardings), config, mesh)
    return SimpleNamespace(step=step, fresh=lambda: jax.device_put(kept, placement.shardings))


@pytest.fixture(scope="module")
def descent(compiled):
    """Five steps of descent on one device."""
    return list(walk_with(compiled.step, compiled.fresh(), make_batches(linear_config(), 5)))


GOLDEN = {
    "train/loss": [0.1370519, 0.1465539, 0.1385470],
    "train/distance": [0.1301569, 0.1395241, 0.1314965],
    "train/grad_norm": [0.0925048, 0.1041995, 0.0975248],
    "train/param_norm": [5.8740225, 5.8731050, 5.8717504],
    "train/update_norm": [0.0017576, 0.0026697, 0.0032263],
    "train/learning_rate": [0.01, 0.0099384, 0.0097553],
}


def test_first_steps_have_their_golden_metrics(descent):
    found = {name: [metrics[name] for _, metrics in descent[:3]] for name in GOLDEN}
    for name, values in GOLDEN.items():
        message = f"if the step was meant to change, put this into GOLDEN: {found}"
        np.testing.assert_allclose(found[name], values, rtol=2e-4, err_msg=message)


@pytest.mark.parametrize(
    ("layout", "order"),
    [({}, range(8)), ({}, PERMUTED), (FSDP, range(8)), (BOTH, PERMUTED), (TENSOR, range(8)), (MIXED, PERMUTED)],
    ids=["data", "data_permuted", "fsdp", "data_fsdp_permuted", "data_tensor", "all_permuted"],
)
def test_every_layout_computes_what_one_device_does(objective, descent, layout, order):
    devices = [jax.devices()[index] for index in order]
    assert_walks_close(list(walk(linear_config(**SGD, **layout), objective, 5, devices)), descent)


def test_adam_on_split_moments_gives_the_losses_of_one_device(objective):
    wanted = losses(run(linear_config(), objective, 5, one_device())[1])
    np.testing.assert_allclose(losses(run(linear_config(mesh__moments="zero"), objective, 5)[1]), wanted, rtol=1e-5)


def test_four_microbatches_equal_one_batch_centre_included(objective, descent):
    assert_walks_close(list(walk(linear_config(**SGD, train__microbatches=4), objective, 5)), descent)


def gradient_flops(config, objective, microbatches):
    """Return the compiler's FLOPs a device of loss and gradient, every microbatch unrolled, and the program."""
    mesh, _, _, state = start(config, objective)
    batch = jax.device_put({k: v[0] for k, v in make_batches(config, 1).items()}, batch_sharding(mesh))
    keys = {"augment": jax.random.key(0), "dropout": jax.random.key(1)}

    def loss_of(params, part, microbatch):
        return objective.loss(params, state.objective_state, part, keys, 0.0, True)

    gradient = jax.jit(lambda p, b: mean_gradients(loss_of, p, b, microbatches, mesh, unroll=True))
    compiled = gradient.lower(state.params, batch).compile()
    return compiled.cost_analysis()["flops"], compiled.as_text()


def test_accumulation_costs_no_more_flops_and_gathers_no_batch():
    objective = linear_objective(width=64)
    config = linear_config(train__batch=512)
    (one, _), (four, text) = (gradient_flops(config, objective, parts) for parts in (1, 4))
    assert four == pytest.approx(one, rel=0.05)
    assert "all-gather" not in text


def test_coupled_objective_refuses_microbatches():
    objective = linear_objective(coupled=True)
    config = linear_config(train__microbatches=2)
    with pytest.raises(UserError, match="couples the rows"):
        run(config, objective, 1)


def test_batch_that_does_not_divide_the_mesh_is_refused(objective):
    config = linear_config(train__batch=36)
    _, optimizer, placement, _ = start(config, objective, one_device())
    with pytest.raises(UserError, match="32 or 40"):
        make_train_step(config, objective, optimizer, make_mesh(8, 1, 1), placement.shardings)


def test_one_dispatch_of_five_steps_equals_five_dispatches(objective, descent):
    state, metrics = run(linear_config(**SGD), objective, 5, one_device())
    assert int(state.step) == 5
    for name, values in metrics.items():
        np.testing.assert_allclose(values, [step[name] for _, step in descent], rtol=1e-5, atol=1e-7, err_msg=name)
    assert_trees_close(state.params, descent[-1][0].params, 1e-5)


def test_a_step_donates_its_state_and_returns_float32_metrics(compiled):
    state = compiled.fresh()
    _, metrics = compiled.step(state, make_batches(linear_config(), 1))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    terms = {"loss", "distance", "size", "grad_norm", "param_norm", "update_norm", "learning_rate", "weight_decay"}
    assert set(metrics) == {f"train/{name}" for name in terms} | {"nonfinite"}
    assert all(values.shape == (1,) and values.dtype == jnp.float32 for values in metrics.values())


def test_norms_are_those_of_the_leaves(descent):
    (before, _), (after, metrics) = descent[:2]

    def norm(tree):
        return np.sqrt(sum(np.square(np.asarray(leaf, np.float64)).sum() for leaf in jax.tree.leaves(tree)))

    assert metrics["train/param_norm"] == pytest.approx(norm(before.params), rel=1e-5)
    assert descent[0][1]["train/grad_norm"] == pytest.approx(norm(first_gradients([before])), rel=1e-5)
    moved = jax.tree.map(np.subtract, after.params, before.params)
    assert metrics["train/update_norm"] == pytest.approx(norm(moved), rel=1e-3)


@pytest.fixture(scope="module")
def unlogged(objective):
    """The step of descent on one device without the norms that only a log line has."""
    config = linear_config(**SGD)
    mesh, optimizer, placement, _ = start(config, objective, one_device())
    return seeded(make_train_step(config, objective, optimizer, mesh, placement.shardings, logged=False), config, mesh)


def test_an_unlogged_step_is_the_logged_one_without_two_norms(compiled, unlogged, descent):
    found = list(walk_with(unlogged, compiled.fresh(), make_batches(linear_config(), 5)))
    left_out = {"train/param_norm", "train/update_norm"}
    assert set(found[0][1]) == set(descent[0][1]) - left_out
    kept = [(state, {name: metrics[name] for name in found[0][1]}) for state, metrics in descent]
    assert_walks_close(found, kept)


def test_no_step_asks_which_branch_to_take(objective):
    config = linear_config(**SGD)
    layout = lay_out(config, objective, one_device())
    for logged in (True, False):
        assert "conditional" not in lower_train_step(config, objective, layout, logged=logged).compile().as_text()


def test_same_seed_repeats_to_the_bit_and_another_differs(objective, compiled, descent):
    wanted = [metrics["train/loss"] for _, metrics in descent]
    batches = make_batches(linear_config(), 5)
    assert [metrics["train/loss"] for _, metrics in walk_with(compiled.step, compiled.fresh(), batches)] == wanted
    other = walk(linear_config(**SGD, train__seed=1), objective, 1, one_device())
    assert next(other)[1]["train/loss"] != wanted[0]


def test_the_order_of_rows_in_a_batch_changes_nothing(compiled, descent):
    turned = {name: array[:, ::-1] for name, array in make_batches(linear_config(), 5).items()}
    assert_walks_close(list(walk_with(compiled.step, compiled.fresh(), turned)), descent)


def poisoned(objective, where):
    """Return `objective` that spoils its loss, its gradients or its aux at step 2 of 20."""

    def loss(params, state, batch, keys, progress, train):
        bad = jnp.abs(progress - 0.1) < 1e-3
        value, (aux, metrics) = objective.loss(params, state, batch, keys, progress, train)
        kernel = params["encoder"]["first"]["kernel"]
        match where:
            case "loss":
                value += jnp.where(bad, jnp.nan, 0.0)
            case "gradients":
                value += jnp.where(bad, jnp.inf, 0.0) * (kernel - jax.lax.stop_gradient(kernel)).sum()
            case "aux":
                aux = jax.tree.map(lambda leaf: leaf + jnp.where(bad, jnp.inf, 0.0), aux)
        return value, (aux, metrics)

    return replace(objective, loss=loss)


@pytest.mark.parametrize(
    ("where", "logged"), [("loss", True), ("gradients", True), ("aux", True), ("gradients", False), ("aux", False)]
)
def test_a_nonfinite_update_is_refused_and_the_run_goes_on(objective, where, logged):
    states, metrics = zip(*walk(linear_config(), poisoned(objective, where), 5, one_device(), logged=logged))
    assert [step["nonfinite"] for step in metrics] == [0, 0, 1, 0, 0]
    assert [int(state.step) for state in states] == [1, 2, 3, 4, 5]
    before, after = leaf_paths(states[1]), leaf_paths(states[2])
    for path in set(before) - {"step"}:
        np.testing.assert_array_equal(after[path], before[path], err_msg=path)
    assert np.isfinite([step["train/loss"] for step in metrics[3:]]).all()
    assert not np.array_equal(states[3].params["encoder"]["first"]["bias"], after["params/encoder/first/bias"])


def test_evaluation_repeats_itself_leaves_the_state_and_returns_pooled_features(objective):
    config = linear_config(**BOTH)
    mesh, _, placement, state = start(config, objective)
    evaluate = seeded(make_eval_step(config, objective, mesh, placement.shardings), config, mesh)
    batch = jax.device_put({k: v[0] for k, v in make_batches(config, 1).items()}, batch_sharding(mesh))
    metrics, features, outputs = evaluate(state, batch)
    assert outputs == {}
    again, *_ = evaluate(replace(state, step=state.step), batch)
    assert set(metrics) == {"loss", "distance", "size"}
    assert {name: float(value) for name, value in metrics.items()} == {n: float(v) for n, v in again.items()}
    module, variables = objective.encoders["teacher"]
    tok_BLD = module.apply(variables(state.params, state.objective_state), batch["segment_BMCT"][:, 0] / 32767.0)
    np.testing.assert_allclose(features["teacher"], tok_BLD.mean(axis=1), rtol=1e-5, atol=1e-6)
    assert features["teacher"].is_fully_replicated


def small_qualityfm(**changes):
    """QualityFM with one layer of width 100 on 15 s of one channel at 100 Hz, augmentation on, dropout off."""
    small = {
        "data__channels": ("ppg",),
        "data__rate_hz": 100.0,
        "data__segment_s": 15.0,
        "model__width": 100,
        "model__layers": 1,
        "model__feedforward": 64,
        "model__dropout": 0.0,
        "train__batch": 32,
        **SGD,
        "optimizer__learning_rate": 1e-3,
    }
    config = linear_config()
    return fields.change(config, {name.replace("__", "."): value for name, value in (small | changes).items()})


def preset(name):
    known = {**MACHINES, **families.MODELS["qualityfm"].presets}
    return {field.replace(".", "__"): value for field, value in known[name].items()}


@pytest.mark.slow
def test_qualityfm_is_the_same_in_every_layout_and_in_microbatches():
    config = small_qualityfm()
    wanted = list(walk(config, make_objective(config), 5, one_device()))
    order = [jax.devices()[index] for index in PERMUTED]
    for layout in ({}, preset("fsdp"), preset("tensor") | {"mesh__data": 2}, {"train__microbatches": 4}):
        config = small_qualityfm(**layout)
        # A bias before a norm over its one channel has no gradient but rounding: measure by the tree's largest entry.
        assert_walks_close(list(walk(config, make_objective(config), 5, order)), wanted, floor=1.0)


@pytest.mark.slow
def test_accumulation_of_qualityfm_costs_no_more_flops():
    config = small_qualityfm(train__batch=128)
    (one, _), (four, _) = (gradient_flops(config, make_objective(config), parts) for parts in (1, 4))
    assert four == pytest.approx(one, rel=0.05)
