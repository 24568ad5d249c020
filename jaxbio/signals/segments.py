"""From raw windows of one length to segments with scores: the one entry of preparation into signals.

measured = measure({"ppg": x_BN, "ecg": y_BN}, rate_hz=300.0, length=9000, channels=("ppg", "ecg"))
measured.x_BCT, measured.reason_B, measured.columns["quality_waveform"]
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxbio.signals import disturbances
from jaxbio.signals.artefacts import find_gaps
from jaxbio.signals.channel import ANALYSIS_HZ, score_channel

REASONS: tuple[str, ...] = ("kept", "infinite", "missing", "constant")  # where several hold, the first counts
ROLES: tuple[str, ...] = ("ppg", "ecg", "abp")
MIN_S = 5.0
RATE_COLUMNS = {"ecg": "heart_rate_bpm", "ppg": "pulse_rate_bpm", "abp": "abp_rate_bpm"}
_BLOCK = 40  # segments measured at once: more fall out of the processor's cache


@dataclass(frozen=True)
class Measured:
    """Segments and what is known of them.

    x_BCT: float32, physical units, resampled, gaps filled linearly. reason_B: uint8 index into REASONS, 0 for a
    segment that is kept. columns: (B,) float32 each, for the store's table; see `measure`.
    """

    x_BCT: np.ndarray
    reason_B: np.ndarray
    columns: dict[str, np.ndarray]


def measure(
    raw: Mapping[str, np.ndarray],
    *,
    rate_hz: float,
    length: int,
    channels: Sequence[str],
    author_rate_bpm: tuple[float, float] = (40.0, 120.0),
    max_missing_frac: float = 0.2,
) -> Measured:
    """Return segments of `length` samples at rate_hz, the reason to reject each, and every score and its terms.

    `raw` has (B, N) float32 by role, NaN where missing; all span length / rate_hz seconds, N may differ by role. A
    row's result does not depend on the rows beside it, to the last bit.

    Columns, (B,) float32: missing_frac (largest of the channels; NaN or flat), artefact_frac (share of the segment
    where some channel is artefact, see `disturbances`), quality_waveform, quality_author (means over channels),
    heart_rate_bpm, pulse_rate_bpm, abp_rate_bpm (NaN where unknown); and by channel, prefixed by its role:
    missing_frac, clipped_frac, artefact_frac, beats, template, band, waveform, author, for pulses also snr and
    author_snr, author_perf, author_skew, author_rel, author_ent.

    Raises ValueError for a role that has no score or no signal, for less than 5 s, and for unlike numbers of rows.
    """
    if unknown := [role for role in channels if role not in ROLES or role not in raw]:
        raise ValueError(f"no score or no signal for the channel roles {unknown}; known: {', '.join(ROLES)}")
    if length / rate_hz < MIN_S - 1e-9:
        raise ValueError(f"{length / rate_hz:g} s cannot be scored; at least {MIN_S:g} s")
    rows = {role: len(raw[role]) for role in channels}
    if len(set(rows.values())) != 1 or not rows[channels[0]]:
        raise ValueError(f"the channels need as many rows each, at least one: {rows}")
    parts = []
    for first in range(0, rows[channels[0]], _BLOCK):
        block = {role: np.asarray(raw[role][first : first + _BLOCK], np.float32) for role in channels}
        parts.append(_measure_block(block, rate_hz, length, author_rate_bpm, max_missing_frac))
    if len(parts) == 1:
        return parts[0]
    return Measured(
        x_BCT=np.concatenate([part.x_BCT for part in parts]),
        reason_B=np.concatenate([part.reason_B for part in parts]),
        columns={name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns},
    )


def _measure_block(
    raw: Mapping[str, np.ndarray],
    rate_hz: float,
    length: int,
    author_rate_bpm: tuple[float, float],
    max_missing_frac: float,
) -> Measured:
    """Return what `measure` does, of a number of segments that the processor's cache holds."""
    rows, duration_s = len(next(iter(raw.values()))), length / rate_hz
    x_BCT = np.empty((rows, len(raw), length), np.float32)
    artefact_BK = np.zeros((rows, disturbances.count_cells(duration_s)), bool)
    reasons = {reason: np.zeros(rows, bool) for reason in REASONS[1:]}
    columns: dict[str, np.ndarray] = {}
    for number, (role, x_BN) in enumerate(raw.items()):
        gaps = find_gaps(x_BN, x_BN.shape[1] / duration_s)
        scored = score_channel(role, gaps, duration_s, length, author_rate_bpm)
        x_BCT[:, number] = scored.x_BT
        artefact_BK |= scored.artefact_BK
        columns[RATE_COLUMNS[role]] = scored.rate_bpm_B
        columns |= {f"{role}_{name}": value_B for name, value_B in scored.terms.items()}
        reasons["infinite"] |= gaps.infinite_B
        reasons["missing"] |= gaps.nan_frac_B > max_missing_frac
        reasons["constant"] |= gaps.constant_B
    columns["artefact_frac"] = artefact_BK.mean(axis=-1)
    columns["missing_frac"] = np.max([columns[f"{role}_missing_frac"] for role in raw], axis=0)
    for variant in ("waveform", "author"):
        columns[f"quality_{variant}"] = np.mean([columns[f"{role}_{variant}"] for role in raw], axis=0)
    reason_B = np.select(list(reasons.values()), [np.uint8(k) for k in range(1, len(REASONS))], np.uint8(0))
    return Measured(x_BCT, reason_B, {name: column.astype(np.float32) for name, column in columns.items()})
