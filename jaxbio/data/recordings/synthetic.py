"""Synthetic recordings: synthetic:<segments>, for trying things out and for tests; never mixed in silently.

`synthetic:1600` is 1,600 segments of 30 s in recordings of five minutes, two recordings a subject. Rhythm changes from
subject to subject; artefacts come and go within a recording, so that neighbours differ in quality and pairs exist.
Everything follows from the seed, recording by recording.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxbio.config.faults import Fault, UserError
from jaxbio.config.roles import LEADS, printed
from jaxbio.data.recordings.channels import find_roles
from jaxbio.data.recordings.recording import HIGHEST_RATE_HZ, Channel, Recording, Refused, sample_span
from jaxbio.data.recordings.source import Source
from jaxbio.signals.patients import Course, draw_course, draw_patient, record
from jaxbio.signals.synthetic import plant, random_artefacts
from jaxbio.signals.synthetic_leads import project

RATE_HZ = 125.0  # what bedside monitors store
SEGMENT_S, _SEGMENTS_A_RECORDING = 30.0, 10
_RECORDINGS_A_SUBJECT = 2
_SIGNALS = {"ppg": ("PLETH", "NU"), "ecg": ("II", "mV"), "abp": ("ABP", "mmHg")}
_LEADS = {lead: (printed(lead), "mV") for lead in LEADS if lead != "ii"}  # made only where one is read
# Two in five subjects have another rhythm than sinus, as in an intensive care unit.
_RHYTHMS = ("sinus", "sinus", "af", "sinus", "ectopy", "sinus", "vt", "tachycardia", "sinus", "bigeminy")
_ARTEFACT_SHARES = (0.1, 0.3, 0.5)  # of a recording's time, by channel: a quiet patient to a restless one
_SHORTEST_S = 5.0  # an artefact


def list_files(source: Source, channel_names: Mapping[str, Sequence[str]]) -> Iterator[Recording | Refused]:
    """Yield recordings that hold the number of segments which the source's path states."""
    segments = int(source.path) if source.path.isascii() and source.path.isdigit() else 0
    if not 0 < segments <= 10**7:
        raise UserError(
            Fault("--source", f"synthetic:{source.path}", "state a number of 30-s segments: synthetic:1600")
        )
    rate_hz = source.options.rate_hz or RATE_HZ
    if not RATE_HZ <= rate_hz <= HIGHEST_RATE_HZ:
        remedy = f"from {RATE_HZ:g} Hz, which carries mains hum and muscle noise, to {HIGHEST_RATE_HZ:g} Hz"
        raise UserError(Fault("--source", f"synthetic:{source.path}?rate_hz={rate_hz:g}", remedy))
    made = {**_SIGNALS, **_LEADS}
    signals = list(made)
    roles = find_roles([name for name, _ in made.values()], channel_names)
    for number, first in enumerate(range(0, segments, _SEGMENTS_A_RECORDING)):
        segments_here = min(_SEGMENTS_A_RECORDING, segments - first)
        channels = {role: Channel(*made[signals[index]], rate_hz, index) for role, index in roles.items()}
        yield Recording(
            source=source.name,
            subject=f"seed{source.options.seed}-subject{number // _RECORDINGS_A_SUBJECT:06d}",
            subject_known=True,
            recording=f"seed{source.options.seed}-{number:06d}",
            duration_s=segments_here * SEGMENT_S,
            start_time=None,
            channels=channels,
            reader=SyntheticReader(source.options.seed, number, segments_here, rate_hz),
            signals=tuple(name for name, _ in made.values()),
        )


@dataclass(frozen=True)
class SyntheticReader:
    """Makes one recording, and keeps the last one made."""

    seed: int
    number: int
    segments: int
    rate_hz: float

    def read(self, channels: Mapping[str, Channel], start_s: float, stop_s: float) -> dict[str, np.ndarray]:
        """Return the samples of `channels` (by role), as Recording.read does."""
        signals = list(make_signals(self).values())
        if any(channel.index >= len(signals) for channel in channels.values()):
            leads = make_leads(self)
            signals += [leads[lead] for lead in _LEADS]
        spans = {role: slice(*sample_span(channel, start_s, stop_s)) for role, channel in channels.items()}
        return {role: signals[channels[role].index][span].copy() for role, span in spans.items()}

    def labels(self, start_s_B: np.ndarray, length_s: float) -> dict[str, np.ndarray]:
        """Return what is true of the spans from `start_s_B` on: LABELS by name, numbers as float32, classes as text."""
        course = draw_recording(self)
        return {**course.truth(start_s_B, length_s), "rhythm": np.full(len(start_s_B), course.patient.rhythm)}


def draw_recording(reader: SyntheticReader) -> Course:
    """Return what happens in the recording: two in a row are of the same patient."""
    subject = reader.number // _RECORDINGS_A_SUBJECT
    patient = draw_patient((reader.seed, subject), rhythm=_RHYTHMS[subject % len(_RHYTHMS)])
    return draw_course(patient, (reader.seed, reader.number, 1), duration_s=reader.segments * SEGMENT_S)


@functools.lru_cache(maxsize=1)
def make_signals(reader: SyntheticReader) -> dict[str, np.ndarray]:
    """Return the whole recording with its artefacts: role -> float32 signal."""
    duration_s = reader.segments * SEGMENT_S
    rng = np.random.default_rng((reader.seed, reader.number, 2))
    share = float(rng.choice(_ARTEFACT_SHARES))
    planted = random_artefacts(int(rng.integers(2**31)), duration_s, share=share, channels=("ppg", "ecg"))
    # One that the end of the recording cuts off may be too short for the slow noise it stands for.
    long_enough = [artefact for artefact in planted if artefact.stop_s - artefact.start_s >= _SHORTEST_S]
    clean = record(draw_recording(reader), (reader.seed, reader.number, 3), rate_hz=reader.rate_hz)
    return plant(clean, long_enough, rng, reader.rate_hz)


@functools.lru_cache(maxsize=1)
def make_leads(reader: SyntheticReader) -> dict[str, np.ndarray]:
    """Return the whole recording's twelve leads: role -> float32 signal; its ECG is lead II."""
    subject = reader.number // _RECORDINGS_A_SUBJECT
    patient_seed, noise_seed = (reader.seed, subject), (reader.seed, reader.number, 4)
    return project(patient_seed, noise_seed, make_signals(reader)["ecg"], reader.rate_hz)
