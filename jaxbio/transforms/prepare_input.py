"""What an encoder sees of a segment: one description, and one function from stored numbers to the network's input.

Training, evaluation, probes, reports, `embed` and the exported program all go through `prepare_input`, so that no two
of them can differ. The order is scale, crop, band-pass, standardise. Feature channels, which lie behind the recorded
ones, are cropped with them and scaled in a way of their own.

    inputs = Input.of(config)
    x_BMCT = prepare_batch(batch, inputs, keys["augment"])      # training: crops at random, keyed by row and member
    x_BCT = prepare_crops(segment_BCT, scale_BC2, inputs)       # all else: fixed crops
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxbio.config.faults import Fault, UserError
from jaxbio.config.features import FEATURES
from jaxbio.transforms.augment import row_keys
from jaxbio.transforms.band_pass import band_pass
from jaxbio.transforms.scaling import full_scale, scale

STANDARDISATIONS = ("none", "z_score", "unit")
_CROP = np.uint32(zlib.crc32(b"crop"))


@dataclass(frozen=True)
class Input:
    """What an encoder sees; the fields from `scaling` on are those of the section `data` (jaxbio/config/fields.py).

    `length` is that of a stored segment in samples at `rate_hz`, `channels` are roles in order, `features` the names of
    the feature channels behind them, `feature_scales` (centre, spread) of each. The defaults are those of an input that
    is scaled and nothing else.
    """

    rate_hz: float
    length: int
    channels: tuple[str, ...]
    scaling: str
    crop_s: float | None = None
    crops: int = 1
    band_hz: tuple[float, float] | None = None
    band_order: int = 2
    band_design: str = "band_pass"
    standardise: str = "none"
    features: tuple[str, ...] = ()
    feature_scales: tuple[tuple[float, float], ...] = ()

    @classmethod
    def of(cls, config: ConfigDict) -> "Input":
        """Return the input of a resolved configuration.

        Scales of features that are still to be fitted are 0 and 1: a plan and a bench have no store.
        """
        data = config.data
        scales = data.feature_scales or ((0.0, 1.0),) * len(data.features)
        return cls(
            rate_hz=data.rate_hz,
            length=round(data.rate_hz * data.segment_s),
            channels=tuple(role for role in data.channels if role != data.target),
            scaling=data.scaling,
            crop_s=data.crop_s,
            crops=data.crops,
            band_hz=None if data.band_hz is None else (float(data.band_hz[0]), float(data.band_hz[1])),
            band_order=data.band_order,
            band_design=data.band_design,
            standardise=data.standardise,
            features=tuple(data.features),
            feature_scales=tuple((float(centre), float(spread)) for centre, spread in scales),
        )

    @property
    def samples(self) -> int:
        """Samples that the encoder sees: those of a crop, or of the whole segment."""
        return self.length if self.crop_s is None else round(self.rate_hz * self.crop_s)

    @property
    def shape(self) -> tuple[int, int]:
        """Channels, features among them, and samples that the encoder sees."""
        return len(self.channels) + len(self.features), self.samples

    def shape_of(self, segment_CT: Any) -> tuple[int, int]:
        """Return channels and samples that the encoder sees of `segment_CT` (..., C, T), whatever its length."""
        return self.shape[0], segment_CT.shape[-1] if self.crop_s is None else self.samples


def prepare_input(
    segment_CT: jax.Array, scale_C2: jax.Array, inputs: Input, start: jax.Array | int | None = None
) -> jax.Array:
    """Return what the encoder sees of stored segments: scaled, cropped, band-passed, standardised, float32.

    `segment_CT` (B, ..., C, T) int16 and `scale_C2` (B, ..., C, 2) float32 as in `scaling.scale`, B the batch; C counts
    the recorded channels, then those that are stored to be learnt and not seen, then the features.
    `start` is the first sample of the crop, one for all or one for each segment (...); None: the crop in the middle. A
    channel of gain 0, which does not move or is not there, gives zeros and counts in no statistic. Raises UserError for
    unknown names of scaling, band_design and standardise, and for segments too short to filter.
    """
    if start is None and inputs.crop_s is not None:
        start = fixed_starts(segment_CT.shape[-1], inputs.samples, 1)[0]
    recorded = len(inputs.channels)
    x_CT = scale(segment_CT[..., :recorded, :], scale_C2[..., :recorded, :], inputs.scaling)
    if inputs.crop_s is not None:
        x_CT = _cut(x_CT, start, inputs.samples)
    if inputs.band_hz is not None:
        x_CT = band_pass(x_CT, inputs.rate_hz, inputs.band_hz, inputs.band_order, inputs.band_design)
    x_CT = _standardise(x_CT, scale_C2[..., :recorded, 1:] > 0, inputs.standardise)
    if not inputs.features:
        return x_CT
    first = -len(inputs.features)
    feature_FT = _scale_features(segment_CT[..., first:, :], scale_C2[..., first:, :], inputs)
    if inputs.crop_s is not None:
        feature_FT = _cut(feature_FT, start, inputs.samples)
    return jnp.concatenate([x_CT, feature_FT], axis=-2)


def prepare_batch(batch: Mapping[str, jax.Array], inputs: Input, key: jax.Array | None = None) -> jax.Array:
    """Return x_BMCT of a batch, each member cropped at random under `key`, or in the middle without one.

    `key` may be that of the augmentation: a name is folded in, then row and member.
    """
    segment_BMCT, start_BM = batch["segment_BMCT"], None
    if key is not None and inputs.crop_s is not None:
        places = segment_BMCT.shape[-1] - inputs.samples + 1
        key_BM = row_keys(jax.random.fold_in(key, _CROP), batch["row_BM"])
        start_BM = jax.vmap(jax.vmap(lambda key: jax.random.randint(key, (), 0, places)))(key_BM)
    return prepare_input(segment_BMCT, batch["scale_BMC2"], inputs, start_BM)


def prepare_crops(segment_BCT: jax.Array, scale_BC2: jax.Array, inputs: Input) -> jax.Array:
    """Return the fixed crops of stored segments, x_BCT (segments x crops, C, samples), segment by segment."""
    starts = fixed_starts(segment_BCT.shape[-1], inputs.samples, inputs.crops)
    crops = [prepare_input(segment_BCT, scale_BC2, inputs, start) for start in starts]
    return jnp.stack(crops, axis=1).reshape(-1, *crops[0].shape[1:])


def prepare_physical(x_BCT: jax.Array, inputs: Input) -> jax.Array:
    """Return `prepare_crops` of float32 segments in physical units at the rate of `inputs`.

    Any unit will do unless the scaling is `physical` or `joint`. A channel that does not move counts as not there.
    """
    return prepare_crops(*full_scale(x_BCT), inputs)


def join_crops(tok_BLD: jax.Array, crops: int) -> jax.Array:
    """Return the tokens of each segment, (segments, crops x L, D), from those of its crops (segments x crops, L, D)."""
    return tok_BLD.reshape(-1, crops * tok_BLD.shape[1], tok_BLD.shape[2])


def fixed_starts(length: Any, samples: int, crops: int) -> list[Any]:
    """Return the first samples of `crops` crops spread evenly over `length`, from start to end; one lies in the middle.

    `length` may be a dimension of unknown size of an exported program; then so are they.
    """
    if crops == 1:
        return [(length - samples) // 2]
    return [(length - samples) * place // (crops - 1) for place in range(crops)]


def _cut(x_CT: jax.Array, start: Any, samples: int) -> jax.Array:
    cut = jnp.vectorize(
        lambda x_CT, start: jax.lax.dynamic_slice_in_dim(x_CT, start, samples, axis=-1), signature="(c,t),()->(c,n)"
    )
    return cut(x_CT, start)


def _scale_features(segment_FT: jax.Array, scale_F2: jax.Array, inputs: Input) -> jax.Array:
    """Return feature channels less their centres, over their spreads; zeros, of a feature that is not there, stay."""
    offset_F1, gain_F1 = scale_F2[..., :1], scale_F2[..., 1:]
    log_F1 = np.array([[FEATURES[name].scaling == "log_z_score"] for name in inputs.features])
    centre_F1, spread_F1 = np.array(inputs.feature_scales, np.float32).T[..., None]
    value_FT = offset_F1 + gain_F1 * segment_FT.astype(jnp.float32)
    value_FT = jnp.where(_lead(log_F1, value_FT), jnp.log1p(jnp.maximum(value_FT, 0.0)), value_FT)
    scaled_FT = (value_FT - _lead(centre_F1, value_FT)) / _lead(spread_F1, value_FT)
    return jnp.where((gain_F1 > 0) | (offset_F1 != 0), scaled_FT, 0.0)


def _lead(x_F1: np.ndarray, like_FT: jax.Array) -> np.ndarray:
    """Return `x_F1` with as many leading axes as `like_FT` has."""
    return x_F1.reshape((1,) * (like_FT.ndim - 2) + x_F1.shape)


def _standardise(x_CT: jax.Array, moves_C1: jax.Array, kind: str) -> jax.Array:
    """Return `x_CT` standardised; channels that do not move are zeros before and after.

    `z_score`: mean 0 and deviation 1 over all channels and samples together (ST-MEM); `unit`: each channel to [0, 1]
    (SIGMA-PPG). What has no spread gives zeros.
    """
    match kind:
        case "none":
            return x_CT
        case "unit":
            low_C1, high_C1 = x_CT.min(-1, keepdims=True), x_CT.max(-1, keepdims=True)
            return (x_CT - low_C1) / jnp.where(high_C1 > low_C1, high_C1 - low_C1, 1.0)
        case "z_score":
            numbers = jnp.maximum(moves_C1.sum((-2, -1), keepdims=True), 1) * x_CT.shape[-1]
            centred_CT = jnp.where(moves_C1, x_CT - x_CT.sum((-2, -1), keepdims=True) / numbers, 0.0)
            deviation = jnp.sqrt((centred_CT**2).sum((-2, -1), keepdims=True) / numbers)
            return centred_CT / jnp.where(deviation > 0, deviation, 1.0)
    raise UserError(Fault("data.standardise", kind, f"one of {', '.join(STANDARDISATIONS)}"))
