"""Segments of which only some channels are there: dropped at random in training, or all but one kind, to see what the
others are worth.

A channel is taken away where it is stored, by a gain of 0, as one that a recording lacks: what is prepared, scaled and
standardised never sees it. Features go with the lead that they are made of.

    batch = drop_channels(batch, 0.3, keys["augment"], inputs)
    batch = keep_channels(batch, keep_C, inputs)
"""

import zlib
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxbio.config.features import LEAD
from jaxbio.config.roles import kind_of
from jaxbio.transforms.augment import row_keys
from jaxbio.transforms.prepare_input import Input

Batch = Mapping[str, jax.Array]
_NAME = np.uint32(zlib.crc32(b"drop_channel"))


def drop_channels(batch: Batch, prob: float, key: jax.Array, inputs: Input) -> dict[str, jax.Array]:
    """Return `batch` where each member has, with probability `prob`, lost some of its recorded channels, never all.

    How many stay is uniform on 1 to C - 1, and which, alike; those that a segment has come before those that it lacks.
    `key` may be that of the augmentation: a name is folded in, then row and member.
    """
    channels = len(inputs.channels)
    present_BMC = batch["scale_BMC2"][..., :channels, 1] > 0

    def keep(key: jax.Array, present_C: jax.Array) -> jax.Array:
        uniform = jax.random.uniform(key, (2 + channels,))
        order_C = jnp.argsort(jnp.where(present_C, uniform[2:], 2.0))
        stay = 1 + jnp.floor(uniform[1] * (channels - 1))
        stays_C = jnp.zeros(channels, bool).at[order_C].set(jnp.arange(channels) < stay)
        return jnp.where(uniform[0] < prob, stays_C, True)

    key_BM = row_keys(jax.random.fold_in(key, _NAME), batch["row_BM"])
    return keep_channels(batch, jax.vmap(jax.vmap(keep))(key_BM, present_BMC), inputs)


def keep_channels(batch: Batch, keep: jax.Array | np.ndarray, inputs: Input) -> dict[str, jax.Array]:
    """Return `batch` with the recorded channels that `keep` marks, bool (C,) or (B, M, C), and the others as if not
    there.
    """
    segment_BMCT, scale_BMC2 = batch["segment_BMCT"], batch["scale_BMC2"]
    keep = jnp.asarray(keep)
    if inputs.features:
        lead = keep[..., inputs.channels.index(LEAD), None]
        keep = jnp.concatenate([keep, jnp.repeat(lead, len(inputs.features), axis=-1)], axis=-1)
    keep = jnp.broadcast_to(keep, scale_BMC2.shape[:-1])[..., None]
    return {
        **batch,
        "segment_BMCT": jnp.where(keep, segment_BMCT, jnp.zeros((), segment_BMCT.dtype)),
        "scale_BMC2": jnp.where(keep, scale_BMC2, 0.0),
    }


def split_target(batch: Batch, seen: int) -> tuple[dict[str, jax.Array], jax.Array]:
    """Return `batch` without the channel behind its first `seen`, and that channel in its unit, x_BT float32 of the
    first member, NaN where it is missing.
    """
    segment_BMCT, scale_BMC2 = batch["segment_BMCT"], batch["scale_BMC2"]
    offset_B1, gain_B1 = scale_BMC2[:, 0, seen, :1], scale_BMC2[:, 0, seen, 1:]
    x_BT = offset_B1 + gain_B1 * segment_BMCT[:, 0, seen].astype(jnp.float32)
    shown = {name: jnp.delete(batch[name], seen, axis=2) for name in ("segment_BMCT", "scale_BMC2")}
    return {**batch, **shown}, jnp.where(gain_B1 > 0, x_BT, jnp.nan)


def kinds_alone(channels: Sequence[str]) -> dict[str, np.ndarray]:
    """Return for each kind of signal among `channels` which of them are of it, bool (C,); {} where all are of one."""
    kinds = [kind_of(role) for role in channels]
    if len(set(kinds)) < 2:
        return {}
    return {kind: np.array([found == kind for found in kinds]) for kind in dict.fromkeys(kinds)}
