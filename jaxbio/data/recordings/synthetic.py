"""Synthetic recordings: synthetic:<segments>, for trying things out and for tests; never mixed in silently.

`synthetic:1600` is 1,600 segments of 30 s in recordings of five minutes, two recordings a subject. Rhythm changes from
subject to subject, artefacts from half minute to half minute, so that neighbours differ in quality and pairs exist.
Everything follows from the seed, recording by recording.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.recordings.channels import find_roles
from jaxbio.data.recordings.recording import Channel, Recording, Refused, sample_span
from jaxbio.data.recordings.source import Source

RATE_HZ = 125.0  # what bedside monitors store
_PIECE_S, _PIECES = 30.0, 10  # artefacts change with each piece
_RECORDINGS_A_SUBJECT = 2
_SIGNALS = {"ppg": ("PLETH", "NU"), "ecg": ("II", "mV"), "abp": ("ABP", "mmHg")}
# Two in five subjects have another rhythm than sinus, as in an intensive care unit.
_RHYTHMS = ("sinus", "sinus", "af", "sinus", "ectopy", "sinus", "sinus", "tachycardia", "sinus", "bigeminy")
# What a piece suffers, and how likely: None leaves it clean.
_KINDS = (None, "white", "wander", "mains", "emg", "motion")
_SHARES = (0.35, 0.15, 0.1, 0.1, 0.1, 0.2)
_SNR_DB = (-8.0, 15.0)  # from a lost signal to a blemish


def list_files(source: Source, channel_names: Mapping[str, Sequence[str]]) -> Iterator[Recording | Refused]:
    """Yield recordings that hold the number of segments which the source's path states."""
    segments = int(source.path) if source.path.isascii() and source.path.isdigit() else 0
    if not 0 < segments <= 10**7:
        raise UserError(
            Fault("--source", f"synthetic:{source.path}", "state a number of 30-s segments: synthetic:1600")
        )
    rate_hz = source.options.rate_hz or RATE_HZ
    signals = list(_SIGNALS)
    roles = find_roles([name for name, _ in _SIGNALS.values()], channel_names)
    for number, first in enumerate(range(0, segments, _PIECES)):
        pieces = min(_PIECES, segments - first)
        channels = {role: Channel(*_SIGNALS[signals[index]], rate_hz, index) for role, index in roles.items()}
        yield Recording(
            source=source.name,
            subject=f"seed{source.options.seed}-subject{number // _RECORDINGS_A_SUBJECT:06d}",
            subject_known=True,
            recording=f"seed{source.options.seed}-{number:06d}",
            duration_s=pieces * _PIECE_S,
            start_time=None,
            channels=channels,
            reader=SyntheticReader(source.options.seed, number, pieces, rate_hz),
        )


@dataclass(frozen=True)
class SyntheticReader:
    """Makes one recording, and keeps the last one made."""

    seed: int
    number: int
    pieces: int
    rate_hz: float

    def read(self, channels: Mapping[str, Channel], start_s: float, stop_s: float) -> dict[str, np.ndarray]:
        """Return the samples of `channels` (by role), as Recording.read does."""
        signals = list(make_signals(self).values())
        spans = {role: slice(*sample_span(channel, start_s, stop_s)) for role, channel in channels.items()}
        return {role: signals[channels[role].index][span].copy() for role, span in spans.items()}


@functools.lru_cache(maxsize=1)
def make_signals(reader: SyntheticReader) -> dict[str, np.ndarray]:
    """Return the whole recording: role -> float32 signal."""
    from jaxbio.signals import synthetic

    rng = np.random.default_rng((reader.seed, reader.number))
    made = synthetic.recording(
        int(rng.integers(2**31)),
        duration_s=reader.pieces * _PIECE_S,
        rate_hz=reader.rate_hz,
        rhythm=_RHYTHMS[reader.number // _RECORDINGS_A_SUBJECT % len(_RHYTHMS)],
    )
    signals = {role: np.array(getattr(made, role), np.float64) for role in _SIGNALS}
    length = round(_PIECE_S * reader.rate_hz)
    for first in range(0, reader.pieces * length, length):
        for role, signal in signals.items():
            kind = _KINDS[rng.choice(len(_KINDS), p=_SHARES)]
            snr_db = float(rng.uniform(*_SNR_DB))
            if kind is not None and role != "abp":
                piece = signal[first : first + length]
                signal[first : first + length] = synthetic.add_noise(piece, kind, snr_db, rng, reader.rate_hz)
    return {role: signal.astype(np.float32) for role, signal in signals.items()}
