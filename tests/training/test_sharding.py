"""Where arrays lie: mesh, rules and their faults, mirrored leaves, split moments, and the table that says so."""

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P
from linear_run import linear_config, linear_objective, start

from jaxbio.config.command_line import load_recipe
from jaxbio.config.faults import UserError
from jaxbio.data.batch import batch_spec
from jaxbio.objectives import make_objective
from jaxbio.training.optimizer import make_optimizer
from jaxbio.training.sharding import check_batch, make_mesh, network_order, place_state, splits, without_axis
from jaxbio.training.state import State, abstract_state

REPLICATE = ((".*", "replicate"),)


def abstract() -> State:
    """A state with a stacked kernel, a bias that nothing divides, Adam's moments, a teacher and a centre."""
    params = {
        "blocks": {"kernel": jax.ShapeDtypeStruct((3, 16, 32), jnp.float32)},
        "output": {"bias": jax.ShapeDtypeStruct((5,), jnp.float32)},
    }
    opt_state = ({"count": jax.ShapeDtypeStruct((), jnp.int32), "mu": params, "nu": params},)
    objective_state = {"teacher": params, "centre": jax.ShapeDtypeStruct((1, 6, 16), jnp.float32)}
    return State(jax.ShapeDtypeStruct((), jnp.int32), params, opt_state, objective_state)


def specs(placement):
    return {row.path: row.spec for row in placement.rows}


def test_mesh_always_has_all_axes_and_fills_the_rest():
    assert dict(make_mesh(-1, 2, 1).shape) == {"data": 4, "fsdp": 2, "tensor": 1}
    assert dict(make_mesh(-1, 1, 1, jax.devices()[:1]).shape) == {"data": 1, "fsdp": 1, "tensor": 1}


def test_mesh_keeps_a_given_order_of_devices():
    order = jax.devices()[::-1]
    assert make_mesh(2, 2, 2, order).devices.ravel().tolist() == order


@pytest.mark.parametrize("sizes", [(3, 1, 1), (-1, 3, 1), (2, 2, 1), (16, 1, 1)])
def test_mesh_that_does_not_divide_the_devices_is_refused(sizes):
    with pytest.raises(UserError, match="the number of devices"):
        make_mesh(*sizes)


def test_mesh_that_does_not_go_with_the_network_is_refused():
    sides = itertools.product(range(4), repeat=3)
    torus = [
        SimpleNamespace(platform="tpu", device_kind="TPU v4", coords=coords, core_on_chip=0, process_index=0, id=index)
        for index, coords in enumerate(sides)
    ]
    with pytest.raises(UserError, match="8 x 8 x 1"):
        network_order((8, 8, 1), torus)


def test_batch_that_does_not_divide_is_refused_with_the_nearest_that_do():
    check_batch(make_mesh(2, 4, 1), 32, 4)
    with pytest.raises(UserError, match="= 32: 32 or 64"):
        check_batch(make_mesh(2, 4, 1), 40, 4)


def test_first_matching_rule_decides():
    rules = (("blocks/", (None, "tensor", "fsdp")), (".*", "replicate"))
    placed = specs(place_state(abstract(), make_mesh(2, 2, 2), rules, "like_params"))
    assert placed["params/blocks/kernel"] == P(None, "tensor", "fsdp")
    assert placed["params/output/bias"] == P()


def test_leaves_that_mirror_a_parameter_take_its_rule():
    rules = (("^blocks/", (None, "tensor")), ("output", "replicate"), ("^centre$", (None, None, "fsdp")))
    placed = specs(place_state(abstract(), make_mesh(2, 2, 2), rules, "like_params"))
    assert placed["opt_state/0/mu/blocks/kernel"] == P(None, "tensor")
    assert placed["objective_state/teacher/blocks/kernel"] == P(None, "tensor")
    assert placed["objective_state/centre"] == P(None, None, "fsdp")
    assert placed["opt_state/0/count"] == P()


def test_fsdp_splits_the_largest_dimension_that_divides():
    placed = specs(place_state(abstract(), make_mesh(1, 8, 1), ((".*", "fsdp"),), "like_params"))
    assert placed["params/blocks/kernel"] == P(None, None, "fsdp")
    assert placed["params/output/bias"] == P()


def test_zero_splits_moments_over_data_and_lists_the_rest():
    placement = place_state(abstract(), make_mesh(8, 1, 1), REPLICATE, "zero")
    assert specs(placement)["params/blocks/kernel"] == P()
    assert specs(placement)["objective_state/teacher/blocks/kernel"] == P()
    assert specs(placement)["opt_state/0/nu/blocks/kernel"] == P(None, "data", None)
    assert placement.unsplit == ("0/mu/output/bias", "0/nu/output/bias")
    assert "0/mu/output/bias" in placement.table()


