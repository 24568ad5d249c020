"""From stored integers to the network's input.

Knows the store's number format (a channel spans the int16 range; physical = offset + gain * q), not the store.

    x_BMCT = scale(segment_BMCT, scale_BMC2, "per_channel")
"""

import jax
import jax.numpy as jnp

from jaxbio.config.faults import Fault, UserError

FULL_SCALE = 32767  # a stored channel reaches from -32767 to 32767
KINDS = ("per_channel", "joint", "unit", "physical")


def scale(segment_CT: jax.Array, scale_C2: jax.Array, kind: str) -> jax.Array:
    """Return stored segments as float32 in the scaling `kind`.

    `segment_CT` (..., C, T) int16 and `scale_C2` (..., C, 2) float32 (offset, gain in physical units); leading axes are
    free. `per_channel`: each channel to [-1, 1]; `joint`: all channels by their common minimum and maximum to [-1, 1],
    as the author does (QualityFM fact sheet, section 2.1); `unit`: each channel to [0, 1]; `physical`: physical units.
    Raises UserError for another kind.
    """
    q_CT = segment_CT.astype(jnp.float32)
    match kind:
        case "per_channel":
            return q_CT * (1 / FULL_SCALE)
        case "unit":
            return q_CT * (0.5 / FULL_SCALE) + 0.5
        case "physical":
            return scale_C2[..., :1] + scale_C2[..., 1:] * q_CT
        case "joint":
            return _scale_jointly(q_CT, scale_C2)
    raise UserError(Fault("data.scaling", kind, f"one of {', '.join(KINDS)}"))


def _scale_jointly(q_CT: jax.Array, scale_C2: jax.Array) -> jax.Array:
    offset_C1, gain_C1 = scale_C2[..., :1], scale_C2[..., 1:]
    lowest = (offset_C1 + gain_C1 * q_CT.min(-1, keepdims=True)).min(-2, keepdims=True)
    highest = (offset_C1 + gain_C1 * q_CT.max(-1, keepdims=True)).max(-2, keepdims=True)
    per_unit = 2 / jnp.where(highest > lowest, highest - lowest, 1.0)
    # one multiply and add a sample, and no cancellation between a large offset and a small range
    return (gain_C1 * per_unit) * q_CT + ((offset_C1 - lowest) * per_unit - 1)
