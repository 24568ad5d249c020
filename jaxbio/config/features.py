"""Hand-made feature channels of an ECG: what each is, in which unit, and how it is scaled before a network sees it.

Source: the hybrid input of docs/references.md. `signals/features.py` computes them,
`data/feature_scales.py` fits their scales; a recipe names them in `data.features`.

    FEATURES["sdnn"].scaling        # "log_z_score"
"""

from collections.abc import Mapping
from dataclasses import dataclass

LEAD = "ii"  # all features are of this lead


@dataclass(frozen=True)
class Feature:
    """One feature channel: the `unit` it is computed in, how it is scaled, its `meaning` in words, and whether it
    `varies` within a segment.

    `scaling`: none; z_score: less its mean, over its deviation; log_z_score: the same of log(1 + x); robust: less its
    median, over its interquartile range; range: its smallest and largest value to -1 and 1.
    """

    unit: str
    scaling: str
    meaning: str
    varies: bool = True


FEATURES: Mapping[str, Feature] = {
    "r_peaks": Feature("", "none", "1 at R peaks, else 0"),
    "heart_rate": Feature("1/min", "z_score", "60 over the mean interval of the segment", varies=False),
    "rolling_heart_rate": Feature("1/min", "z_score", "60 over the mean interval of some ten seconds"),
    "st_deviation": Feature("mV", "robust", "ST segment less what precedes the QRS, 0 elsewhere"),
    "qrs_amplitude": Feature("mV", "range", "median value at R peaks", varies=False),
    "sdnn": Feature("ms", "log_z_score", "deviation of the intervals", varies=False),
    "rmssd": Feature("ms", "log_z_score", "root mean square of the change from one interval to the next", varies=False),
    "wavelet_a1": Feature("mV", "z_score", "stationary wavelet transform, approximation of level 1"),
    "wavelet_d2": Feature("mV", "z_score", "its detail of level 2"),
    "wavelet_d1": Feature("mV", "z_score", "its detail of level 1"),
    "wavelet_d3": Feature("mV", "z_score", "its detail of level 3"),
}
# What a network can tell that takes the mean off every patch; of the others it sees that they are there.
VARYING = tuple(name for name, feature in FEATURES.items() if feature.varies)
