"""Blocks of one shape, their parameters stacked on a leading layer axis N and scanned over: what every stack shares.

blocks = stack(Block, layers=12, remat="none", unroll=1)        # in the compact method of a stack
x_BLD = blocks(width, heads, name="blocks")(x_BLD, layer_N)[0]
"""

from typing import Any

import jax
from flax import linen as nn

from jaxbio.config.faults import Fault, UserError
from jaxbio.models.dense import PRODUCT

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
    if remat != "none":
        block = nn.remat(block, policy=REMAT_POLICIES[remat], prevent_cse=False)
    return nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=in_axes,
        length=layers,
        unroll=min(unroll, layers),
    )
