"""Synthetic recordings as a source: deterministic, of several qualities, spans equal the whole."""

import numpy as np
import pytest
from small_files import NAMES

from jaxbio.config.faults import UserError
from jaxbio.data.recordings import list_recordings, parse_source
from jaxbio.data.recordings.synthetic import make_signals
from jaxbio.signals.segments import measure


def listed(line):
    return list_recordings(parse_source(line), NAMES, required=("ppg", "ecg"), min_duration_s=30.0)


def test_segments_are_those_asked_for_over_many_subjects():
    entries = listed("synthetic:125")
    assert sum(entry.duration_s for entry in entries) == 125 * 30.0
    assert len({entry.recording for entry in entries}) == 13
    assert len({entry.subject for entry in entries}) == 7
    assert {entry.source for entry in entries} == {"synthetic"}


def test_a_recording_follows_from_its_seed_and_number_alone():
    first, second = listed("synthetic:20")
    again = listed("synthetic:400")[0].read(0.0, 300.0, ["ppg", "ecg"])
    make_signals.cache_clear()
    for role, signal in first.read(0.0, 300.0, ["ppg", "ecg"]).items():
        np.testing.assert_array_equal(signal, again[role])
        assert not np.array_equal(signal, second.read(0.0, 300.0, [role])[role], equal_nan=True)
    other = listed("synthetic:20?seed=1")[0].read(0.0, 300.0, ["ecg"])["ecg"]
    assert not np.array_equal(other, again["ecg"], equal_nan=True)


def test_spans_equal_the_whole_and_may_be_written_to():
    (recording,) = listed("synthetic:10?rate_hz=200")
    whole = recording.read(0.0, 300.0, ["abp"])["abp"]
    span = recording.read(60.0, 90.0, ["abp"])["abp"]
    np.testing.assert_array_equal(span, whole[12_000:18_000])
    span[:] = 0.0
    np.testing.assert_array_equal(recording.read(60.0, 90.0, ["abp"])["abp"], whole[12_000:18_000])


def test_neighbours_differ_in_quality_so_that_pairs_exist():
    quality = []
    for recording in listed("synthetic:100"):
        signals = recording.read(0.0, recording.duration_s, ["ppg", "ecg"])
        raw = {role: signal.reshape(-1, 3750) for role, signal in signals.items()}
        measured = measure(raw, rate_hz=300.0, length=9000, channels=("ppg", "ecg"))
        quality.append(np.where(measured.reason_B == 0, measured.columns["quality_waveform"], np.nan))
    class_RB = np.digitize(np.array(quality), (0.3, 0.5, 0.7, 0.9))
    assert np.isfinite(quality).mean() > 0.8
    assert set(np.unique(class_RB)) == {0, 1, 2, 3, 4}
    assert np.mean([len(set(class_B)) > 1 for class_B in class_RB.tolist()]) > 0.8


def test_a_rate_too_low_for_the_artefacts_is_a_fault():
    with pytest.raises(UserError, match="from 125 Hz"):
        listed("synthetic:10?rate_hz=50")


@pytest.mark.parametrize("size", ["0", "-5", "many", "1e3", "²", "", "99999999999999"])
def test_a_size_that_is_no_number_of_segments_is_a_fault(size):
    with pytest.raises(UserError, match="number of 30-s segments"):
        listed(f"synthetic:{size}")
