"""Computing a row of a batch on the device that holds it, where the compiler would gather the batch.

The partitioner knows no way to split some operations (for CPU and GPU a Fourier transform is one), and then gives every
device the whole batch. Pure functions know no mesh, so whoever compiles a step names it:

    spectrum_BCS = per_row(jnp.fft.rfft)(x_BCT)     # in a loss
    with rows_on(mesh):                             # in the function that is compiled
        objective.loss(params, state, batch, ...)
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager

import jax
from jax.sharding import Mesh, PartitionSpec

BATCH_AXES = ("data", "fsdp")  # mesh axes over which the rows of a batch are split


def rows_on(mesh: Mesh) -> AbstractContextManager:
    """Return the context in which functions `per_row` find the rows of a batch on `mesh`."""
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def per_row(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Return `function` of arrays whose leading axis is the batch, each row computed by the device that holds it.

    Where no mesh is named, or it does not split a batch, that is `function` itself. `function` must treat rows alike
    and independently: it sees a part of them. Inside `rows_on` the batch must divide over the mesh's batch axes, which
    `sharding.check_batch` sees to.
    """

    def computed(*arrays: jax.Array) -> jax.Array:
        mesh = jax.sharding.get_abstract_mesh()
        if mesh.empty or math.prod(mesh.shape[axis] for axis in BATCH_AXES) == 1:
            return function(*arrays)
        split = PartitionSpec(BATCH_AXES)
        return jax.shard_map(function, mesh=mesh, in_specs=split, out_specs=split)(*arrays)

    return computed
