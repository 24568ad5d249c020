"""Twelve synthetic leads of one synthetic ECG: a dipole whose projections they are.

The given ECG is lead II. The heart's dipole points along it, and along two directions across it by the same signal a
little earlier and later, so that its loop is open and leads differ in shape, not only in size. Limb leads obey
Einthoven and Goldberger exactly, but for their noise.

    lead_TX = project(0, 1, ecg_T, rate_hz=250.0)["v1"]
"""

from collections.abc import Mapping

import numpy as np
from scipy.ndimage import shift

# Where electrodes look from: (left, down, front). Limb leads follow from I and II; V1 to V6 go round the chest.
_CHEST: Mapping[str, tuple[float, float, float]] = {
    "v1": (-0.50, 0.10, 0.85),
    "v2": (-0.10, 0.15, 1.20),
    "v3": (0.35, 0.30, 1.15),
    "v4": (0.80, 0.45, 0.85),
    "v5": (1.05, 0.45, 0.35),
    "v6": (1.00, 0.40, 0.00),
}
_ACROSS_S = (0.012, -0.018)  # how much later, or earlier, the dipole turns across lead II
_NOISE_MV = 0.006


def project(
    patient_seed: int | tuple[int, ...], noise_seed: int | tuple[int, ...], ecg_T: np.ndarray, rate_hz: float
) -> dict[str, np.ndarray]:
    """Return twelve leads by role, float32 (T,) in mV, of lead II `ecg_T` in mV; `ii` is `ecg_T` itself.

    The dipole's size across lead II, and how the chest lies to it, are the patient's; the leads' noise is that of a
    recording: equal noise would tell two recordings of a patient without a heart.
    """
    rng, noise = np.random.default_rng(patient_seed), np.random.default_rng(noise_seed)
    filled_T = np.nan_to_num(ecg_T.astype(np.float64))
    late_T, early_T = (shift(filled_T, seconds * rate_hz, order=1, mode="nearest") for seconds in _ACROSS_S)
    left_T = rng.uniform(0.4, 0.8) * filled_T + rng.uniform(-0.3, 0.3) * late_T
    front_T = rng.uniform(-0.5, -0.2) * filled_T + rng.uniform(0.2, 0.6) * early_T
    ii_T, i_T = filled_T, left_T
    down_T = (2 * ii_T - i_T) / np.sqrt(3)  # lead II looks from 60 degrees below lead I
    leads = {
        "i": i_T,
        "ii": ii_T,
        "iii": ii_T - i_T,
        "avr": -(i_T + ii_T) / 2,
        "avl": i_T - ii_T / 2,
        "avf": ii_T - i_T / 2,
    }
    for lead, direction in _CHEST.items():
        left, down, front = rng.normal(direction, 0.1)
        leads[lead] = left * left_T + down * down_T + front * front_T
    noisy = {lead: x_T + noise.normal(0, _NOISE_MV, len(x_T)) for lead, x_T in leads.items() if lead != "ii"}
    missing_T = np.isnan(ecg_T)
    return {lead: np.where(missing_T, np.nan, x_T).astype(np.float32) for lead, x_T in {"ii": ecg_T, **noisy}.items()}
