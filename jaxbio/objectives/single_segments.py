"""What objectives on single segments share: the prepared segment, means over what is there, and whether any moves.

x_BCT = single_segments(batch, inputs, augmentation, keys["augment"] if train else None)
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxbio.config.faults import Fault, UserError
from jaxbio.models.lead_patches import present_channels
from jaxbio.objectives.objective import Batch
from jaxbio.transforms.augment import augment, row_keys
from jaxbio.transforms.prepare_input import Input, prepare_batch


def single_segments(
    batch: Batch, inputs: Input, augmentation: Mapping[str, Any], key: jax.Array | None = None
) -> jax.Array:
    """Return x_BCT float32 of a batch of single segments: prepared, and with `key` cropped and augmented at random.

    Channels that are not there stay zeros. Raises UserError for segments that come in pairs.
    """
    members = batch["segment_BMCT"].shape[1]
    if members != 1:
        raise UserError(Fault("pairs.rule", f"an index of {members} members", "all_segments: single segments"))
    x_BCT = prepare_batch(batch, inputs, key)[:, 0]
    if key is None or not any(augmentation[name] for name in augmentation if name.endswith("_prob")):
        return x_BCT
    augment_row = jax.vmap(lambda key, x_CT: augment(key, x_CT, **augmentation))
    augmented_BCT = augment_row(row_keys(key, batch["row_BM"])[:, 0], x_BCT)
    return jnp.where(present_channels(x_BCT)[..., None], augmented_BCT, 0.0)


def row_mean(value_BCN: jax.Array, counts_BCN: jax.Array) -> jax.Array:
    """Return the mean over rows of each row's mean over what counts, so that rows weigh alike; 0 where nothing does."""
    weight_BCN = counts_BCN.astype(jnp.float32)
    total_B = (value_BCN * weight_BCN).sum((1, 2))
    return (total_B / jnp.maximum(weight_BCN.sum((1, 2)), 1.0)).mean()


def anything_moves(x_BCT: jax.Array) -> jax.Array:
    """Return whether any channel of any segment (B, C, T) moves: of a batch in which none does nothing is learnt."""
    return (x_BCT != x_BCT[..., :1]).any()


def share_still(x_BCT: jax.Array) -> jax.Array:
    """Return the share of prepared segments (B, C, T) in which no channel moves."""
    return (x_BCT == x_BCT[..., :1]).all((1, 2)).mean(dtype=jnp.float32)
