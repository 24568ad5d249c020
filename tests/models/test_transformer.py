"""How the blocks are computed (scan, unrolling, rematerialisation) does not change what they compute."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbio.config.faults import UserError
from jaxbio.models.transformer import Transformer, positions

X_BLD = jax.random.normal(jax.random.key(0), (2, 7, 16))


def transformer(heads=2, layers=3, remat="none", unroll=1, dropout=0.2):
    return Transformer(16, layers, heads, 24, 4, dropout, "counter_hash", jnp.dtype("float32"), remat, unroll)


def value_and_gradients(module, variables):
    def loss(variables, x_BLD):
        y_BLD = module.apply(variables, x_BLD, True, rngs={"dropout": jax.random.key(2)})
        return (y_BLD * jnp.sin(jnp.arange(16.0))[None, None]).sum(), y_BLD

    (_, y_BLD), gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(variables, X_BLD)
    return y_BLD, gradients


@pytest.fixture(scope="module")
def variables():
    return jax.jit(transformer().init, static_argnums=2)(jax.random.key(1), X_BLD, False)


@pytest.fixture(scope="module")
def scanned(variables):
    return value_and_gradients(transformer(), variables)


@pytest.mark.parametrize("how", [{"remat": "full"}, {"remat": "dots"}, {"unroll": 2}, {"unroll": 9}])
def test_remat_and_unrolling_change_nothing(how, variables, scanned):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6 * max(1.0, np.abs(b).max())),
        value_and_gradients(transformer(**how), variables),
        scanned,
    )


def test_remat_full_keeps_less_for_the_gradient_than_none(variables):
    def kept(remat):
        module = transformer(remat=remat, dropout=0.0)
        _, pull = jax.vjp(lambda x: module.apply(variables, x, True), X_BLD)
        return sum(leaf.size for leaf in jax.tree.leaves(pull))

    assert kept("full") < kept("dots") < kept("none")


def test_layers_are_applied_in_order_with_their_own_parameters(variables):
    one = transformer(layers=1)
    y_BLD = X_BLD
    for layer in range(3):
        y_BLD = one.apply(jax.tree.map(lambda a, n=layer: a[n : n + 1], variables), y_BLD, False)
    np.testing.assert_allclose(transformer().apply(variables, X_BLD, False), y_BLD, atol=2e-6)


def test_layers_start_and_drop_out_differently(variables):
    kernel_NDF = variables["params"]["blocks"]["feedforward_in"]["kernel"]
    assert not np.allclose(kernel_NDF[0], kernel_NDF[1])
    same = jax.tree.map(lambda a: jnp.broadcast_to(a[:1], a.shape), variables)
    _, gradients = value_and_gradients(transformer(dropout=0.9), same)
    bias_NF = np.asarray(gradients[0]["params"]["blocks"]["feedforward_in"]["bias"])
    assert not np.allclose(bias_NF[0] == 0, bias_NF[1] == 0)


def test_positions_are_the_published_sinusoids():
    expected = np.zeros((18, 512))
    for position in range(18):
        for i in range(0, 512, 2):
            angle = position / 10_000 ** (i / 512)
            expected[position, i], expected[position, i + 1] = np.sin(angle), np.cos(angle)
    np.testing.assert_allclose(positions(18, 512), expected, atol=2e-6)


@pytest.mark.parametrize(("how", "field"), [({"heads": 3}, r"model\.heads"), ({"remat": "some"}, r"model\.remat")])
def test_what_cannot_be_built_is_refused(how, field):
    with pytest.raises(UserError, match=field):
        jax.eval_shape(lambda: transformer(**how).init(jax.random.key(0), X_BLD, False))
