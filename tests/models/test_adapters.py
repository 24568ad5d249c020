"""Adapters beside dense kernels, and which part of an encoder is trained, of any family, whose layers nobody names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from small_encoder import SmallEncoder

from jaxbio.config.faults import UserError
from jaxbio.models import ENCODERS
from jaxbio.models.adapters import init_adapters, merge_adapters
from jaxbio.models.layers import depths_of, first_of_last, trace_layers
from jaxbio.models.partition import join_parts, scale_by_depth, split_at


@pytest.fixture(scope="module")
def traced():
    params = jax.jit(SmallEncoder().init)(jax.random.key(0), jnp.ones((1, 2, 20)))["params"]
    return trace_layers(SmallEncoder(), (2, 20)), params


def flat(tree):
    return {"/".join(path): leaf for path, leaf in traverse_util.flatten_dict(tree).items()}


def test_layers_are_found_in_the_order_of_the_signal_with_stacks_and_dense_kernels(traced):
    layers, _ = traced
    assert [("/".join(layer.path), layer.stacked, layer.inputs) for layer in layers] == [
        ("embed", 0, 0),
        ("blocks/norm", 3, 0),
        ("blocks/split", 3, 1),
        ("blocks/join", 3, 2),
        ("output", 0, 1),
    ]
    assert depths_of(layers)[1] == 5
    assert first_of_last(layers, 2) == 2


def test_adapters_start_without_effect_and_add_a_product_of_their_rank(traced):
    layers, params = traced
    adapters = init_adapters(jax.random.key(1), params, layers, rank=2)
    assert {path.rpartition("/")[0] for path in flat(adapters)} == {"blocks/split", "blocks/join", "output"}
    jax.tree.map(np.testing.assert_array_equal, merge_adapters(params, adapters), params)
    moved = jax.tree.map(lambda leaf: leaf + 0.1, adapters)
    before, after, parts = flat(params), flat(merge_adapters(params, moved)), flat(moved)
    for path, inputs in {"blocks/split": 1, "blocks/join": 2}.items():
        for layer in range(3):
            change = (after[f"{path}/kernel"] - before[f"{path}/kernel"])[layer]
            matrix = np.reshape(change, (int(np.prod(change.shape[:inputs])), -1))
            expected = parts[f"{path}/down"][layer] @ parts[f"{path}/up"][layer]
            np.testing.assert_allclose(matrix, expected, atol=1e-6)
            assert np.linalg.matrix_rank(matrix, tol=1e-4) <= 2
    np.testing.assert_array_equal(after["embed/kernel"], before["embed/kernel"])


def test_an_encoder_without_dense_layers_has_no_adapters():
    resnet = ENCODERS["resnet1d"](18, (1, 1, 1, 1))
    with pytest.raises(UserError, match=r"model\.adapters"):
        init_adapters(jax.random.key(0), {}, trace_layers(resnet, (1, 400)), rank=2)


def test_parts_join_again_at_every_depth_and_stacks_are_cut_between_layers(traced):
    layers, params = traced
    sizes = []
    for first in range(depths_of(layers)[1] + 1):
        trained, kept = split_at(params, layers, first)
        jax.tree.map(np.testing.assert_array_equal, join_parts(trained, kept), params)
        sizes.append(sum(leaf.size for leaf in jax.tree.leaves(trained)))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 0
    trained, kept = map(flat, split_at(params, layers, first_of_last(layers, 1)))
    assert trained["blocks/split/kernel"].shape[0] == 1
    assert kept["blocks/split/kernel"].shape[0] == 2
    assert "output/kernel" in trained
    assert "embed/kernel" in kept


def test_what_lies_deeper_in_the_past_learns_slower(traced):
    layers, params = traced
    scale = flat(scale_by_depth(params, layers, 0.5))
    assert scale["embed/kernel"] == 0.5**5
    np.testing.assert_allclose(np.ravel(scale["blocks/join/kernel"]), [0.5**4, 0.5**3, 0.5**2])
    assert scale["blocks/join/kernel"].shape == (3, 1, 1, 1)
    assert scale["output/bias"] == 0.5
    trained, _ = split_at(params, layers, 3)
    np.testing.assert_allclose(np.ravel(flat(scale_by_depth(trained, layers, 0.5))["blocks/norm/scale"]), [0.5**2])


@pytest.mark.parametrize(
    ("name", "fields"),
    [("sigma_ppg", {"channels": 4, "patch": 100, "tokens": 12}), ("ecg_jepa", {"feedforward": 8})],
)
def test_dense_layers_of_families_are_found(name, fields):
    layers = trace_layers(ENCODERS[name](width=8, layers=2, heads=2, **fields), (1, 1200))
    assert {layer.stacked for layer in layers if "blocks" in layer.path} == {2}
    assert {layer.path[-1] for layer in layers if layer.inputs and layer.stacked} == {
        "qkv",
        "output",
        "feedforward_in",
        "feedforward_out",
    }
