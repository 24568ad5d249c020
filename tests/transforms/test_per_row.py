"""Rows stay on the device that holds them: the same values, and no gather, on eight simulated devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbio.planning.collectives import count_collectives
from jaxbio.training.sharding import batch_sharding, make_mesh
from jaxbio.transforms.per_row import per_row, rows_on


def transform(x_BCT):
    return jnp.fft.rfft(x_BCT)[..., :8]


def power(x_BCT):
    return jnp.square(jnp.abs(per_row(transform)(x_BCT))).sum()


@pytest.fixture(scope="module")
def x_BCT():
    return np.random.default_rng(0).normal(size=(16, 2, 24)).astype(np.float32)


def compiled(function, mesh, x_BCT, named=True):
    """Return `function` compiled for a batch that lies split on `mesh`, which is named to it or not."""

    def run(x_BCT):
        if not named:
            return function(x_BCT)
        with rows_on(mesh):
            return function(x_BCT)

    return jax.jit(run, in_shardings=batch_sharding(mesh)).lower(x_BCT).compile()


def gathers(program):
    return "all-gather" in count_collectives(program.as_text()).by_kind


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 2, 2), (1, 1, 8)], ids=["data", "all_axes", "tensor"])
@pytest.mark.parametrize(
    "function",
    [
        per_row(transform),
        jax.grad(power),
        lambda x_BCT: jax.vmap(per_row(transform), in_axes=1, out_axes=1)(x_BCT[:, None]),
        lambda x_BCT: jax.lax.scan(lambda total, step: (total + power(x_BCT * step), None), 0.0, jnp.arange(3.0))[0],
    ],
    ids=["plain", "grad", "vmap", "scan"],
)
def test_rows_are_computed_where_they_lie_and_come_out_the_same(x_BCT, sizes, function):
    mesh = make_mesh(*sizes)
    program = compiled(function, mesh, x_BCT)
    assert not gathers(program)
    found = program(jax.device_put(x_BCT, batch_sharding(mesh)))
    np.testing.assert_allclose(found, jax.jit(function)(x_BCT), rtol=1e-5, atol=1e-5)


def test_without_it_every_device_gathers_the_batch(x_BCT):
    assert gathers(compiled(per_row(transform), make_mesh(8, 1, 1), x_BCT, named=False))


def test_where_one_device_holds_all_rows_it_is_the_function_itself(x_BCT):
    def jaxpr_of(function):
        return str(jax.make_jaxpr(function)(x_BCT))

    with rows_on(make_mesh(1, 1, 8)):
        assert jaxpr_of(per_row(transform)) == jaxpr_of(transform)
    assert jaxpr_of(per_row(transform)) == jaxpr_of(transform)
