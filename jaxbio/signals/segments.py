"""From raw windows of one length to segments with scores: the one entry of preparation into signals.

measured = measure({"ppg": x_BN, "ecg": y_BN}, rate_hz=300.0, length=9000, channels=("ppg", "ecg"))
measured.x_BCT, measured.reason_B, measured.columns["quality_waveform"]
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxbio.config.roles import ROLES, kind_of
from jaxbio.signals import disturbances, filters
from jaxbio.signals.artefacts import find_gaps, from_unit, padded_frac, to_unit
from jaxbio.signals.beats import finite_median
from jaxbio.signals.channel import Scored, score_channel
from jaxbio.signals.cross_channel import follow_frac
from jaxbio.signals.limb_leads import doubt_leads

REASONS: tuple[str, ...] = ("kept", "infinite", "missing", "constant")  # where several hold, the first counts
MIN_S = 5.0
RATE_COLUMNS = {"ecg": "heart_rate_bpm", "ppg": "pulse_rate_bpm", "abp": "abp_rate_bpm"}  # by kind of channel
_BLOCK = 64  # segments measured at once: fewer spend their time on calls, more fall out of the processor's cache


@dataclass(frozen=True)
class Measured:
    """Segments and what is known of them.

    x_BCT: float32, physical units, resampled, gaps filled linearly; zeros where masked. reason_B: uint8 index into
    REASONS, 0 for a segment that is kept. present_BC: bool, False where a kept segment's channel is masked. columns:
    (B,) float32 each, for the store's table; see `measure`.
    """

    x_BCT: np.ndarray
    reason_B: np.ndarray
    present_BC: np.ndarray
    columns: dict[str, np.ndarray]


def measure(
    raw: Mapping[str, np.ndarray],
    *,
    rate_hz: float,
    length: int,
    channels: Sequence[str],
    author_rate_bpm: tuple[float, float] = (40.0, 120.0),
    max_missing_frac: float = 0.2,
    missing_channel: str = "refuse",
    cross_channel: str = "off",
) -> Measured:
    """Return segments of `length` samples at rate_hz, the reason to reject each, and every score and its terms.

    `raw` has (B, N) float32 by role, NaN where missing; all span length / rate_hz seconds, N may differ by role. A
    row's result does not depend on the rows beside it, to the last bit.

    A channel that is missing (more than max_missing_frac NaN; or flat, as all others, up to the segment's edges: a
    record that was padded to a length), constant or infinite rejects its segment; where
    `missing_channel` is "mask", that channel is masked instead, and a segment is rejected only if no channel is left.
    Where `cross_channel` is "on" and there is an ECG, pulses are also scored by whether they follow its R peaks.

    Columns, (B,) float32: missing_frac (largest of the channels; NaN or flat), artefact_frac (share of the segment
    where some channel is artefact, see `disturbances`), quality_waveform, quality_author (means over channels),
    heart_rate_bpm, pulse_rate_bpm, abp_rate_bpm (by kind: the median over its channels; NaN where unknown or in
    doubt), with enough leads those of `limb_leads.doubt_leads`; and by channel, prefixed by its role: missing_frac,
    clipped_frac, artefact_frac, beats, rate_doubt (1 where there is no rate to rely on), usable, band, snr, waveform,
    author, for pulses also inverted (1 where upside down), follows (with `cross_channel`) and author_snr, author_perf,
    author_skew, author_rel, author_ent. A waveform score never exceeds 1 - artefact_frac. Of a masked channel all but
    missing_frac are NaN, and what is formed over channels leaves it out.

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
        parts.append(
            _measure_block(block, rate_hz, length, author_rate_bpm, max_missing_frac, missing_channel, cross_channel)
        )
    if len(parts) == 1:
        return parts[0]
    return Measured(
        x_BCT=np.concatenate([part.x_BCT for part in parts]),
        reason_B=np.concatenate([part.reason_B for part in parts]),
        present_BC=np.concatenate([part.present_BC for part in parts]),
        columns={name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns},
    )


def resample_segments(x_BN: np.ndarray, rate_hz: float, length: int) -> np.ndarray:
    """Return raw segments (B, N) float32 at rate_hz, NaN where missing, as `measure` makes them `length` samples.

    To the last bit, so that an encoder in use sees what it saw in training; nothing is scored.
    """
    gaps = find_gaps(x_BN, rate_hz)
    return from_unit(filters.resample(to_unit(gaps), length), gaps)


