"""Blocks of one shape, their parameters stacked on a leading layer axis N and scanned over: what every stack shares.

blocks = stack(Block, layers=12, remat="none", unroll=1)        # in the compact method of a stack
x_BLD = blocks(width, heads, name=STACK)(x_BLD, layer_N)[0]

On a mesh that splits parameters over fsdp, which whoever compiles names (`transforms/per_row.py`), a device gathers the
parameters of one layer when it comes to it, forward and once more backward, and never holds those of all.
"""

from typing import Any

import jax
from flax import linen as nn
from jax.sharding import PartitionSpec

from jaxbio.config.faults import Fault, UserError
from jaxbio.models.dense import PRODUCT

STACK = "blocks"  # the name of every stack in the paths of parameters

# What a block keeps for its gradient; "none" is no rematerialisation at all.
REMAT_POLICIES = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.save_only_these_names(PRODUCT),
}


def stack(block: type[nn.Module], *, layers: int, remat: str, unroll: int, in_axes: Any = 0) -> Any:
    """Return the module class of `layers` blocks in a row; a block takes the carry first and returns (carry, None).

    `in_axes` are, for what a block takes besides, 0 for an axis of layers or `nn.broadcast` for the same for all.

    Raises UserError for an unknown remat.
    """
    if remat not in ("none", *REMAT_POLICIES):
        raise UserError(Fault("model.remat", remat, f"one of none, {', '.join(REMAT_POLICIES)}"))
    policy = REMAT_POLICIES.get(remat)
    if _fsdp() > 1:
        block = nn.map_variables(block, "params", trans_in_fn=gather_layer, init=True)
        policy = policy or _all_but_gathered
    if policy is not None:
        block = nn.remat(block, policy=policy, prevent_cse=False)
    return nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=in_axes,
        length=layers,
        unroll=min(unroll, layers),
    )


@jax.custom_vjp
def gather_layer(params: Any) -> Any:
    """Return the parameters of one layer whole along fsdp, however they are split over it; other axes stay as they are.

    Nothing is said of where their gradient lies, so that the partitioner scatters it to the devices as it reduces it.
    """
    mesh = jax.sharding.get_abstract_mesh()
    whole = PartitionSpec()
    return jax.shard_map(lambda leaf: leaf, mesh=mesh, in_specs=whole, out_specs=whole, axis_names={"fsdp"})(params)


gather_layer.defvjp(lambda params: (gather_layer(params), None), lambda _, grads: (grads,))


def _fsdp() -> int:
    """Return over how many devices the mesh that is named here splits parameters; 1 where none is, or no run's."""
    return jax.sharding.get_abstract_mesh().shape.get("fsdp", 1)


def _all_but_gathered(primitive: Any, *_: Any, **how: Any) -> bool:
    """Tell jax.checkpoint to keep all but what `gather_layer` gives, which would come to all layers' parameters."""
    inside = how["call_jaxpr"].eqns if primitive.name == "custom_vjp_call" else ()
    return "shard_map" not in (primitive.name, *(equation.primitive.name for equation in inside))
