"""Whether the leads of an ECG can be what they are called: doubts about swapped leads and electrodes, no refusals.

Limb leads that were swapped or misnamed in a file contradict each other (Einthoven, Goldberger: `roles.IN_I_AND_II`).
Swapped arm electrodes do not: they turn lead I over and exchange aVR and aVL, so that lead I and V6, which look at the
heart from the left both, point against each other.

    doubts = doubt_leads(x_BCT, ("i", "ii", "iii", "v6"), rate_hz=250.0)
    tell_doubts(doubts)         # ["3 of 20 segments have limb leads that ..."]
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import fft

from jaxbio.config.roles import IN_I_AND_II
from jaxbio.signals import filters

COLUMNS = ("limb_residual", "arms_swapped")
# Of the size of the leads. 94 real recordings have at most 0.007; with any two limb leads exchanged at least 0.16.
_MOST_RESIDUAL = 0.1
_BAND_HZ = (1.0, 40.0)  # without wander, in which one electrode's lead may lie alone


def doubt_leads(x_BCT: np.ndarray, channels: Sequence[str], rate_hz: float) -> dict[str, np.ndarray]:
    """Return what `channels` (roles) of segments (B, C, T) float32 tell of swaps: (B,) by the names of COLUMNS.

    limb_residual: what three or more limb leads hold that no I and II explain, as a share of them. arms_swapped: 1
    where lead I points against V6, and aVR with it (0 of 94 real recordings, 85 % of them with their arms swapped).
    NaN where leads that it takes are missing, zeros; a name whose leads are none of the channels is left out.
    """
    limbs = [place for place, role in enumerate(channels) if role in IN_I_AND_II]
    place_of = {role: place for place, role in enumerate(channels)}
    has_arms = {"i", "v6"} <= place_of.keys() and not place_of.keys().isdisjoint(("avr", "ii"))
    if len(limbs) < 3 and not has_arms:
        return {}
    response_S = filters.band_response(fft.rfftfreq(x_BCT.shape[-1], 1 / rate_hz), *_BAND_HZ)
    band_BCT = fft.irfft(fft.rfft(x_BCT, axis=-1) * response_S, n=x_BCT.shape[-1], axis=-1)
    size_BC = np.sqrt(np.square(band_BCT).mean(axis=-1))
    found = {}
    if len(limbs) >= 3:
        found["limb_residual"] = _residual(band_BCT[:, limbs], size_BC[:, limbs], [channels[place] for place in limbs])
    if has_arms:
        i_BT, v6_BT = band_BCT[:, place_of["i"]], band_BCT[:, place_of["v6"]]
        avr_BT = band_BCT[:, place_of["avr"]] if "avr" in place_of else -(i_BT + band_BCT[:, place_of["ii"]]) / 2
        used = [place_of["i"], place_of["v6"], place_of["avr" if "avr" in place_of else "ii"]]
        swapped_B = (_product(i_BT, v6_BT) < 0) & (_product(avr_BT, v6_BT) > 0)
        found["arms_swapped"] = np.where((size_BC[:, used] > 0).all(axis=1), swapped_B, np.nan)
    return found


def _product(x_BT: np.ndarray, y_BT: np.ndarray) -> np.ndarray:
    return np.einsum("bt,bt->b", x_BT, y_BT)


def _residual(limb_BCT: np.ndarray, size_BC: np.ndarray, roles: Sequence[str]) -> np.ndarray:
    """Return the share of limb leads that lies outside the plane which I and II span."""
    basis_C2 = np.array([IN_I_AND_II[role] for role in roles], np.float32)
    outside_CC = np.eye(len(roles), dtype=np.float32) - basis_C2 @ np.linalg.pinv(basis_C2)
    # a product of segment by segment: a row's result does not depend on the rows beside it
    rest_BCT = np.einsum("cd,bdt->bct", outside_CC, limb_BCT)
    rest_B = np.sqrt(np.square(rest_BCT).mean(axis=-1)).max(axis=1)
    there_B = (size_BC > 0).all(axis=1)
    return np.where(there_B, rest_B / np.where(there_B, size_BC.mean(axis=1), 1.0), np.nan)


def tell_doubts(columns: Mapping[str, np.ndarray]) -> list[str]:
    """Return in words how many segments (B,) raise which doubt; nothing where none does."""
    words = {
        "limb_residual": "limb leads that contradict each other (as III, which is II - I): swapped, or misnamed",
        "arms_swapped": "a lead I against V6, and an aVR with it: were the arms' electrodes swapped",
    }
    said = []
    for name, doubtful_B in find_doubtful(columns).items():
        if doubtful_B.any():
            said.append(f"{int(doubtful_B.sum()):,} of {len(doubtful_B):,} segments have {words[name]}")
    return said


def find_doubtful(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return which segments (bool, B) are doubtful, by those of COLUMNS that `columns` has; NaN is not."""
    limits = {"limb_residual": _MOST_RESIDUAL, "arms_swapped": 0.5}
    return {name: columns[name] > limits[name] for name in COLUMNS if name in columns}
