"""One channel of segments of one length, scored: its beats, its artefacts, its rate, every term of both variants.

scored = score_channel("ppg", find_gaps(x_BN, 125.0), duration_s=30.0, length=9000)
scored.terms["waveform"]
"""

from dataclasses import dataclass

import numpy as np

from jaxbio.signals import author, disturbances, filters, quality
from jaxbio.signals.artefacts import Gaps, from_unit, to_unit
from jaxbio.signals.beats import DETECTION_HZ, Beats, Read, find_r_peaks, neighbour_means, rate_bpm
from jaxbio.signals.likeness import find_likeness
from jaxbio.signals.pulses import IsWhole, read_pulses

ANALYSIS_HZ = 300.0  # scores are those of this rate, whatever rate a store has (QualityFM: 300)
# Of an ECG: wider windows hold the next beat of fast fibrillation
_ECG_BEFORE_S, _ECG_AFTER_S, _ECG_STEP_S = 0.06, 0.26, 1 / 150
# How far beyond its own quietest part a baseline may sway: an ECG is read on one that always does
_SWAY_QUIET = {"ecg": 8.0, "ppg": 4.0, "abp": 4.0}
LEAST_USABLE = 0.3  # of a segment: a rate from less is in doubt


@dataclass(frozen=True)
class Scored:
    """One channel of B segments: resampled signal, its beats, its artefacts on the common grid, its rate, its terms.

    unread_BK is True in the cells of that grid where no beat can be relied on: samples are lost, or the nearest beat is
    worth less than a half or 1.5 s away. rate_bpm_B is NaN where there are too few beats, and where the rate is in
    doubt (`terms["rate_doubt"]`).
    """

    x_BT: np.ndarray
    beats: Beats
    artefact_BK: np.ndarray
    unread_BK: np.ndarray
    rate_bpm_B: np.ndarray
    terms: dict[str, np.ndarray]


def score_channel(
    kind: str, gaps: Gaps, duration_s: float, length: int, author_rate_bpm: tuple[float, float] = (40.0, 120.0)
) -> Scored:
    """Return one channel's signal at the target length and everything known of it, from one FFT of the raw signal.

    `kind` is a kind of `config.roles`: ecg, ppg or abp.
    """
    unit_BN = to_unit(gaps)
    samples = unit_BN.shape[-1]
    spectrum_BS = filters.spectrum(unit_BN)

    def at(samples_out: int) -> np.ndarray:
        if samples_out == samples:
            return unit_BN
        return filters.from_spectrum(spectrum_BS, samples=samples, length=samples_out)

    analysed_BT = at(round(duration_s * ANALYSIS_HZ))
    target_BT = analysed_BT if analysed_BT.shape[-1] == length else at(length)
    detected_BT = at(round(duration_s * DETECTION_HZ))
    is_whole = _whole_spans(gaps.lost_BN, samples / duration_s)
    if kind == "ecg":
        found = _read_ecg(analysed_BT, find_r_peaks(detected_BT, DETECTION_HZ), is_whole)
    else:
        found = read_pulses(detected_BT, is_whole, DETECTION_HZ)
    beats = found.beats

    cells = disturbances.count_cells(duration_s)
    lost_BK, pinned_BK = (
        disturbances.cells_of(flag_BN, cells) for flag_BN in (gaps.lost_BN | gaps.clipped_BN, gaps.pinned_BN)
    )
    worth_BK = disturbances.spread(beats, found.worth_J, cells, duration_s)
    artefact_BK = disturbances.find_artefacts(analysed_BT, lost_BK, pinned_BK, worth_BK, sway_quiet=_SWAY_QUIET[kind])
    holes_B = filters.share(gaps.missing_BN & ~gaps.lost_BN)
    usable_B = np.where(artefact_BK, 0, worth_BK).mean(axis=-1) * (1 - holes_B)
    # no interval across a gap counts for the rate
    before_J = np.concatenate([beats.time_J[:1], beats.time_J[:-1]])
    rate_bpm_B = rate_bpm(beats, duration_s, is_whole(beats.row_J, before_J, beats.time_J))
    doubt_B = found.doubt_B | (usable_B < LEAST_USABLE) | np.isnan(rate_bpm_B)
    terms = {
        "missing_frac": filters.share(gaps.missing_BN),
        "clipped_frac": filters.share(gaps.clipped_BN),
        "artefact_frac": artefact_BK.mean(axis=-1),
        "beats": beats.count_B,
        "rate_doubt": doubt_B,
    }
    power_BS = filters.hann_power(spectrum_BS, stop=int(150 * duration_s) + 1)
    if kind == "ecg":
        terms |= quality.ecg_waveform(usable_B, power_BS, duration_s)
        terms["author"] = author.ecg_score(beats, author_rate_bpm)
    else:
        terms |= {"inverted": found.inverted_B} | quality.pulse_waveform(usable_B, power_BS, duration_s)
        terms |= author.ppg_score(analysed_BT, ANALYSIS_HZ)
    return Scored(
        from_unit(target_BT, gaps),
        beats,
        artefact_BK,
        disturbances.cells_of(gaps.lost_BN, cells) | (worth_BK < disturbances.LEAST_WORTH),
        np.where(doubt_B, np.nan, rate_bpm_B),
        terms,
    )


def _read_ecg(analysed_BT: np.ndarray, beats: Beats, is_whole: IsWhole) -> Read:
    """Return the beats of an ECG and what each is worth (J,); one cut off is worth what its neighbours are."""
    whole_J = is_whole(beats.row_J, beats.time_J - _ECG_BEFORE_S, beats.time_J + _ECG_AFTER_S)
    best_J, _ = find_likeness(
        analysed_BT,
        beats,
        whole_J,
        rate_hz=ANALYSIS_HZ,
        before_s=_ECG_BEFORE_S,
        after_s=_ECG_AFTER_S,
        step_s=_ECG_STEP_S,
    )
    worth_J = quality.ecg_worth(best_J, beats.row_J)
    beside_J = neighbour_means(worth_J, beats.row_J, 2)
    worth_J = np.nan_to_num(np.where(np.isnan(worth_J), beside_J, worth_J))
    return Read(beats, worth_J, doubt_B=np.zeros(len(analysed_BT), bool), inverted_B=np.zeros(len(analysed_BT), bool))


def _whole_spans(missing_BN: np.ndarray, rate_hz: float) -> IsWhole:
    """Return what says of spans (J), from start to stop in seconds of a row, which have no missing sample."""
    if not missing_BN.any():
        return lambda row_J, start_J, stop_J: np.ones(len(row_J), bool)
    total_BN = filters.extended(np.cumsum(missing_BN, axis=-1, dtype=np.int32), 1, 0, 0)

    def is_whole(row_J: np.ndarray, start_J: np.ndarray, stop_J: np.ndarray) -> np.ndarray:
        first_J = np.floor(start_J * rate_hz).astype(np.intp).clip(0, missing_BN.shape[-1])
        last_J = np.ceil(stop_J * rate_hz).astype(np.intp).clip(0, missing_BN.shape[-1])
        return total_BN[row_J, last_J] == total_BN[row_J, first_J]

    return is_whole