def _measure_block(
    raw: Mapping[str, np.ndarray],
    rate_hz: float,
    length: int,
    author_rate_bpm: tuple[float, float],
    max_missing_frac: float,
    missing_channel: str,
    cross_channel: str,
) -> Measured:
    """Return what `measure` does, of a number of segments that the processor's cache holds."""
    rows, duration_s = len(next(iter(raw.values()))), length / rate_hz
    x_BCT = np.empty((rows, len(raw), length), np.float32)
    artefact_BCK = np.zeros((rows, len(raw), disturbances.count_cells(duration_s)), bool)
    rate_BC = np.empty((rows, len(raw)))
    fault_BC = {reason: np.zeros((rows, len(raw)), bool) for reason in REASONS[1:]}
    scored_channels, padded_BC = {}, np.zeros((rows, len(raw)))
    for number, (role, x_BN) in enumerate(raw.items()):
        gaps = find_gaps(x_BN, x_BN.shape[1] / duration_s)
        scored = score_channel(kind_of(role), gaps, duration_s, length, author_rate_bpm)
        x_BCT[:, number] = scored.x_BT
        artefact_BCK[:, number] = scored.artefact_BK
        rate_BC[:, number] = scored.rate_bpm_B
        scored_channels[role] = scored
        fault_BC["infinite"][:, number] = gaps.infinite_B
        fault_BC["missing"][:, number] = gaps.nan_frac_B > max_missing_frac
        padded_BC[:, number] = padded_frac(gaps.missing_BN)
        fault_BC["constant"][:, number] = gaps.constant_B
    if len(raw) > 1:  # one signal may be off; all of them at once, up to the edge, were never recorded
        padded_B = padded_BC.min(axis=1)  # 1: nothing moves at all, which is constant
        fault_BC["missing"] |= ((padded_B > max_missing_frac) & (padded_B < 1))[:, None]
    lost_BC = np.any(list(fault_BC.values()), axis=0)
    rejected_B = lost_BC.all(axis=1) if missing_channel == "mask" else lost_BC.any(axis=1)
    reasons = [rejected_B & fault_BC[reason].any(axis=1) for reason in REASONS[1:]]
    reason_B = np.select(reasons, [np.uint8(k) for k in range(1, len(REASONS))], np.uint8(0))
    masked_BC = lost_BC & ~rejected_B[:, None]  # none where one lost channel rejects
    x_BCT[masked_BC] = 0
    artefact_BCK[masked_BC] = False
    rate_BC[masked_BC] = np.nan
    if cross_channel == "on":
        _compare_channels(scored_channels)
    columns = _columns({role: scored.terms for role, scored in scored_channels.items()}, rate_BC, ~masked_BC)
    columns["artefact_frac"] = artefact_BCK.any(axis=1).mean(axis=-1)
    columns |= doubt_leads(x_BCT, tuple(raw), rate_hz)
    columns = {name: value_B.astype(np.float32) for name, value_B in columns.items()}
    return Measured(x_BCT, reason_B, ~masked_BC, columns)


def _compare_channels(scored: Mapping[str, Scored]) -> None:
    """Add to the terms of pulses whether they follow the R peaks, and let their score fall where they do not.

    Half of the pulses beyond chance are enough; R peaks of an ECG that is itself hardly usable say nothing.
    """
    ecg = next((channel for role, channel in scored.items() if kind_of(role) == "ecg"), None)
    if ecg is None:
        return
    for role, channel in scored.items():
        if kind_of(role) != "ecg":
            known_B = ecg.terms["usable"] >= 0.5
            follows_B = np.where(known_B, follow_frac(channel.beats, ecg.beats, ecg.unread_BK), np.nan)
            channel.terms["follows"] = np.nan_to_num(follows_B, nan=1.0)
            channel.terms["waveform"] = channel.terms["waveform"] * np.minimum(1, 2 * channel.terms["follows"])


def _columns(
    terms: Mapping[str, Mapping[str, np.ndarray]], rate_BC: np.ndarray, present_BC: np.ndarray
) -> dict[str, np.ndarray]:
    """Return every column but artefact_frac: terms by role, and what is formed of them over the channels present."""
    columns: dict[str, np.ndarray] = {}
    present_CB, kinds = present_BC.T, np.array([kind_of(role) for role in terms])
    for kind in dict.fromkeys(kinds.tolist()):
        columns[RATE_COLUMNS[kind]] = finite_median(rate_BC[:, kinds == kind])
    for variant in ("waveform", "author"):
        score_CB = np.stack([of_role[variant] for of_role in terms.values()])
        columns[f"quality_{variant}"] = score_CB.mean(axis=0, where=present_CB)
    missing_CB = np.stack([of_role["missing_frac"] for of_role in terms.values()])
    columns["missing_frac"] = missing_CB.max(axis=0, where=present_CB, initial=0)
    for (role, of_role), present_B in zip(terms.items(), present_CB, strict=True):
        for name, value_B in of_role.items():
            hidden_B = ~present_B & (name != "missing_frac")  # which says why a channel is masked
            columns[f"{role}_{name}"] = np.where(hidden_B, np.nan, value_B) if hidden_B.any() else value_B
    return columns