def test_zero_goes_on_top_of_the_parameters_own_axes():
    placed = specs(place_state(abstract(), make_mesh(2, 4, 1), (("blocks", (None, "fsdp")), *REPLICATE), "zero"))
    assert placed["opt_state/0/mu/blocks/kernel"] == P(None, ("fsdp", "data"), None)


def test_a_leaf_without_a_rule_is_named():
    with pytest.raises(UserError) as caught:
        place_state(abstract(), make_mesh(8, 1, 1), (("blocks", "replicate"),), "zero")
    assert [fault.value for fault in caught.value.faults] == ["output/bias", "centre"]


@pytest.mark.parametrize("unused", ["decoder", "output"])
def test_a_rule_that_decides_nothing_is_named(unused):
    with pytest.raises(UserError) as caught:
        place_state(abstract(), make_mesh(8, 1, 1), (*REPLICATE, (unused, "fsdp")), "zero")
    assert [fault.value for fault in caught.value.faults] == [unused]


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (("tensor",), "3 does not divide by tensor = 2"),
        (("model",), "axes are data, fsdp, tensor"),
        ((None, None, None, "tensor"), "at most 3 axes"),
        ("shard", "at most 3 axes"),
        ((None, "tensor", "tensor"), "each axis at most once"),
    ],
)
def test_an_action_that_cannot_apply_says_why(action, message):
    with pytest.raises(UserError, match=message):
        place_state(abstract(), make_mesh(4, 1, 2), (("blocks", action), *REPLICATE), "zero")


def test_an_axis_may_split_one_of_a_dimensions_several():
    placed = place_state(abstract(), make_mesh(2, 4, 1), (("blocks", (None, ("fsdp", "data"))), *REPLICATE), "zero")
    kernel, bias = placed.shardings.params["blocks"]["kernel"], placed.shardings.params["output"]["bias"]
    assert [splits(kernel, dimension, "fsdp") for dimension in range(3)] == [False, True, False]
    assert not splits(bias, 0, "fsdp")


def test_without_axis_keeps_the_others():
    placement = place_state(abstract(), make_mesh(2, 4, 1), (("blocks", (None, ("fsdp", "data"))), *REPLICATE), "zero")
    assert without_axis(placement.shardings.params["blocks"]["kernel"], "fsdp").spec == P(None, ("data",))


def test_small_parameters_share_a_line_of_the_table_and_none_is_lost():
    params = {"kernel": jnp.zeros((100, 100)), "bias": jnp.zeros(4), "scale": jnp.zeros(5)}
    whole = State(jnp.int32(0), params, {}, {})
    placement = place_state(whole, make_mesh(8, 1, 1), REPLICATE, "like_params")
    table = placement.table()
    (small,) = [line for line in table.splitlines() if "2 smaller ones" in line]
    assert small.split()[-1] == "36"
    assert "params/bias" not in table
    assert "40,000" in next(line for line in table.splitlines() if "params/kernel" in line)


@pytest.mark.parametrize("moments", ["zero", "like_params"])
def test_bytes_a_device_are_those_of_the_table(moments):
    config = linear_config(mesh__moments=moments)
    _, _, placement, state = start(config, linear_objective())
    held = [leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state)]
    assert held == [row.bytes_per_device for row in placement.rows]
    opt_bytes = sum(row.bytes_per_device for row in placement.rows if row.path.startswith("opt_state"))
    whole = 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(state.params)) + 4
    assert opt_bytes == (whole - 4) / 8 + 4 if moments == "zero" else opt_bytes == whole
    assert f"{opt_bytes:,}" in placement.table()


@pytest.mark.parametrize("recipe", ["base", "medium", "large"])
@pytest.mark.parametrize("preset", ["fsdp", "tensor"])
def test_layout_presets_cover_every_leaf_of_every_size(repository, recipe, preset):
    config = load_recipe(f"{repository}/configs/qualityfm_{recipe}.py:{preset}")
    objective, optimizer = make_objective(config), make_optimizer(config.optimizer, config.train.steps)
    state = abstract_state(objective, optimizer, batch_spec(config))
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
    placement = place_state(state, mesh, config.mesh.rules, config.mesh.moments)
    whole = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.params))
    held = sum(row.bytes_per_device for row in placement.rows if row.path.startswith("params/"))
    assert held < whole * (0.14 if preset == "fsdp" else {"base": 0.9, "medium": 0.35, "large": 0.3}[recipe])
