"""From stored integers to numbers in the unit that a network wants.

Knows the store's number format (a channel spans the int16 range; physical = offset + gain * q), not the store.

    x_BMCT = scale(segment_BMCT, scale_BMC2, "per_channel")
"""

import jax
import jax.numpy as jnp

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.quantise import FULL_RANGE

KINDS = ("per_channel", "joint", "unit", "physical")


def scale(segment_CT: jax.Array, scale_C2: jax.Array, kind: str) -> jax.Array:
    """Return stored segments as float32 in the scaling `kind`.

    `segment_CT` (..., C, T) int16 and `scale_C2` (..., C, 2) float32 (offset, gain in physical units); leading axes are
    free. `per_channel`: each channel to [-1, 1]; `joint`: all channels by their common minimum and maximum to [-1, 1],
    as the author does (QualityFM's published code); `unit`: each channel to [0, 1]; `physical`: physical units.
    A channel of gain 0, which does not move or is not there, gives zeros. Raises UserError for another kind.
    """
    q_CT = segment_CT.astype(jnp.float32)
    offset_C1, gain_C1 = scale_C2[..., :1], scale_C2[..., 1:]
    match kind:
        case "per_channel":
            return q_CT * (1 / FULL_RANGE)
        case "unit":
            factor_C1, shift_C1 = jnp.full_like(gain_C1, 0.5 / FULL_RANGE), jnp.full_like(gain_C1, 0.5)
        case "physical":
            factor_C1, shift_C1 = gain_C1, offset_C1
        case "joint":
            factor_C1, shift_C1 = _joint(q_CT, offset_C1, gain_C1)
        case _:
            raise UserError(Fault("data.scaling", kind, f"one of {', '.join(KINDS)}"))
    # one multiply and add a sample, and no cancellation between a large offset and a small range
    return factor_C1 * q_CT + jnp.where(gain_C1 > 0, shift_C1, 0.0)


def full_scale(x_CT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return `q_CT` float32 and `scale_C2` of a signal in physical units, for `scale`.

    What a store holds of the signal (`data.quantise`) but for the rounding to whole numbers, at most 1.5e-5 of a
    channel's range.
    """
    low_C1, high_C1 = x_CT.min(-1, keepdims=True), x_CT.max(-1, keepdims=True)
    offset_C1, gain_C1 = (low_C1 + high_C1) / 2, (high_C1 - low_C1) / (2 * FULL_RANGE)
    q_CT = (x_CT - offset_C1) / jnp.where(gain_C1 > 0, gain_C1, 1.0)
    return jnp.where(gain_C1 > 0, q_CT, 0.0), jnp.concatenate([offset_C1, gain_C1], axis=-1)


def _joint(q_CT: jax.Array, offset_C1: jax.Array, gain_C1: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return factor and shift by channel that take the channels that move, together, to [-1, 1]."""
    low_C1 = offset_C1 + gain_C1 * q_CT.min(-1, keepdims=True)
    high_C1 = offset_C1 + gain_C1 * q_CT.max(-1, keepdims=True)
    moves_C1 = gain_C1 > 0
    lowest = low_C1.min(-2, keepdims=True, where=moves_C1, initial=jnp.inf)
    highest = high_C1.max(-2, keepdims=True, where=moves_C1, initial=-jnp.inf)
    per_unit = 2 / jnp.where(highest > lowest, highest - lowest, 1.0)
    return gain_C1 * per_unit, (offset_C1 - lowest) * per_unit - 1
