"""How feature channels are scaled: a centre and a spread for each, of the subjects that a run trains on alone.

What is fitted here goes into the run's configuration (`data.feature_scales`), from there into checkpoints and cards. So
no validation subject, and nobody whom an export is judged on, has a say in it.

    fit_scales(stores, ("heart_rate", "sdnn"), train_rows_N)     # ((71.2, 14.9), (3.4, 0.9))
"""

import numpy as np

from jaxbio.config.features import FEATURES
from jaxbio.data.several import Stores

_MOST_ROWS = 20_000  # read of a large store, spread evenly: enough for three digits
_AT_ONCE = 256
_MOST_VALUES = 2_000_000  # kept for medians

Scales = tuple[tuple[float, float], ...]


def fit_scales(stores: Stores, names: tuple[str, ...], row_N: np.ndarray) -> Scales:
    """Return (centre, spread) of each of the stores' features over the rows `row_N`, the ones to train on.

    Segments that do not define a feature, and samples where the ST deviation is 0 by definition, have no part in it.
    What does not vary has spread 1.
    """
    row_N = np.unique(row_N)
    row_N = row_N[np.arange(min(_MOST_ROWS, len(row_N))) * len(row_N) // max(1, min(_MOST_ROWS, len(row_N)))]
    samples = stores.record_CT[1]
    step = max(1, len(row_N) * samples // _MOST_VALUES)
    values: list[list[np.ndarray]] = [[] for _ in names]
    for first in range(0, len(row_N), _AT_ONCE):
        rows = row_N[first : first + _AT_ONCE]
        segment_NFT = stores.read(rows)[:, -len(names) :, ::step]
        offset_NF1, gain_NF1 = np.split(stores.scale_NC2[rows][:, -len(names) :], 2, axis=-1)
        value_NFT = offset_NF1 + gain_NF1 * segment_NFT.astype(np.float32)
        defined_NF = ((gain_NF1 > 0) | (offset_NF1 != 0))[..., 0]
        for place in range(len(names)):
            values[place].append(value_NFT[defined_NF[:, place], place].ravel())
    return tuple(_fit(np.concatenate(parts), name) for parts, name in zip(values, names, strict=True))


def _fit(value_N: np.ndarray, name: str) -> tuple[float, float]:
    """Return centre and spread of a feature's values, as its scaling wants them."""
    kind, centre, spread = FEATURES[name].scaling, 0.0, 1.0
    value_N = value_N.astype(np.float64)
    if kind == "robust":
        value_N = value_N[np.abs(value_N) > 1e-4 * np.abs(value_N).max(initial=0)]  # else most samples are its zeros
    if kind == "none" or not value_N.size:
        return centre, spread
    match kind:
        case "z_score":
            centre, spread = value_N.mean(), value_N.std()
        case "log_z_score":
            log_N = np.log1p(np.maximum(value_N, 0))
            centre, spread = log_N.mean(), log_N.std()
        case "robust":
            low, centre, high = np.quantile(value_N, (0.25, 0.5, 0.75))
            spread = high - low
        case "range":
            low, high = value_N.min(), value_N.max()
            centre, spread = (low + high) / 2, (high - low) / 2
    return float(centre), float(spread) if spread > 1e-9 * max(abs(centre), 1.0) else 1.0
